"""What is written comes back, in its order, without TensorFlow."""

import json
import pickle
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_sets

from detjax.data import builder
from detjax.data.formats import coco, shapes
from detjax.data.records import Annotation, Dataset, Record
from detjax.errors import UserError
from detjax.tasks import detection


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(data folder, the data set in memory) of a small COCO set with keypoints."""
    folder = tmp_path_factory.mktemp("sets")
    content = tiny_sets.coco_content()
    content["categories"][1]["keypoints"] = ["head", "tail"]
    content["annotations"][0]["keypoints"] = [12, 13, 2, 0, 0, 0]
    # Not in the order of their ids.
    content["images"].reverse()
    path = tiny_sets.write_coco(folder, content)
    dataset = coco.read(path, folder / "images", "train")
    builder.write(
        {"train": dataset}, "tiny", folder / "out", detection.TASK, made_from={"a": [1]}
    )
    return folder / "out", dataset


def test_records_come_back(written):
    out, dataset = written
    source = builder.source("tiny", out, "train", detection.TASK)
    assert [r.id for r in source] == [44, 43, 42]
    for found, expected in zip(source, dataset.records, strict=True):
        assert found.image == expected.path.read_bytes()
        for key in ("id", "file_name", "height", "width"):
            assert getattr(found, key) == getattr(expected, key)
        assert len(found.truth) == len(expected.truth)
        for a, b in zip(found.truth, expected.truth, strict=True):
            np.testing.assert_allclose(a.box, b.box, atol=1e-3)
            for key in ("id", "label", "area", "crowd", "difficult", "rle"):
                assert getattr(a, key) == getattr(b, key)
    assert isinstance(source[0].truth, list)


def test_keypoints_come_back_and_absent_ones_are_invisible(written):
    with_points, without = builder.source("tiny", written[0], "train", detection.TASK)[
        2
    ].truth
    np.testing.assert_array_equal(with_points.keypoints, [[12, 13, 2], [0, 0, 0]])
    assert with_points.keypoints.dtype == np.float32
    np.testing.assert_array_equal(without.keypoints, np.zeros((2, 3)))


def test_info(written):
    info = builder.info("tiny", written[0])
    assert info.classes == ("cat", "dog")
    assert info.splits == {"train": 3}
    assert info.has_masks
    assert info.keypoints == ("head", "tail")
    assert info.max_objects == 2
    assert info.made_from == {"a": [1]}
    assert info.directory.is_dir()


def test_a_source_is_a_sequence_that_can_be_pickled(written):
    source = builder.source("tiny", written[0], "train", detection.TASK)
    copy = pickle.loads(pickle.dumps(source))
    assert len(copy) == len(source) == 3
    assert copy[-1].id == source[np.int64(2)].id == 42
    assert [r.id for r in source[1:]] == [43, 42]
    for index in (3, -4):
        with pytest.raises(IndexError):
            source[index]
    assert "tiny" in repr(source)
    assert len(builder.source("tiny", written[0], "train[:2]", detection.TASK)) == 2


def test_tfds_reads_it_by_itself(written):
    out, dataset = written
    row = tfds.data_source("tiny", data_dir=out, split="train")[1]
    pixels = cv2.imread(str(dataset.records[1].path), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(row["image"], pixels)
    np.testing.assert_allclose(
        row["objects"]["bbox"][0], [6.25 / 48, 5.5 / 64, 36.25 / 48, 25.5 / 64], 1e-6
    )


def test_writing_is_deterministic_and_silent(written, tmp_path, capfd):
    out, dataset = written
    target = builder.write(
        {"train": dataset}, "tiny", tmp_path, detection.TASK, made_from={"a": [1]}
    )
    assert capfd.readouterr() == ("", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny"]
    for path in sorted(target.iterdir()):
        if ".array_record" in path.name:
            same = (out / "tiny" / builder.VERSION / path.name).read_bytes()
            assert path.read_bytes() == same


def test_other_formats_become_png(tmp_path):
    path = tiny_sets.write_image(tmp_path / "a.tif")
    data = builder.encoded(Record(1, "a.tif", 48, 64, path))
    assert data.startswith(b"\x89PNG")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(pixels, cv2.imread(str(path)))
    with pytest.raises(ValueError, match="cannot be decoded"):
        builder.encoded(Record(1, "a.gif", 48, 64, image=b"GIF8"))
    with pytest.raises(ValueError, match="has no image"):
        builder.encoded(Record(1, "a.gif", 48, 64))


def test_difficult_objects_and_grey_images(tmp_path):
    image = cv2.imencode(".png", np.zeros((5, 7), np.uint8))[1].tobytes()
    record = Record(1, "grün.png", 5, 7, image=image)
    record.truth = [Annotation(3, (0, 0, 7, 5), 0, 35.0, difficult=True)]
    builder.write(
        {"val": Dataset("val", ("a",), [record])}, "grey", tmp_path, detection.TASK
    )
    (found,) = builder.source("grey", tmp_path, "val", detection.TASK)
    assert found.file_name == "grün.png"
    assert found.truth[0].difficult
    assert found.truth[0].rle is None
    assert found.truth[0].keypoints is None
    assert not builder.info("grey", tmp_path).has_masks


def dataset(classes=("a",), records=None):
    one = [Record(1, "a.png", 1, 1, image=b"")] if records is None else records
    return Dataset("train", classes, one)


@pytest.mark.parametrize(
    ("name", "splits", "what"),
    [
        ("My-Set", {"train": dataset()}, "cannot name a data set"),
        ("mine", {}, "has no split"),
        ("mine", {"all": dataset()}, "cannot name a split"),
        ("mine", {"train 1": dataset()}, "cannot name a split"),
        ("mine", {"train": dataset(records=[])}, "no image left"),
        ("mine", {"a": dataset(), "b": dataset(("b",))}, "disagree about classes"),
    ],
)
def test_what_cannot_be_written(tmp_path, name, splits, what):
    with pytest.raises(ValueError, match=what):
        builder.write(splits, name, tmp_path, detection.TASK)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten(written):
    with pytest.raises(UserError, match=r"delete .*tiny or choose"):
        builder.write({"train": written[1]}, "tiny", written[0], detection.TASK)


def test_what_is_not_there_is_named(written, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no data set 'big' .*\(there: tiny\)"):
        builder.load("big", written[0])
    with pytest.raises(FileNotFoundError, match="there: none"):
        builder.info("big", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no split 'test'; it has train"):
        builder.source("tiny", written[0], "test", detection.TASK)


KILLED = """
import os, sys
from detjax.data import builder, writer
from detjax.data.formats import shapes
from detjax.tasks import detection

