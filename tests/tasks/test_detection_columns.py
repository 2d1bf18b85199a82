"""Detections of a split as columns: the entries of before, in a part of the memory."""

import json
import tracemalloc

import numpy as np
import pytest
from infos import info

from detjax.data.records import Annotation, Record
from detjax.eval import matching
from detjax.tasks import detection
from detjax.tasks.detection import columns, judge, meter
from detjax.tasks.detection.restore import Found, entries, restore
from detjax.types import Detections
from tests import reference

IDS, CATEGORIES = ["x", 17, 2**53 + 1], (7, 9, 90)
INFO = info(category_ids=CATEGORIES)


def some(count, seed, masks=True, own=False, points=False):
    """What is found in an image of 20 x 30 pixels."""
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.random((count, 2, 2)) * [30, 20], axis=1)
    codes = [reference.rle(rng.random((20, 30)) < 0.5) for _ in range(count)]
    return Found(
        ends.reshape(count, 4),
        np.sort(rng.random(count).astype(np.float32))[::-1],
        rng.integers(0, 3, count),
        codes if masks else None,
        rng.random(count).astype(np.float32) if own else None,
        rng.random((count, 2, 3)) if points else None,
        (20, 30),
    )


def record(number):
    made = Record(number, f"{number}.png", 20, 30)
    mask = np.zeros((20, 30), bool)
    mask[2:12, 3:20] = True
    code = reference.rle(mask)["counts"].encode()
    made.truth = [Annotation(1, (3.0, 2.0, 20.0, 12.0), 1, 170.0, rle=code)]
    return made


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("points", [True, False])
def test_rows_are_the_entries(masks, own, points, monkeypatch):
    monkeypatch.setattr(columns, "LOT", 4)  # several, of which one is not full
    made = meter.meter([], INFO, IDS)
    expected = []
    for place, count in ((2, 5), (0, 0), (1, 6)):
        found = some(count, place, masks, own, points)
        made.add(place, found)
        expected += entries(found, IDS[place], CATEGORIES)
    rows = [*columns.rows_of(made.parts, IDS, CATEGORIES)]
    assert json.dumps(rows) == json.dumps(expected)
    ranks = np.array([5, 6, 7])
    held = columns.results_of(made.parts, ranks, "segm")
    assert held.image_ids.tolist() == [7] * 5 + [6] * 6
    score = "mask_score" if own else "score"
    assert held.scores.tolist() == [row[score] for row in rows]
    assert (held.rles is not None) == masks and held.keypoints is None
    held = columns.results_of(made.parts, ranks, "keypoints")
    assert held.rles is None and (held.keypoints is not None) == points
    assert [*columns.rows_of({}, IDS, CATEGORIES)] == []


def test_detections_of_a_large_split_take_little_more_than_their_codes():
    """200 images of 100 detections; as entries they took 958 bytes each."""
    found = some(100, 0)
    codes = np.mean([len(code["counts"]) for code in found.rles])
    made = meter.meter([], INFO, range(200))
    tracemalloc.start()
    for place in range(200):
        made.add(place, found)
    now, peak = tracemalloc.get_traced_memory()
    each = (now / 20_000, peak / 20_000)
    tracemalloc.reset_peak()
    rows = sum(1 for _ in columns.rows_of(made.parts, range(200), CATEGORIES))
    streamed = tracemalloc.get_traced_memory()[1] / 20_000
    tracemalloc.stop()
    assert rows == 20_000
    assert each[0] < 1.6 * (codes + 64) and each[1] < 2.7 * (codes + 64)
    # Beside them the ends of the codes, and a thousand entries.
    assert streamed - each[0] < 150


def test_each_kind_is_matched_once_whatever_is_asked_for(monkeypatch):
    calls = []

    def counted(*args, **options):
        calls.append(options["kind"])
        return matching.matched(*args, **options)

    class Matching:
        matched = staticmethod(counted)

    monkeypatch.setattr(judge, "matching", Matching)
    made = meter.meter([record(1), record(2)], INFO, [1, 2])
    made.add(0, some(6, 0))
    made.add(1, some(4, 1))
    parts = made.parts
    metrics = made.result(parts)
    assert made.table(parts).rows and made.plots(parts) and made.files(parts)
    assert {"bbox/AP/a", "segm/AP/c"} <= metrics.keys()
    assert calls == ["bbox", "segm"]


class Counted(list):
    """Records that count how often each is read."""

    reads = 0

    def __getitem__(self, index):
        Counted.reads += 1
        return super().__getitem__(index)


def test_the_truth_is_read_once_for_all_evaluations_of_a_run():
    records = Counted([record(1), record(2)])
    first = detection.TASK.meter(records, INFO, [1, 2])
    for turn in range(3):
        held = first.again() if turn else first
        held.add(0, some(6, turn))
        assert len(held.parts["places"]) == 6
        assert held.result(held.parts)["bbox/AP"] > -1
    assert Counted.reads == 2


def detections(masks=None, box_masks=None):
    return Detections(
        boxes=np.float32([[4, 1, 24, 6], [0, 0, 9, 9], [14, 3.5, 34, 8.5]]),
        scores=np.float32([0.9, 0.8, 0.7]),
        labels=np.int32([1, 0, 0]),
        valid=np.array([True, False, True]),
        masks=masks,
        box_masks=box_masks,
    )


@pytest.mark.parametrize("kind", ["masks", "box_masks"])
def test_masks_of_any_type_are_probabilities(kind):
    """Whole numbers are shares of their type's largest one."""
    rng = np.random.default_rng(0)
    shade = rng.integers(0, 256, (3, 16, 16), np.uint8)
    affine = np.float32([[2, 0, 4], [0, 0.5, 1]])

    def back(masks):
        place = affine, (30, 40), (64, 64)
        return restore(detections(**{kind: masks}), *place).rles

    expected = back(shade.astype(np.float32) / 255)
    assert back(shade) == expected
    assert back(shade.astype(np.float64) / 255) == expected
    half = (shade / np.float32(255)).astype(np.float16)
    assert back(half) == back(half.astype(np.float32))
    assert back(np.zeros_like(shade)) != expected
