"""CornerNet's and CornerNet-Lite's weight files: names, prefix, order of channels."""

import jax
import numpy as np
import pytest
from families import CORNERNET

from detjax import models
from detjax.weights import convert

FIRST = {
    "cornernet": (
        "pre.0.conv.weight",
        "kps.0.low1.0.skip.1.weight",
        "tl_regrs.0.1.bias",
    ),
    "cornernet_lite": (
        "hg.pre.0.conv.weight",
        "hg.hgs.0.up2.bias",
        "br_offs.0.0.conv.weight",
    ),
}


@pytest.mark.parametrize("source", FIRST)
def test_files_come_back_with_and_without_a_prefix(source):
    block = "fire" if source == "cornernet_lite" else "residual"
    backbone = {**CORNERNET["backbone"], "block": block}
    model = models.make(**{**CORNERNET, "backbone": backbone})
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), np.zeros((1, 64, 64, 3), "u1")
    )
    params, state = jax.tree.map(lambda x: rng.random(x.shape, "f"), shapes)
    held = convert.export(params, state, source=source)
    assert {*FIRST[source]} <= held.keys()
    # Their pictures are BGR.
    kernel = params["backbone"]["pre.0"]["conv"]["kernel"]
    np.testing.assert_array_equal(
        held[FIRST[source][0]], kernel[:, :, ::-1].transpose(3, 2, 0, 1)
    )
    for prefix in ("", "module."):
        file = {prefix + key: value for key, value in held.items()}
        back = convert.load(file, params, state, source=source)[:2]
        jax.tree.map(np.testing.assert_array_equal, back, (params, state))
