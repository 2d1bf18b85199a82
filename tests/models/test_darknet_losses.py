"""The losses of darknet's heads: their gradients are what darknet's C code computes.

`C` holds figures of the code itself: its cost, which is the sum of the squared deltas,
and the deltas at a few places. pjreddie/darknet at f6afaabc was built for a CPU
(`make OPENCV=0`) and a program of thirty lines linked with libdarknet.a; it fills a
`network` with `seen` and `train` 1, makes the layer (`make_yolo_layer(1, w, h, n,
total, mask, classes)` and its like) with the options below, puts a case of
`reference_darknet.drawn` in `net.input` and `net.truth`, calls `l.forward`, and prints
`l.cost` and `l.delta`. Inputs are 32 pixels a cell; truths of [yolo] and [region] are
x, y, w, h, label in a row, of [detection] as `fill_truth_region` has them, the first of
a cell.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from detjax.models.darknet.detection import Detection
from detjax.models.darknet.region import Region
from detjax.models.darknet.yolo import Yolo
from tests import reference_darknet as oracle
from tests.darknet_cases import NAMES, SCALES, deltas, objects, of_map, size_of

# Options by case.
YOLO = {
    0: {"ignore": 0.5, "truth": 1.0},
    1: {"ignore": 0.4, "truth": 0.6, "crowded": True},
    2: {"ignore": 0.7, "truth": 1.0, "crowded": True},
}
REGION = {
    0: {"seen": 0, "bias_match": True, "rescore": True, "softmax": True},
    1: {"seen": 50_000, "bias_match": False, "rescore": True, "softmax": False},
    2: {"seen": 50_000, "bias_match": True, "rescore": False, "softmax": True},
}
DETECTION = {
    0: {"rescore": True, "root": True},
    1: {"rescore": False, "root": False},
    2: {"rescore": True, "root": False, "crowded": True},
}
C: dict[tuple[str, int], tuple[float, list[float]]] = {
    ("yolo", 0): (
        26.6465,
        [0.0, 0.515237, 0.0, 0.0, 2.393983, -1.569784, -0.961623, -0.768472],
    ),
    ("yolo", 1): (
        42.5876,
        [0.0, 0.0, -0.53904, -0.385141, -2.652475, -2.180794, 1.821716, 1.763827],
    ),
    ("yolo", 2): (
        22.6131,
        [0.0, 0.0, 0.0, 0.0, -2.186954, 1.351698, -1.173488, -1.008874],
    ),
    ("region", 0): (
        98.4324,
        [-0.000245, -0.422724, 0.0, 0.0, -4.004169, -3.624458, 3.255845, -2.948511],
    ),
    ("region", 1): (
        30.1895,
        [0.0, 0.0, 0.0, -0.944306, 3.344917, 1.9345, 1.933272, -0.944306],
    ),
    ("region", 2): (
        47.3759,
        [0.0, 0.0, 0.0, 0.0, 3.049945, 2.231086, 2.088185, 2.085722],
    ),
    ("detection", 0): (
        14.8333,
        [0.0, 0.0, 0.0, 0.0, -1.783138, 1.683479, 1.085252, -1.077514],
    ),
    ("detection", 1): (
        33.3289,
        [-0.145567, 0.0, 0.0, 0.0, 3.799708, 2.301116, 2.291379, 1.409907],
    ),
    ("detection", 2): (
        9.30467,
        [0.0, 0.0, 0.0, -0.237609, -1.316729, -0.863868, -0.849269, -0.782032],
    ),
}


def yolo(seed):
    """Our deltas and the oracle's of a case."""
    options = dict(YOLO[seed])
    crowded = options.pop("crowded", False)
    case = oracle.drawn(seed, total=6, unit=1.0, crowded=crowded)
    anchors = tuple(map(tuple, case.anchors.tolist()))
    mask = tuple(case.mask.tolist())
    head = Yolo(case.raw.shape[1] - 5, anchors, mask, **options)
    return of_map(head, case, objects(case, size_of(case))), oracle.yolo(
        case, **options
    )


def region(seed):
    options = {**REGION[seed], "ignore": 0.6}
    case = oracle.drawn(seed, crowded=seed == 1)
    seen = options.pop("seen")
    head = Region(
        case.raw.shape[1] - 5,
        tuple(map(tuple, case.anchors.tolist())),
        **options,
        **dict(zip(NAMES, SCALES, strict=True)),
    )
    expected = oracle.region(case, seen=seen, scales=SCALES, **options)
    known = objects(case, size_of(case))
    return of_map(head, case, known, jnp.float32(seen)), expected


def detection(seed):
    options = dict(DETECTION[seed])
    case = oracle.drawn(seed, crowded=options.pop("crowded", False))
    side, count, classes = 4, 1 + seed, 4
    raw = np.random.default_rng([seed, 1]).normal(
        0.3, 0.3, side * side * (classes + 5 * count)
    )
    raw = raw.astype("f")
    head = Detection(
        classes, side, count, **options, **dict(zip(NAMES, SCALES, strict=True))
    )
    expected = oracle.detection(
        raw,
        case,
        side=side,
        count=count,
        classes=classes,
        scales=SCALES,
        **options,
    )
    return deltas(head, raw, objects(case, (448, 448)), (448, 448)), expected


HEADS = {"yolo": yolo, "region": region, "detection": detection}
CASES = [(kind, seed) for kind in HEADS for seed in range(3)]


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_gradients_are_darknets(kind, seed):
    ours, expected = HEADS[kind](seed)
    np.testing.assert_allclose(ours, expected, atol=2e-5)
    # The oracle too is held to the code that it was written from.
    cost, some = C[kind, seed]
    assert np.square(ours).sum() == pytest.approx(cost, rel=1e-4)
    places = np.random.default_rng(9).choice(ours.size, len(some), replace=False)
    largest = np.argsort(-np.abs(expected.ravel()))[: len(some) // 2]
    at = np.concatenate([places[: len(some) // 2], largest])
    np.testing.assert_allclose(ours.ravel()[at], some, atol=2e-5)
