"""Proposals: found again each time, stored with the data set, worth their recall."""

import cv2
import numpy as np
import pytest

from detjax.data import builder, dataset, proposals
from detjax.data.formats import shapes, voc
from detjax.data.prepare import prepare
from detjax.data.records import Annotation, Dataset, Record
from detjax.errors import UserError
from detjax.tasks import detection

contrib = pytest.mark.skipif(
    not hasattr(cv2, "ximgproc"), reason="this OpenCV comes without contrib"
)
SHAPES = {"format": "shapes", "num_train": 2, "num_val": 1, "size": 96}
ASKED = {"method": "selective_search", "limit": 3}


def image(size=96):
    return shapes.picture(np.random.default_rng(3), size)[0]


@contrib
def test_the_same_image_gives_the_same_boxes_in_the_same_order():
    first, again = (proposals.selective_search(image()) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32
    assert first.shape[1] == 4
    assert len(np.unique(first, axis=0)) == len(first) > 20


@contrib
def test_boxes_lie_in_the_image_and_keep_its_scale():
    pixels = cv2.resize(image(), (300, 150))
    for max_side in (None, 500, 100):
        found = proposals.selective_search(pixels, max_side=max_side)
        assert (found >= 0).all()
        assert (found <= [300, 150, 300, 150]).all()
        assert (found[:, 2:] > found[:, :2]).all()
        # The whole image is a region of every hierarchy.
        assert (found == [0, 0, 300, 150]).all(1).any()
    shrunk = proposals.selective_search(pixels, max_side=100)
    assert np.allclose(shrunk % 3, 0, atol=1e-4)


@contrib
def test_limits():
    all_ = proposals.selective_search(image())
    few = proposals.selective_search(image(), limit=5)
    np.testing.assert_array_equal(few, all_[:5])
    large = proposals.selective_search(image(), min_side=20)
    sides = all_[:, 2:] - all_[:, :2]
    assert {*map(tuple, large)} == {*map(tuple, all_[(sides >= 20).all(1)])}
    assert 0 < len(large) < len(all_)


@contrib
def test_quality_finds_more_than_fast():
    fast, quality = (
        proposals.selective_search(image(), mode=mode) for mode in ("fast", "quality")
    )
    assert len(quality) > len(fast)


def test_large_regions_come_early_but_not_strictly():
    side = np.arange(1, 201.0)
    boxes = np.stack([0 * side, 0 * side, side, side], axis=1)
    ranked = proposals._ranked(boxes)[:, 2]
    assert sorted(ranked) == side.tolist()
    assert 120 < ranked[:100].mean() < 170
    assert (np.diff(ranked) > 0).any()


def framed(*boxes, found, crowd=()):
    record = Record(1, "a.png", 100, 100, proposals=found and np.float32(found))
    for i, box in enumerate(boxes):
        record.truth.append(Annotation(i, box, 0, 1.0, crowd=i in crowd))
    return record


def test_recall_counts_objects():
    a, b, half = (0, 0, 10, 10), (50, 50, 70, 70), (0, 0, 10, 5)
    assert proposals.recall([framed(a, b, found=[a])]) == 0.5
    assert proposals.recall([framed(a, b, found=[a, b]), framed(a, found=None)]) == (
        pytest.approx(2 / 3)
    )
    assert proposals.recall([framed(a, found=[half])]) == 0
    assert proposals.recall([framed(a, found=[half])], threshold=0.4) == 1
    assert proposals.recall([framed(a, b, found=[a], crowd=[1])]) == 1
    assert proposals.recall([framed(found=[a])]) == 0


def test_stored_and_read_back(tmp_path):
    records = shapes.records("train", 3, 32)
    records[0].proposals = np.float32([[0.5, 1.25, 30, 31], [2, 3, 4, 5]])
    records[2].proposals = np.zeros((0, 4), np.float32)
    builder.write(
        {"train": Dataset("train", shapes.CLASSES, records)},
        "s",
        tmp_path,
        detection.TASK,
    )
    assert builder.info("s", tmp_path).max_proposals == 2
    found = [
        r.proposals for r in builder.source("s", tmp_path, "train", detection.TASK)
    ]
    np.testing.assert_array_equal(found[0], records[0].proposals)
    assert found[0].dtype == np.float32
    assert [len(f) for f in found] == [2, 0, 0]


def test_a_config_takes_all_of_them_or_some_or_none(tmp_path):
    records = shapes.records("train", 2, 32)
    records[0].proposals = np.float32([[2, 3, 14, 15], [0, 0, 30, 30]])
    split = Dataset("train", shapes.CLASSES, records)
    builder.write({"train": split, "val": split}, "s", tmp_path, detection.TASK)
    section = {"name": "s", "data_dir": tmp_path, "batch_size": 2, "size": (64, 64)}
    (batch,) = dataset.make(detection.TASK, **section).once()
    assert batch.inputs.proposals.valid.tolist() == [[True, True], [False, False]]
    np.testing.assert_allclose(batch.inputs.proposals.boxes[0, 0], [4, 6, 28, 30])
    (batch,) = dataset.make(detection.TASK, **section, max_proposals=1).evaluation()
    assert batch.inputs.proposals.boxes.shape == (2, 1, 4)
    assert (
        next(
            iter(dataset.make(detection.TASK, **section, max_proposals=0).train)
        ).inputs.proposals
        is None
    )


def test_data_sets_without_have_none(tmp_path):
    prepare("s", tmp_path, detection.TASK, **SHAPES)
    assert builder.info("s", tmp_path).max_proposals == 0
    assert builder.source("s", tmp_path, "train", detection.TASK)[0].proposals is None


@contrib
def test_prepare_makes_them_once(tmp_path):
    prepare("s", tmp_path, detection.TASK, proposals=ASKED, **SHAPES)
    found = builder.source("s", tmp_path, "train", detection.TASK)[1]
    assert found.proposals.shape == (3, 4)
    pixels = cv2.imdecode(np.frombuffer(found.image, np.uint8), cv2.IMREAD_COLOR)
    expected = proposals.selective_search(pixels, limit=3)
    np.testing.assert_array_equal(found.proposals, expected)
    # Defaults that are written out are the same request.
    prepare(
        "s", tmp_path, detection.TASK, proposals={**ASKED, "mode": "fast"}, **SHAPES
    )
    with pytest.raises(ValueError, match=r"its proposals are .*'limit': 3.* not None"):
        prepare("s", tmp_path, detection.TASK, **SHAPES)
    with pytest.raises(ValueError, match=r"'mode': 'fast'.* not .*'mode': 'quality'"):
        prepare(
            "s",
            tmp_path,
            detection.TASK,
            proposals={**ASKED, "mode": "quality"},
            **SHAPES,
        )


def test_what_cannot_be_asked_for(tmp_path):
    for asked, what in (
        ({"method": "edges"}, "the method 'edges'; take one of selective_search"),
        ({"limit": 3}, "the method None"),
        ({**ASKED, "limit": "x"}, r"limit='x' is not a whole number of at least 1"),
        ({**ASKED, "mode": 3}, "mode=3 is not one of 'fast', 'quality'"),
        ({**ASKED, "limits": 3}, "limits is no setting .*'limit'"),
    ):
        with pytest.raises(ValueError, match=what):
            prepare("s", tmp_path, detection.TASK, proposals=asked, **SHAPES)
    assert not (tmp_path / "s").exists()
    with pytest.raises(ValueError, match="mode='slow' is not"):
        proposals.selective_search(image(), mode="slow")


def test_an_opencv_without_contrib_is_named(monkeypatch):
    monkeypatch.delattr(cv2, "ximgproc", raising=False)
    with pytest.raises(UserError, match="opencv-contrib-python-headless"):
        proposals.selective_search(image())


@contrib
def test_recall_on_blood_cells(data_dir):
    """A floor under what README says of all images."""
    dataset = voc.read_splits(root=data_dir / "bccd" / "BCCD", splits=("val",))["val"]
    records = dataset.records[:4]
    for record in records:
        record.image = record.path.read_bytes()
        record.proposals = proposals.of(record, {"method": "selective_search"})
    assert proposals.recall(records) > 0.7
