"""Pascal VOC's AP: published figures, a loop, rankings that mAP cannot tell apart."""

import json
import os
import pathlib

import numpy as np
import pytest

from detjax.eval import voc
from detjax.eval.columns import Results, Truths

DATA = os.environ.get("DETJAX_DATA")


def truths(rows):
    """Truths of rows image, label, x, y, w, h, difficult."""
    rows = np.array(rows, float).reshape(-1, 7)
    return Truths(
        rows[:, 0].astype(int),
        rows[:, 1].astype(int),
        rows[:, 2:6],
        rows[:, 4] * rows[:, 5],
        np.zeros(len(rows), bool),
        ignore=rows[:, 6] > 0,
    )


def results(rows):
    """Detections of rows image, label, score, x, y, w, h."""
    rows = np.array(rows, float).reshape(-1, 7)
    return Results(
        rows[:, 0].astype(int), rows[:, 1].astype(int), rows[:, 2], rows[:, 3:]
    )


@pytest.mark.skipif(not DATA, reason="DETJAX_DATA is not set")
@pytest.mark.parametrize("iou", [0.1, 0.3, 0.5, 0.75])
@pytest.mark.parametrize(
    "points, name", [("11", "eleven_point"), ("all", "every_point")]
)
def test_published_figures(iou, points, name):
    folder = pathlib.Path(DATA) / "metric_padilla_voc"
    expected = json.loads((folder / "EXPECTED.json").read_text())[name][str(iou)]

    def rows(part):
        return [
            [int(path.stem), 0, *map(float, line.split()[1:])]
            for path in sorted((folder / part).glob("*.txt"))
            for line in path.read_text().splitlines()
        ]

    found = voc.evaluate(
        truths([[*row, 0] for row in rows("groundtruths")]),
        results(rows("detections")),
        image_ids=range(1, 8),
        num_classes=1,
        iou=iou,
        points=points,
        inclusive=True,
    )
    assert found.macro == pytest.approx(expected, abs=1e-9)
    assert found.classes[0] == found.macro == found.micro


def kit(true, found, count, iou, points, more):
    """AP of one class as the development kit's loop has it; rows as above."""
    taken, marks = set(), []
    order = sorted(range(len(found)), key=lambda i: (-found[i][2], found[i][0], i))
    for row in (found[i] for i in order):
        best, place = -1.0, None
        for j, other in enumerate(true):
            if other[0] != row[0]:
                continue
            x, y, w, h = row[3:]
            u, v, s, t = other[2:6]
            iw = min(x + w, u + s) - max(x, u) + more
            ih = min(y + h, v + t) - max(y, v) + more
            if iw > 0 and ih > 0:
                inter = iw * ih
                union = (w + more) * (h + more) + (s + more) * (t + more) - inter
                if inter / union > best:
                    best, place = inter / union, j
        if best >= iou:
            if true[place][6]:
                continue
            marks.append(place not in taken)
            taken.add(place)
        else:
            marks.append(False)
    if not count:
        return float("nan")
    recall, precision = [0.0], [0.0]
    for i in range(len(marks)):
        recall.append(sum(marks[: i + 1]) / count)
        precision.append(sum(marks[: i + 1]) / (i + 1))
    if points == "11":
        levels = [
            max(
                (p for p, r in zip(precision, recall, strict=True) if r >= t), default=0
            )
            for t in np.linspace(0, 1, 11)
        ]
        return sum(levels) / 11
    recall.append(1.0)
    precision.append(0.0)
    for i in reversed(range(len(precision) - 1)):
        precision[i] = max(precision[i], precision[i + 1])
    return sum(
        (recall[i + 1] - recall[i]) * precision[i + 1] for i in range(len(recall) - 1)
    )


@pytest.mark.parametrize("seed", range(12))
def test_random_cases_are_the_development_kits(seed):
    """Whole coordinates, few scores: ties of overlaps and of scores, duplicates."""
    rng = np.random.default_rng(seed)

    def boxes(n):
        return np.concatenate(
            [rng.integers(0, 12, (n, 2)), rng.integers(1, 9, (n, 2))], 1
        )

    def heads(n):
        return [rng.integers(0, 4, n), rng.integers(0, 3, n)]

    m, n = int(rng.integers(0, 30)), int(rng.integers(0, 60))
    true = np.column_stack([*heads(m), boxes(m), rng.random(m) < 0.2])
    found = np.column_stack([*heads(n), rng.integers(0, 9, n) / 8, boxes(n)])
    for points in ("11", "all"):
        for more in (0, 1):
            got = voc.evaluate(
                truths(true),
                results(found),
                image_ids=range(4),
                num_classes=3,
                iou=0.3,
                points=points,
                inclusive=bool(more),
            )
            for label in range(3):
                some = true[true[:, 1] == label].tolist()
                these = found[found[:, 1] == label].tolist()
                count = sum(not row[6] for row in some)
                expected = kit(some, these, count, 0.3, points, more)
                np.testing.assert_allclose(got.classes[label], expected, atol=1e-12)


def test_global_ap_tells_apart_what_mean_ap_does_not():
    """Two detectors of perfect rankings by class, of which one shouts of nothing.

    Redmon and Farhadi 2018, figure 5: what one class's mistakes score beside another's
    hits does not matter to the mean over classes.
    """
    true = truths([[i, i % 2, 10, 10, 20, 20, 0] for i in range(4)])
    right = [[i, i % 2, 0.9 if i % 2 else 0.3, 10, 10, 20, 20] for i in range(4)]

    def score(wrong):
        rows = right + [[i, 0, wrong, 60, 60, 5, 5] for i in range(4)]
        return voc.evaluate(true, results(rows), image_ids=range(4), num_classes=2)

    calm, loud = score(0.1), score(0.25)
    assert calm.macro == loud.macro == 1
    assert calm.micro == loud.micro == 1
    # Above the hits of the other class, yet below those of its own.
    rows = [[i, i % 2, 0.9 if i % 2 else 0.3, 10, 10, 20, 20] for i in range(4)]
    rows[0][2] = rows[2][2] = 0.95
    rows += [[i, 0, 0.93, 60, 60, 5, 5] for i in range(4)]
    shouting = voc.evaluate(true, results(rows), image_ids=range(4), num_classes=2)
    assert shouting.macro == 1
    assert shouting.micro == pytest.approx((1 + 1 + 4 / 8 + 4 / 8) / 4)
    # Within an image a mistake costs where it outranks the hit.
    assert shouting.by_image < calm.by_image == 1


def test_nothing_is_not_a_number():
    empty = voc.evaluate(truths([]), results([]), image_ids=[1], num_classes=2)
    assert np.isnan([empty.macro, empty.micro, empty.by_image]).all()
    missed = voc.evaluate(
        truths([[1, 0, 0, 0, 5, 5, 0]]), results([]), image_ids=[1, 2], num_classes=2
    )
    assert missed.macro == missed.micro == missed.by_image == 0
    assert np.isnan(missed.classes[1])
    assert np.isnan(missed.images[1])
