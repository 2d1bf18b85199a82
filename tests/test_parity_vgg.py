"""Every golden of FCN on VGG-16 and of SegNet; seeds and shapes are the files'."""

import json
import os
import pathlib

import numpy as np
import pytest
from conftest import ROOT

from detjax import parity
from detjax.errors import UserError
from detjax.parity import segmenters_vgg
from detjax.weights import names

FOLDER = pathlib.Path(os.environ.get("DETJAX_GOLDENS", ROOT / "../shared/goldens"))
FILES = [p for p, source in parity.known(FOLDER).items() if source is segmenters_vgg]
DAILY = "segnet_basic"


def parameters():
    for path in FILES:
        slow = [] if path.stem == DAILY else [pytest.mark.long]
        yield pytest.param(path, marks=slow, id=path.stem)


@pytest.mark.skipif(not FILES, reason=f"no goldens in {FOLDER}: set DETJAX_GOLDENS")
@pytest.mark.parametrize("path", [*parameters()])
def test_segmenters_are_the_originals(path):
    found = parity.certify(path)
    facts = json.loads(path.read_text())
    assert found.parameters == found.expected_parameters
    kernels = facts.get("bilinear_kernels", {})
    assert found.outputs.keys() == facts["outputs"].keys() | kernels.keys()
    assert found.moved == 0
    assert {k: v for k, v in found.outputs.items() if not v < 1e-4} == {}
    assert {k: v for k, v in found.losses.items() if not v < 1e-4} == {}
    # Where a ReLU's input is nothing but rounding the original differs from itself.
    most = max(1e-3, 10 * facts["float64_differs_by"]["grad_norm"])
    assert {k: v for k, v in found.gradients.items() if not v < most} == {}


def tiny(model, settings, **facts):
    """A golden of a small model, its recipe alone."""
    target = {"shape": [1, 40, 48], "seed": 3, "classes": 4, "ignore": 9}
    return {
        "source": "detjax",
        "model": model,
        "seed": 3,
        "norm_scale": [0.8, 1.2],
        "settings": settings,
        "input": {"shape": [1, 40, 48, 3], "seed": 3, "then": "x * 4 - 2, NCHW"},
        "train": {"target": target},
        **facts,
    }


@pytest.mark.parametrize(
    ("model", "settings", "known"),
    [
        ("fcn8s", {"backbone": {"width": 4}, "hidden": 8}, "conv3_2.weight"),
        ("segnet", {"backbone": {"width": 4}}, "conv4_1_bn.running_mean"),
        ("segnet_basic", {"width": 4}, "conv_decode2_bn.weight"),
    ],
)
def test_names_are_the_originals(model, settings, known):
    from flax import traverse_util

    facts = tiny(model, settings)
    params, state = segmenters_vgg.shapes(facts)
    leaves = traverse_util.flatten_dict({"params": params, **state})
    source = segmenters_vgg.source_of(facts)
    spelled = {names.spell(".".join(path[1:]), source) for path in leaves}
    assert known in spelled
    assert not any("features" in name for name in spelled)
    assert len(spelled) == len(leaves)


def test_layers_beyond_vgg_16_keep_their_names():
    assert names.spell("backbone.features.99.kernel", "fcn").endswith("99.weight")
    assert names.spell("backbone.features.28.bias", "fcn") == "conv5_3.bias"
    assert names.spell("backbone.features.41.scale", "segnet") == "conv5_3_bn.weight"
    with pytest.raises(UserError, match="no source"):
        names.spell("a.kernel", "fcns")


def test_kernels_on_pixels_are_turned_from_bgr():
    from detjax.weights import convert

    kernel = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    ours = convert.to_ours(kernel, "features.0.weight", "hed", None)
    np.testing.assert_array_equal(ours[:, :, 0], kernel[:, 2].transpose(1, 2, 0))
    back = convert.to_theirs(ours, "features.0.weight", "hed", None)
    np.testing.assert_array_equal(back, kernel)
    other = convert.to_ours(kernel, "features.2.weight", "hed", None)
    np.testing.assert_array_equal(other, kernel.transpose(2, 3, 1, 0))
