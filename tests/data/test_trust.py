"""A data set is data: nothing that it names is run, and what is broken is named."""

import json
import os
import shutil

import pytest

from detjax.data import builder, trust
from detjax.data.formats import shapes
from detjax.tasks import detection


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    builder.write(
        shapes.read_splits(num_train=3, num_val=1, size=32), "s", folder, detection.TASK
    )
    return folder


@pytest.fixture
def target(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "data")
    return builder.directory("s", tmp_path / "data")


def read(target):
    data_dir, name = target.parents[1], target.parent.name
    builder.info(name, data_dir)
    return list(builder.source(name, data_dir, "train", detection.TASK))


TEXT = '"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text"'


@pytest.mark.parametrize(
    "named",
    [
        '"pythonClassName": "payload.Text"',
        '"python_class_name": "payload.Text"',
        '"type": "payload.Text"',
        '"pythonClassName": ["payload.Text"]',
        '"pythonClassName": "tensorflow_datasets.core.features.audio_feature.Audio"',
    ],
)
def test_classes_that_are_not_ours_are_not_loaded(target, tmp_path, monkeypatch, named):
    (tmp_path / "payload.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    path = target / "features.json"
    assert TEXT in path.read_text()
    path.write_text(path.read_text().replace(TEXT, named))
    with pytest.raises(ValueError, match=r"features\.json names .*(payload|Audio)"):
        read(target)
    assert not (tmp_path / "ran").exists()


def test_what_is_written_here_is_trusted(whole):
    trust.check(builder.directory("s", whole))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(**changes):
    def change(path):
        held = json.loads(path.read_text())
        path.write_text(json.dumps(held | changes))

    return change


def drop(key):
    def change(path):
        held = json.loads(path.read_text())
        del held[key]
        path.write_text(json.dumps(held))

    return change


def elsewhere(key):
    """Names record files outside the data set, under either of JSON's spellings."""

    def change(path):
        held = json.loads(path.read_text())
        for split in held["splits"]:
            template = split.pop("filepathTemplate")
            split[key] = template.replace("{DATASET}-", "../other/{DATASET}-")
        path.write_text(json.dumps(held))

    return change


RECORDS = "s-train.array_record-00000-of-00001"


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("features.json", lambda p: p.unlink(), "does not exist"),
        ("features.json", cut, "is not JSON"),
        ("features.json", lambda p: p.write_text("[]"), "not an object"),
        ("features.json", lambda p: p.write_text("[" * 100_000), "cannot be read"),
        ("dataset_info.json", lambda p: p.unlink(), "does not exist"),
        ("dataset_info.json", lambda p: p.write_text("nonsense"), "is not JSON"),
        ("dataset_info.json", edit(version=[1]), "does not hold what it should"),
        ("dataset_info.json", edit(name="../other"), "lies elsewhere"),
        ("dataset_info.json", edit(fileFormat="tfrecord"), "not array_record"),
        ("dataset_info.json", edit(splits=[1]), "does not hold what it should"),
        ("dataset_info.json", elsewhere("filepathTemplate"), "lies elsewhere"),
        ("dataset_info.json", elsewhere("filepath_template"), "lies elsewhere"),
        ("metadata.json", drop("max_objects"), "has no 'max_objects'"),
        ("metadata.json", edit(max_objects="many"), "does not hold what it should"),
        ("metadata.json", lambda p: p.unlink(), "does not exist"),
        (RECORDS, lambda p: p.unlink(), "is not there"),
        (RECORDS, lambda p: p.write_bytes(b""), "holds 0 records, not 3"),
        (RECORDS, cut, "holds 0 records, not 3"),
    ],
)
def test_a_broken_file_is_named(target, name, change, words):
    change(target / name)
    with pytest.raises(ValueError, match=words) as caught:
        read(target)
    assert str(target / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_renamed_set_is_read(target):
    renamed = target.parents[1] / "other"
    target.parent.rename(renamed)
    assert len(read(renamed / target.name)) == 3


def test_names_of_classes_are_a_file(target):
    (path,) = target.glob("*.labels.txt")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"labels\.txt is a FIFO"):
        read(target)


def test_an_empty_folder_is_named(target):
    shutil.rmtree(target)
    target.mkdir()
    with pytest.raises(ValueError, match=r"features\.json does not exist"):
        read(target)
