"""The aligned Xception, by the golden of the DeepLabV3+ that it is in."""

import os
import pathlib

import jax
import numpy as np
import pytest
from conftest import ROOT

from detjax import backbones
from detjax.parity import goldens
from detjax.weights import convert

FOLDER = pathlib.Path(os.environ.get("DETJAX_GOLDENS", ROOT / "../shared/goldens"))
GOLDEN = FOLDER / "segmentation/deeplabv3plus_xception.json"


@pytest.mark.slow
@pytest.mark.skipif(not GOLDEN.exists(), reason=f"no {GOLDEN}: set DETJAX_GOLDENS")
def test_aligned_features_are_the_originals():
    golden = goldens.read(GOLDEN)
    facts = golden.facts
    inside = {
        name.removeprefix("backbone."): value
        for name, value in golden.state_dict.items()
        if name.startswith("backbone.")
    }
    stride = facts["output_stride"]
    net = backbones.make("xception_aligned", output_stride=stride, norm="frozen")
    # As drawn: the file's figures are not those of the "then" beside its input.
    images = goldens.draw_images(facts["input"]["shape"], facts["input"]["seed"])
    state = dict(jax.eval_shape(net.init, jax.random.key(0), images))
    params = state.pop("params")
    params, state, _ = convert.load(inside, params, state, source="torchvision")
    features = jax.jit(net.apply)({"params": params, **state}, images)
    for name, found in (("low_level", features[0]), ("features", features[-1])):
        held = facts["outputs"][name]
        found = np.moveaxis(np.asarray(found), -1, 1)
        assert goldens.summary_error(found, held) < 1e-4, name
