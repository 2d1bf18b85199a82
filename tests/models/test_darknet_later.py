"""The heads of YOLOv4 and of trees: their gradients are what the C code computes.

`C` holds the cost and some deltas of the code itself, as in `test_darknet_losses`. For
"later" AlexeyAB/darknet at 59596d78: yolo_layer.c, box.c, blas.c, activations.c and
utils.c are linked with a program that makes a [yolo] layer for 90 truths of six
numbers, sets the options below (cls_normalizer 1, the others as given) and calls
`l.forward`. For "tree" pjreddie/darknet at f6afaabc: region_layer.c without what stands
between #ifndef GPU and #endif in its forward function, which the code for GPUs does
before it, with outputs that are activated already, and `l.softmax_tree` read from TREE.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax.errors import UserError
from detjax.models.darknet import cfg
from detjax.models.darknet import tree as trees
from detjax.models.darknet.ends import heads
from detjax.models.darknet.net import Net
from detjax.models.darknet.region import Region
from detjax.models.darknet.sections import network, yolo
from detjax.models.darknet.truths import unplaced
from detjax.models.darknet.yolo import Yolo
from detjax.models.darknet.yolo_later import LaterYolo, by_overlap
from detjax.types import Objects
from tests import reference_darknet as oracle
from tests.darknet_cases import NAMES, ROWS, SCALES, objects, of_map, size_of

TREE = "a -1\nb -1\nc -1\nd 0\ne 0\nf 1\ng 1\nh 1\ni 3\nj 3\n"
PLAIN = {"ignore": 0.5, "box_weight": 0.4, "objectness_weight": 1.2}
LATER = {
    0: {"box_loss": "mse", "scale": 1.2},
    1: {"box_loss": "iou", "more": 0.3, "smooth_labels": 0.1, "crowded": True},
    2: {"box_loss": "giou", "scale": 1.1, "most": 2.0},
    3: {"box_loss": "diou", "more": 0.3, "smooth_objectness": True},
    4: {"box_loss": "ciou", "scale": 1.05, "more": 0.213, "most": 5.0, "crowded": True},
    5: {"box_loss": "ciou", "scale": 2.0, "more": 0.2, "activated": True},
}
# Whether the last object is a label without a box, and the images seen.
TREES = {0: (False, 50_000), 1: (True, 50_000), 2: (False, 0)}
C: dict[tuple[str, int], tuple[float, list[float]]] = {
    ("later", 0): (
        24.9747,
        [
            0.0,
            0.618284,
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
            0.957593,
            -0.922166,
            -0.838502,
            -0.820252,
            -0.811663,
            -0.807645,
            -0.802748,
            -0.799187,
        ],
    ),
    ("later", 1): (
        50.3198,
        [
            0.0,
            0.0,
            -0.48904,
            -0.335141,
            0.0,
            0.0,
            0.0,
            0.0,
            -3.666754,
            -3.153663,
            1.191629,
            -1.03836,
            0.955589,
            -0.917077,
            -0.849995,
            -0.846737,
        ],
    ),
    ("later", 2): (
        39.4254,
        [
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
            -2.0,
            -2.0,
            -1.850686,
            -1.707548,
            -1.582395,
            -1.248566,
            1.151021,
            -1.015797,
        ],
    ),
    ("later", 3): (
        43.2618,
        [
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
            -2.669817,
            1.778711,
            1.704413,
            1.541091,
            -1.474585,
            1.274468,
            -1.164381,
            -1.022113,
        ],
    ),
    ("later", 4): (
        121.785,
        [
            0.248202,
            0.0,
            0.0,
            -0.512026,
            0.0,
            0.0,
            0.0,
            0.0,
            4.738011,
            4.441791,
            -4.333087,
            -1.923523,
            -1.672545,
            -1.493046,
            -1.47956,
            1.348557,
        ],
    ),
    ("later", 5): (
        108.75,
        [
            0.0,
            -0.764985,
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
            5.599873,
            3.81745,
            2.465,
            2.303457,
            -1.989612,
            1.948847,
            1.789061,
            -1.329913,
        ],
    ),
    ("tree", 0): (
        46.271,
        [
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
            -0.331974,
            0.0,
            3.574118,
            3.071545,
            -1.959141,
            -1.663559,
            -1.297745,
            -1.007663,
            -1.001579,
            1.001579,
        ],
    ),
    ("tree", 1): (
        6.64939,
        [
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
            -0.477795,
            0.0,
            -0.557068,
            -0.524073,
            -0.515573,
            -0.514335,
            -0.49908,
            -0.489589,
            -0.483386,
            -0.477795,
        ],
    ),
    ("tree", 2): (
        60.2772,
        [
            0.006279,
            0.0,
            0.0,
            0.0,
            0.0,
            -0.001685,
            -0.303611,
            0.0,
            -3.475358,
            -3.213981,
            1.733338,
            -1.699178,
            -1.593696,
            1.248846,
            1.222293,
            1.16265,
        ],
    ),
}


def later_case(seed):
    """The options and the drawn case of `LATER`."""
    options = {**PLAIN, **LATER[seed]}
    crowded = options.pop("crowded", False)
    case = oracle.drawn(seed, total=6, unit=1.0, crowded=crowded)
    if options.get("activated"):
        case = case._replace(raw=oracle.sigmoid(case.raw).astype("f"))
    return options, case


def tree_case(seed):
    """The drawn case of `TREES`, whose classes are those of the tree."""
    case = oracle.drawn(seed + 20, crowded=True)
    rng = np.random.default_rng([seed, 3])
    a, _, h, w = case.raw.shape
    classes = rng.normal(0, 0.8, (a, 10, h, w)).astype("f")
    raw = np.concatenate([case.raw[:, :5], classes], axis=1)
    labels = rng.integers(0, 10, len(case.labels))
    return case._replace(raw=raw, labels=labels)


def ours(kind, seed):
    if kind == "tree":
        case = tree_case(seed)
        labelled, seen = TREES[seed]
        head = Region(
            classes=10,
            anchors=tuple(map(tuple, case.anchors.tolist())),
            softmax=True,
            tree=trees.read(TREE),
            bias_match=True,
            rescore=True,
            ignore=0.6,
            **dict(zip(NAMES, SCALES, strict=True)),
        )
        h, w = size = size_of(case)
        known = objects(case, size, labelled=labelled)
        window = jnp.array([0, 0, w, h], jnp.float32)
        return of_map(head, case, known, jnp.float32(seen), unplaced(known, window))
    options, case = later_case(seed)
    anchors = tuple(map(tuple, case.anchors.tolist()))
    head = LaterYolo(
        case.raw.shape[1] - 5, anchors, tuple(case.mask.tolist()), **options
    )
    return of_map(head, case, objects(case, size_of(case)))


@pytest.mark.parametrize(
    ("kind", "seed"), [("later", i) for i in LATER] + [("tree", i) for i in TREES]
)
def test_gradients_are_darknets(kind, seed):
    found = ours(kind, seed)
    cost, some = C[kind, seed]
    assert np.square(found).sum() == pytest.approx(cost, rel=1e-4)
    places = np.random.default_rng(9).choice(found.size, 8, replace=False)
    largest = np.argsort(-np.abs(found.ravel()).round(4), kind="stable")
    at = np.concatenate([places, largest[:8]])
    np.testing.assert_allclose(found.ravel()[at], some, atol=2e-5)


def test_values_are_those_of_the_losses_names():
    truth = jnp.array([0.5, 0.5, 0.2, 0.2])

    def value(kind, box):
        return float(by_overlap(kind, jnp.array(box), truth)[0])

    same = [0.5, 0.5, 0.2, 0.2]
    for kind in ("iou", "giou", "diou", "ciou"):
        assert value(kind, same) == pytest.approx(0, abs=1e-5)
    # Half of the box inside, of the same size: IoU 1/3.
    beside = [0.6, 0.5, 0.2, 0.2]
    assert value("iou", beside) == pytest.approx(2 / 3, abs=1e-5)
    assert value("giou", beside) == pytest.approx(2 / 3, abs=1e-5)
    assert value("diou", beside) == pytest.approx(2 / 3 + 0.01 / 0.13, abs=1e-5)
    apart = [0.9, 0.5, 0.2, 0.2]
    assert value("iou", apart) == pytest.approx(1)
    assert value("giou", apart) == pytest.approx(1 + 0.2 / 0.6, abs=1e-5)


def test_crowds_are_no_background():
    _, case = later_case(4)
    case = case._replace(truths=case.truths[:0], labels=case.labels[:0])
    h, w = (32 * side for side in case.raw.shape[2:])
    everywhere = Objects(
        np.array([[0, 0, w, h]], np.float32),
        np.zeros(1, np.int32),
        np.ones(1, bool),
        np.ones(1, bool),
    )
    anchors = tuple(map(tuple, case.anchors.tolist()))
    mask = tuple(case.mask.tolist())
    raw = case.raw.transpose(2, 3, 0, 1).reshape(*case.raw.shape[2:], -1)
    for head in (
        Yolo(case.raw.shape[1] - 5, anchors, mask),
        LaterYolo(case.raw.shape[1] - 5, anchors, mask),
    ):
        with_crowd = head.losses(raw, everywhere, (h, w))
        without = head.losses(raw, everywhere.replace(valid=np.zeros(1, bool)), (h, w))
        # Boxes that reach far out of the picture still are.
        assert with_crowd.objectness < 0.5 * without.objectness


def test_the_options_of_the_later_darknet_make_its_head():
    anchors = [(10, 10), (20, 20)]
    plain = network((64, 64), yolo(3, anchors, range(2)))
    later = network((64, 64), yolo(3, anchors, range(2), iou_loss="ciou"))
    assert type(heads(plain)[1]) is Yolo
    assert heads(later)[1].box_loss == "ciou"
    with pytest.raises(ValueError, match=r"iou_loss=new is not one of mse, iou"):
        heads(network((64, 64), yolo(3, anchors, range(2), iou_loss="new")))
    with pytest.raises(ValueError, match="focal_loss= is not built"):
        heads(network((64, 64), yolo(3, anchors, [0], iou_loss="iou", focal_loss=1)))


def slow_top(tree, probabilities, threshold):
    """Tree's answer, as hierarchy_top_prediction walks."""
    passed, group = 1.0, 0
    while True:
        nodes = [i for i, g in enumerate(tree.groups) if g == group]
        best = max(nodes, key=lambda i: probabilities[i])
        if passed * probabilities[best] <= threshold:
            return best if group == 0 else tree.parents[nodes[0]]
        passed *= probabilities[best]
        below = [i for i, parent in enumerate(tree.parents) if parent == best]
        if not below:
            return best
        group = tree.groups[below[0]]