writer.encoded = lambda record: os._exit(9)
splits = shapes.read_splits(num_train=3, num_val=1, size=32)
builder.write(splits, "s", sys.argv[1], detection.TASK)
"""


def test_half_a_data_set_is_none(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == 9
    assert list(tmp_path.glob("s/incomplete.*"))
    with pytest.raises(FileNotFoundError, match="no data set 's'"):
        builder.load("s", tmp_path)
    builder.write(
        shapes.read_splits(num_train=2, num_val=1, size=32),
        "s",
        tmp_path,
        detection.TASK,
    )
    assert len(builder.source("s", tmp_path, "train", detection.TASK)) == 2


def test_tensorflow_stays_out():
    code = "import sys, detjax.data.prepare; print('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert done.stdout == "False\n"


def test_a_label_that_is_no_class_is_named(written, tmp_path):
    """As of a data set whose metadata somebody edited."""
    shutil.copytree(written[0], tmp_path / "out")
    path = builder.directory("tiny", tmp_path / "out") / "metadata.json"
    held = json.loads(path.read_text())
    held["classes"] = held["classes"][:1]
    path.write_text(json.dumps(held))
    with pytest.raises(UserError, match=r"has label 1, and the data set in .* has 1"):
        list(builder.source("tiny", tmp_path / "out", "train", detection.TASK))


def test_a_part_without_an_image_is_a_sentence(written):
    with pytest.raises(UserError, match=r"'train\[:0\]' of .* no image; .* train 3"):
        builder.source("tiny", written[0], "train[:0]", detection.TASK)
    assert (
        len(builder.source("tiny", written[0], "train[:0]+train", detection.TASK)) == 3
    )
