"""make_dataset.py of label maps and depths, from its flags to the data set."""

import json

import cv2
import numpy as np
import pytest
import tiny_sets

from detjax import tasks
from detjax.commands import make_dataset
from detjax.data import builder, label_maps, prepare, repeats
from detjax.errors import UserError


def write(folder, count=5):
    """images/ and labels/ of blocks of 0, 1 and 2, a corner of 255."""
    rng = np.random.default_rng(0)
    for i in range(count):
        tiny_sets.write_image(folder / "images" / f"{i}.png")
        values = np.kron(rng.integers(0, 3, (6, 8)), np.ones((8, 8))).astype(np.uint8)
        values[:8, :8] = 255
        (folder / "labels").mkdir(exist_ok=True)
        assert cv2.imwrite(str(folder / "labels" / f"{i}.png"), values)
    return folder


def made(tmp_path, *flags):
    out = tmp_path / "sets"
    make_dataset.main([*flags, "--name=maps", f"--out={out}"])
    return builder.info("maps", out), out


def records(info, out, split):
    return builder.source("maps", out, split, tasks.TASKS[info.task])


def test_files_become_a_data_set(tmp_path, capsys):
    root = write(tmp_path / "files")
    info, out = made(
        tmp_path,
        "semantic",
        f"--root={root}",
        "--classes=sky,car,tree",
        "--split-by=train:0.6,val:0.4",
    )
    assert info.task == "segmentation"
    assert info.classes == ("sky", "car", "tree")
    assert info.splits == {"train": 3, "val": 2}
    for split in info.splits:
        counts = np.zeros((2, 3), int)
        for record in records(info, out, split):
            labels, valid = label_maps.decode(record.truth, (48, 64))
            assert valid.sum() == 48 * 64 - 64
            own = np.bincount(labels[valid], minlength=3)
            counts += own, (own > 0) * valid.sum()
        np.testing.assert_array_equal(info.pixels[split], counts)
    assert len(repeats.median_frequency(info.pixels["train"])) == 3
    assert "wrote" in capsys.readouterr().out


def test_values_and_ignored_numbers_are_flags(tmp_path):
    info, out = made(
        tmp_path,
        "semantic",
        f"--root={write(tmp_path / 'files')}",
        "--classes=one,two",
        "--values=1,2",
        "--ignore=0,255",
        "--split",
        "train=.",
    )
    first = records(info, out, "train")[0]
    labels, valid = label_maps.decode(first.truth, (48, 64))
    held = cv2.imread(str(tmp_path / "files/labels/0.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(valid, np.isin(held, (1, 2)))
    np.testing.assert_array_equal(labels[valid], held[valid] - 1)


@pytest.mark.parametrize("source", ["instances", "coco"])
def test_objects_become_a_data_set(tmp_path, source):
    path = tiny_sets.write_coco(tmp_path)
    info, _ = made(tmp_path, "semantic", f"--from={source}", "--split", f"train={path}")
    assert info.classes == ("background", "cat", "dog")
    assert info.splits == {"train": 3}


def test_panoptic_files_become_a_data_set(tmp_path):
    import test_panoptic

    test_panoptic.written(tmp_path)
    info, _ = made(
        tmp_path,
        "semantic",
        "--from=panoptic",
        "--merge=supercategories",
        f"--root={tmp_path}",
        "--split",
        "train=p.json",
    )
    assert info.classes == ("animal", "stuff")


def test_depths_become_a_data_set(tmp_path):
    root = tmp_path / "files"
    for i in range(2):
        tiny_sets.write_image(root / "images" / f"{i}.png")
        (root / "depth").mkdir(exist_ok=True)
        values = np.full((48, 64), 1500 + i, np.uint16)
        assert cv2.imwrite(str(root / "depth" / f"{i}.png"), values)
    info, _ = made(
        tmp_path, "depth", f"--root={root}", "--unit=0.001", "--split", "train=."
    )
    assert info.task == "dense"
    assert info.classes == ("depth",)
    assert info.splits == {"train": 2}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--from=folders"], "--from=folders is none of files, panoptic"),
        (["--values=a,b"], "--values=a,b is not a list of whole numbers"),
        (["--classes=a,b"], "value without a class|stand for no class|stands for no"),
        ([], "--classes=background,cat"),
    ],
)
def test_mistakes_are_one_clear_sentence(tmp_path, capsys, flags, said):
    root = write(tmp_path / "files")
    with pytest.raises(SystemExit):
        made(tmp_path, "semantic", f"--root={root}", "--split", "train=.", *flags)
    import re

    assert re.search(said, capsys.readouterr().err)


def test_a_changed_map_is_another_data_set(tmp_path):
    root = write(tmp_path / "files")
    given = {
        "format": "semantic",
        "root": str(root),
        "classes": ("a", "b", "c"),
        "splits": {"train": "."},
    }
    task = tasks.TASKS["segmentation"]
    prepare.prepare("maps", tmp_path / "sets", task, **given)
    prepare.prepare("maps", tmp_path / "sets", task, **given)
    assert cv2.imwrite(str(root / "labels/0.png"), np.zeros((48, 64), np.uint8))
    with pytest.raises(UserError, match="have changed since"):
        prepare.prepare("maps", tmp_path / "sets", task, **given)
    content = json.loads((tmp_path / "sets/maps/1.0.0/metadata.json").read_text())
    assert content["task"] == "segmentation"