def test_answers_go_as_far_down_as_is_sure():
    tree = trees.read(TREE)
    logits = np.random.default_rng(0).normal(0, 3, (200, 10)).astype("f")
    found = np.asarray(tree.top(jnp.asarray(logits), 0.5))
    absolute = np.asarray(tree.absolute(jnp.asarray(logits)))
    assert found.tolist() == [slow_top(tree, row, 0.5) for row in absolute]
    assert len(set(found.tolist())) == 10


def test_a_label_counts_where_the_crowd_fills_the_picture():
    def objects(*boxes):
        n = len(boxes)
        return Objects(
            jnp.array(boxes, jnp.float32),
            jnp.zeros(n, int),
            jnp.ones(n, bool),
            jnp.ones(n, bool),
        )

    window = jnp.array([8.0, 0.0, 56.0, 64.0])
    known = objects([8, 0, 56, 64], [8, 0, 56, 40], [0, 0, 64, 64])
    assert unplaced(known, window).tolist() == [True, False, True]
    # Beside an object with a box it is a crowd like any other.
    boxed = known.replace(crowd=jnp.array([True, False, True]))
    assert not unplaced(boxed, window).any()


def test_dropout_of_blocks_is_that_of_the_options():
    text = "[net]\nheight=8\nwidth=16\n[dropout]\nprobability=.3\ndropblock=1\n"

    def kept(options):
        net = Net(cfg.parse(text + options), pixels="normalized")
        image = jnp.ones((4, 8, 16, 3))
        keys = {"dropout": jax.random.key(0), "params": jax.random.key(1)}
        assert (net.apply({}, image)[0] == 1).all()
        return np.asarray(net.apply({}, image, train=True, rngs=keys)[0] > 0)

    # Blocks of 3 x 3: no cell is dropped without two beside it.
    for options in ("dropblock_size_abs=3\n", "dropblock_size_rel=.2\n"):
        dropped = ~kept(options)
        assert 0.1 < dropped.mean() < 0.45
        runs = [
            len(run)
            for row in dropped.transpose(0, 1, 3, 2).reshape(-1, 16)
            for run in "".join("x" if cell else " " for cell in row).split()
        ]
        assert min(runs) == 3
    # Seven cells by default, of which eight rows have room for two blocks.
    assert kept("").mean() > 0.3


