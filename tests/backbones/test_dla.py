"""DLA-34: its size, its files, and the way up that CenterNet has on it."""

import jax
import numpy as np
import pytest

from detjax import backbones, models
from detjax.errors import UserError
from detjax.models.centernet import DLAUp
from detjax.weights import convert


def shaped(net, h, w):
    """The outputs and the variables of a network for an image, as shapes."""
    images = np.zeros((1, h, w, 3), np.float32)
    return jax.eval_shape(net.init_with_output, jax.random.key(0), images)


def count(params):
    return sum(x.size for x in jax.tree.leaves(params))


def test_it_has_the_published_number_of_parameters():
    logits, variables = shaped(backbones.make("dla34", num_classes=1000), 64, 96)
    assert logits.shape == (1, 1000)
    # timm's, which leaves out the same layers.
    assert count(variables["params"]) == 15_742_104


# Sides that halve into odd ones.
@pytest.mark.parametrize(("h", "w"), [(64, 96), (240, 104), (36, 20)])
def test_features_have_their_strides_and_sides_are_rounded_up(h, w):
    features, _ = shaped(backbones.make("dla34", width=2), h, w)
    for level, x in enumerate(features, start=2):
        side = 2**level
        assert x.shape == (1, -(-h // side), -(-w // side), 2 * side)


def test_files_of_the_authors_have_layers_that_nothing_reads():
    _, variables = shaped(backbones.make("dla34", width=1, num_classes=3), 32, 32)
    rng = np.random.default_rng(0)
    full = jax.tree.map(lambda x: rng.random(x.shape, "f"), variables)
    params, state = full["params"], {"batch_stats": full["batch_stats"]}
    held = convert.export(params, state, source="timm")
    assert held["fc.weight"].shape == (3, 32, 1, 1)
    assert {"level3.tree1.project.0.weight", "level4.tree2.root.bn.bias"} <= {*held}
    held["level3.project.0.weight"] = np.zeros((8, 4, 1, 1), "f")
    back = convert.load(held, params, state, source="timm")
    jax.tree.map(np.testing.assert_array_equal, back[:2], (params, state))
    assert not back[2].unused


def test_computing_again_changes_no_name():
    kept, again = (
        shaped(backbones.make("dla34", width=2, remat=remat), 64, 64)
        for remat in (False, True)
    )
    assert kept == again


def test_a_dla_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"choose one of.*dla34"):
        backbones.FAMILIES["dla34"]("dla35")


def test_centernets_dla_has_its_authors_parameters():
    model = models.make("centernet_dla34", num_classes=3)
    images = np.zeros((1, 64, 96, 3), np.uint8)
    params, state = jax.eval_shape(model.init, jax.random.key(0), images)
    # 41,728 fewer than in their files: the layers that nothing reads.
    assert count(params) == 19_656_103 - 41_728
    full = jax.tree.map(lambda x: np.zeros(x.shape, "f"), (params, state))
    held = convert.export(*full, source="centernet")
    assert {
        "base.base_layer.0.weight",
        "base.level5.root.conv.weight",
        "dla_up.ida_2.proj_2.conv.conv_offset_mask.weight",
        "dla_up.ida_0.node_1.actf.0.running_var",
        "ida_up.up_2.weight",
        "wh.2.bias",
    } <= {*held}
    assert held["ida_up.up_2.weight"].shape == (64, 1, 8, 8)


@pytest.mark.parametrize("joined", [1, 2, 4])
def test_the_way_up_ends_at_the_finest_level(joined):
    settings = {"backbone": {"name": "dla34", "width": 1, "levels": (2, 3, 4, 5)}}
    up = DLAUp(joined=joined, deformable=False)
    model = models.make("centernet_dla", num_classes=2, up=up, **settings)
    (maps,), _ = jax.eval_shape(
        model.net.init_with_output, jax.random.key(0), np.zeros((1, 52, 100, 3), "u1")
    )
    assert maps["hm"].shape == (1, 13, 25, 2)
