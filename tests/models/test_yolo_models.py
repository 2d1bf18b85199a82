"""YOLO's models by name: their sections are those of the authors' files."""

import os
import pathlib

import jax
import numpy as np
import pytest

from detjax import models
from detjax.errors import UserError
from detjax.models.darknet import NETWORKS, cfg, yolos

CFGS = os.environ.get("DETJAX_DARKNET")
needs_cfgs = pytest.mark.skipif(CFGS is None, reason="DETJAX_DARKNET is not set")
# Options of training and of the file's own surroundings.
NOT_OF_THE_NETWORK = {"jitter", "random", "absolute", "resize", "map"}
WRITTEN = {
    "cfg/yolov1": lambda: yolos.yolov1(20, 1),
    "cfg/yolov1-tiny": lambda: yolos.yolov1_tiny(20, 1),
    "cfg/yolov2": lambda: yolos.yolov2(80, 1, yolos.V2),
    "cfg/yolov2-voc": lambda: yolos.yolov2(20, 1, yolos.V2_VOC),
    "cfg/yolov2-tiny": lambda: yolos.yolov2_tiny(80, 1, yolos.V2),
    "cfg/yolo9000": lambda: yolos.yolo9000(9418, 1, yolos.V9000, "data/9k.tree"),
    "cfg/yolov3": lambda: yolos.yolov3(80, 1, yolos.V3),
    "cfg/yolov3-spp": lambda: yolos.yolov3(80, 1, yolos.V3, pyramid=True),
    "cfg/yolov3-tiny": lambda: yolos.yolov3_tiny(80, 1, yolos.TINY),
    "cfg_later/yolov4": lambda: yolos.yolov4(80, 1, yolos.V4),
    "cfg_later/yolov4-tiny": lambda: yolos.yolov4_tiny(80, 1, yolos.TINY),
}


def value(text):
    """An option's numbers, or its text."""
    try:
        return tuple(float(x) for x in text.split(","))
    except ValueError:
        return text


@needs_cfgs
@pytest.mark.parametrize("name", WRITTEN)
def test_networks_are_those_of_the_authors_files(name):
    shipped = cfg.read(pathlib.Path(CFGS) / f"{name}.cfg")
    written = WRITTEN[name]()
    assert len(shipped.layers) == len(written.layers)
    for theirs, ours in zip(shipped.layers, written.layers, strict=True):
        expected = {
            option: value(text)
            for option, text in theirs.options.items()
            if option not in NOT_OF_THE_NETWORK
        }
        found = {option: value(text) for option, text in ours.options.items()}
        assert (ours.kind, found) == (theirs.kind, expected)


@pytest.mark.parametrize("network", NETWORKS)
def test_models_are_made_at_any_width_and_number_of_classes(network):
    tree = "a -1\nb -1\nc 0\nd 0\ne 0\n" if network == "yolo9000" else None
    model = models.make(network, num_classes=5, width=0.1, tree=tree)
    assert model.spec.outputs == 5
    side = 448 if network.startswith("yolov1") else 64
    image = np.zeros((1, side, side, 3), np.uint8)
    params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), image))
    size = sum(x.size for x in jax.tree.leaves(params))
    wider = models.make(network, num_classes=5, width=0.2, tree=tree)
    params, _ = jax.eval_shape(lambda: wider.init(jax.random.key(0), image))
    assert size < sum(x.size for x in jax.tree.leaves(params))


def test_anchors_are_shared_among_the_heads():
    sizes = [(float(10 + i), 12.0) for i in range(6)]
    model = models.make("yolov3", num_classes=2, width=0.1, priors={"sizes": sizes})
    [level] = model.priors((64, 64)).levels
    np.testing.assert_allclose(level.boxes[:, 2:] * 2, sizes)
    cells = models.make("yolov2", num_classes=2, width=0.1, priors={"sizes": sizes})
    [level] = cells.priors((64, 64)).levels
    np.testing.assert_allclose(level.boxes[:, 2:] * 2, sizes, rtol=1e-5)
    with pytest.raises(UserError, match="yolov1 has no anchors"):
        models.make("yolov1", num_classes=2, priors={"sizes": sizes})
    with pytest.raises(UserError, match="5 anchors and yolov3 3 heads"):
        models.make("yolov3", num_classes=2, priors={"sizes": sizes[:5]})


def test_a_tree_is_yolo9000s():
    with pytest.raises(UserError, match="set both or neither"):
        models.make("yolo9000", num_classes=2)
    with pytest.raises(UserError, match="set both or neither"):
        models.make("yolov2", num_classes=2, tree="a -1\nb -1\n")
    with pytest.raises(UserError, match="the tree has 2 classes, the network 3"):
        models.make("yolo9000", num_classes=3, tree="a -1\nb -1\n")
    assert models.make("yolo9000", tree="a -1\nb -1\n").spec.outputs == 2