def test_crowds_without_an_area_have_no_influence():
    _, case = later_case(0)
    size = size_of(case)
    nothing = objects(case, size)
    flat = np.array([5.0, 5.0, 5.0, 40.0], np.float32)
    crowd = nothing.replace(
        boxes=np.concatenate([flat[None], nothing.boxes[1:]]),
        crowd=np.arange(ROWS) == 0,
    )
    anchors = tuple(map(tuple, case.anchors.tolist()))
    mask, classes = tuple(case.mask.tolist()), case.raw.shape[1] - 5
    for head in (Yolo(classes, anchors, mask), LaterYolo(classes, anchors, mask)):
        found = of_map(head, case, crowd)
        assert np.isfinite(found).all()
        valid = nothing.valid & (np.arange(ROWS) > 0)
        np.testing.assert_allclose(
            found, of_map(head, case, nothing.replace(valid=valid)), atol=1e-6
        )


def test_options_that_would_make_another_layer_are_refused():
    head = "[net]\nheight=8\nwidth=8\n"
    for text, said in (
        ("[convolutional]\ndilation=2\n", r"line 4.*dilation=2 is not built"),
        ("[maxpool]\nmaxpool_depth=1\n", "maxpool_depth=1 is not built"),
        ("[reorg]\nstride=3\n", "divides maps of 8 x 8 cells and 3 channels by 3"),
    ):
        net = Net(cfg.parse(head + text), pixels="normalized")
        with pytest.raises(UserError, match=said):
            net.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    lonely = network((64, 64), yolo(3, [(9, 9)], [0], focal_loss=1))
    with pytest.raises(UserError, match="focal_loss= is not built"):
        heads(lonely)
