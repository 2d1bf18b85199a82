"""CenterNet's weight files: names with a classifier and with hourglasses."""

import jax
import numpy as np
import pytest
from families import CENTERNET, CORNERNET, KEYPOINTS

from detjax import models
from detjax.errors import UserError
from detjax.weights import convert

POSE = {"count": KEYPOINTS}
MODELS = {
    "centernet": {
        **CENTERNET,
        "up": {"features": (16, 16), "deformable": True},
        "pose": POSE,
    },
    "centernet_hourglass": {
        **CORNERNET,
        "name": "centernet_hourglass",
        "backbone": {**CORNERNET["backbone"], "stacks": 2},
        "head": {"hidden": 8},
        "detect": {},
        "pose": POSE,
    },
}
# The authors' names: the first convolution, some of the way up, and of the heads.
FIRST = {
    "centernet": (
        "conv1.weight",
        "layer3.0.downsample.1.running_var",
        "deconv_layers.0.conv_offset_mask.weight",
        "deconv_layers.3.weight",
        "deconv_layers.10.running_mean",
        "hm.0.weight",
        "hm_hp.2.bias",
        "hp_offset.2.weight",
    ),
    "centernet_hourglass": (
        "pre.0.conv.weight",
        "kps.1.low1.0.skip.1.weight",
        "inters_.0.1.bias",
        "hm.1.0.conv.bias",
        "hm_hp.0.1.weight",
        "reg.1.1.bias",
    ),
}


@pytest.mark.parametrize("source", FIRST)
def test_files_come_back_with_and_without_a_prefix(source):
    model = models.make(**MODELS[source])
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), np.zeros((1, 64, 64, 3), "u1")
    )
    params, state = jax.tree.map(lambda x: rng.random(x.shape, "f"), shapes)
    held = convert.export(params, state, source=source)
    assert {*FIRST[source]} <= held.keys()
    # Their pictures are BGR.
    kernel = params["backbone"]
    path = ("body", "conv1") if source == "centernet" else ("pre.0", "conv")
    for name in (*path, "kernel"):
        kernel = kernel[name]
    np.testing.assert_array_equal(
        held[FIRST[source][0]], kernel[:, :, ::-1].transpose(3, 2, 0, 1)
    )
    for prefix in ("", "module."):
        file = {prefix + key: value for key, value in held.items()}
        back = convert.load(file, params, state, source=source)[:2]
        jax.tree.map(np.testing.assert_array_equal, back, (params, state))


def test_a_head_that_a_file_lacks_is_named():
    model = models.make(**MODELS["centernet"])
    images = np.zeros((1, 64, 64, 3), "u1")
    params, state = jax.eval_shape(model.init, jax.random.key(0), images)
    full = jax.tree.map(lambda x: np.zeros(x.shape, "f"), (params, state))
    held = convert.export(*full, source="centernet")
    file = {key: value for key, value in held.items() if not key.startswith("hps.")}
    with pytest.raises(UserError, match=r"hps\.2\.bias"):
        convert.load(file, params, state, source="centernet")
