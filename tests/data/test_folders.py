"""Folders of pictures, one a class: splits, classes, what is wrong with them."""

import cv2
import numpy as np
import pytest

from detjax.data import builder
from detjax.data.formats import folders
from detjax.data.prepare import prepare
from detjax.errors import MissingFileError, UserError
from detjax.tasks import classification, detection


def write(folder, counts):
    """Pictures below `folder`: as many of each class as `counts` says."""
    for label, count in counts.items():
        (folder / label).mkdir(parents=True)
        for i in range(count):
            shade = np.full((6, 8, 3), 5 * i, np.uint8)
            cv2.imwrite(str(folder / label / f"{i}.png"), shade)
    return folder


def names(dataset):
    return [record.file_name for record in dataset.records]


def test_each_split_has_a_folder(tmp_path):
    train = write(tmp_path / "train", {"dog": 2, "cat": 3})
    val = write(tmp_path / "val", {"cat": 1, "eel": 1})
    found = folders.read_splits(splits={"train": train, "val": val})
    assert found["train"].classes == found["val"].classes == ("cat", "dog", "eel")
    labels = [r.truth for r in found["train"].records]
    assert labels == [(0,)] * 3 + [(1,)] * 2
    assert names(found["val"]) == ["cat/0.png", "eel/0.png"]
    assert [(r.height, r.width) for r in found["val"].records] == [(6, 8)] * 2


def test_percentages_divide_every_class_and_hold_when_pictures_join(tmp_path):
    root = write(tmp_path / "all", {"a": 40, "b": 10})
    splits = {"train": 70, "val": 20, "test": 10}
    found = folders.read_splits(splits=splits, root=root)
    for label, counts in (("a", (28, 8, 4)), ("b", (7, 2, 1))):
        held = [
            sum(name.startswith(f"{label}/") for name in names(found[split]))
            for split in splits
        ]
        assert tuple(held) == counts
    every = [name for split in splits for name in names(found[split])]
    assert len(set(every)) == len(every) == 50
    for i in range(40, 44):
        cv2.imwrite(str(root / "a" / f"{i}.png"), np.zeros((6, 8, 3), np.uint8))
    again = folders.read_splits(splits=splits, root=root)
    assert len({*names(found["train"])} - {*names(again["train"])}) <= 2


def test_what_is_wrong_is_named(tmp_path):
    root = write(tmp_path / "all", {"a": 4, "b": 0})
    (root / "a" / "9.png").write_bytes(b"no picture")
    (root / "a" / "._1.png").write_bytes(b"a Mac's")
    (root / "a" / "notes.txt").write_text("no picture either")
    found = folders.read_splits(splits={"train": root}, classes=["a", "b"])["train"]
    reasons = [problem.reason for problem in found.problems]
    assert reasons == ["empty class", "unreadable image"]
    assert names(found) == [f"a/{i}.png" for i in range(4)]
    some = folders.read_splits(splits={"train": root}, classes=["b"])["train"]
    assert "unknown class" in [problem.reason for problem in some.problems]


@pytest.mark.parametrize(
    "arguments",
    [
        {"splits": {"train": 80}},
        {"splits": {"train": 80, "val": 30}, "root": "all"},
        {"splits": {"train": 80, "val": "all"}, "root": "all"},
        {"splits": {"train": "all/a"}},
    ],
)
def test_splits_that_do_not_go_together(tmp_path, monkeypatch, arguments):
    write(tmp_path / "all", {"a": 1})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"splits=|no folder of pictures"):
        folders.catalogues(**arguments)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(MissingFileError, match="no folder"):
        folders.catalogues(splits={"train": tmp_path / "nowhere"})


def test_a_data_set_is_made_once_and_noticed_when_it_changes(tmp_path):
    root = write(tmp_path / "all", {"a": 4, "b": 4})
    section = {"format": "folders", "root": root, "splits": {"train": 50, "val": 50}}
    prepare("s", tmp_path, classification.TASK, **section)
    info = builder.info("s", tmp_path)
    assert (info.task, info.classes) == ("classification", ("a", "b"))
    assert info.splits == {"train": 4, "val": 4}
    found = list(builder.source("s", tmp_path, "train", classification.TASK))
    assert sorted(r.truth for r in found) == [(0,)] * 2 + [(1,)] * 2
    assert prepare("s", tmp_path, classification.TASK, **section)
    cv2.imwrite(str(root / "a" / "8.png"), np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(UserError, match="is there but is another"):
        prepare("s", tmp_path, classification.TASK, **section)


def test_another_task_is_refused(tmp_path):
    with pytest.raises(UserError, match="'folders' are for classification, not for"):
        prepare("s", tmp_path, detection.TASK, format="folders", splits={"a": "b"})
