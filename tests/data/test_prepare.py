"""Made once, from what was asked for, by whoever comes first."""

import subprocess
import sys

import pytest
import tiny_sets

from detjax.data import builder
from detjax.data.prepare import prepare
from detjax.tasks import detection

SHAPES = {"format": "shapes", "num_train": 2, "num_val": 1, "size": 32}


def coco_arguments(folder, content=None):
    return {
        "format": "coco",
        "splits": {"train": tiny_sets.write_coco(folder, content)},
        "images": folder / "images",
    }


def broken():
    content = tiny_sets.coco_content()
    content["annotations"][2]["bbox"] = [10, 10, 0, 30]
    return content


def test_the_second_call_does_nothing(tmp_path):
    lines = []
    target = prepare("s", tmp_path, detection.TASK, log=lines.append, **SHAPES)
    assert target == builder.directory("s", tmp_path)
    assert "images " in lines[0]
    assert lines[-1] == f"wrote {target}"
    before = {p: p.stat().st_mtime_ns for p in target.iterdir()}
    assert prepare("s", tmp_path, detection.TASK, log=lines.append, **SHAPES) == target
    assert lines[-1] == f"{target} is there already"
    assert {p: p.stat().st_mtime_ns for p in target.iterdir()} == before


def test_other_arguments_are_an_error_that_names_them(tmp_path):
    prepare("s", tmp_path, detection.TASK, **SHAPES)
    with pytest.raises(ValueError, match=r"of 2 images of 32.* not 3 images of 32"):
        prepare("s", tmp_path, detection.TASK, **SHAPES | {"num_train": 3})
    with pytest.raises(ValueError, match=r"made from shapes, not coco; delete .* or"):
        prepare("s", tmp_path, detection.TASK, **coco_arguments(tmp_path / "files"))


def test_changed_annotations_are_an_error_and_lost_ones_are_not(tmp_path):
    arguments = coco_arguments(tmp_path / "files")
    target = prepare("c", tmp_path, detection.TASK, **arguments)
    with pytest.raises(ValueError, match=r"classes are .*'cat', 'dog'.* not .*'dog'"):
        prepare("c", tmp_path, detection.TASK, **arguments, classes=("dog",))
    prepare("c", tmp_path, detection.TASK, **arguments, classes=("cat", "dog"))
    more = {**arguments["splits"], "val": arguments["splits"]["train"]}
    with pytest.raises(ValueError, match="it has no split 'val'"):
        prepare("c", tmp_path, detection.TASK, **arguments | {"splits": more})
    path = arguments["splits"]["train"]
    path.write_text(path.read_text() + " ")
    with pytest.raises(ValueError, match="annotations of split 'train' have changed"):
        prepare("c", tmp_path, detection.TASK, **arguments)
    path.unlink()
    assert prepare("c", tmp_path, detection.TASK, **arguments) == target


def test_failing_writes_nothing(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(
        ValueError, match=r"annotation 19 of image 43 .*zero width; drop"
    ):
        prepare("c", out, detection.TASK, **coco_arguments(tmp_path, broken()))
    assert [p.name for p in out.iterdir()] == [".c.lock"]


def test_skipping_counts_and_lists(tmp_path):
    lines = []
    arguments = coco_arguments(tmp_path, broken())
    prepare(
        "c", tmp_path, detection.TASK, on_error="skip", log=lines.append, **arguments
    )
    assert "zero area" in lines[0]
    listing = (tmp_path / "c-problems.txt").read_text()
    assert listing.startswith("annotation 19 of image 43 (b.png) has box")
    assert [
        len(r.truth) for r in builder.source("c", tmp_path, "train", detection.TASK)
    ] == [
        2,
        0,
        0,
    ]
    with pytest.raises(ValueError, match="1 problems were skipped"):
        prepare("c", tmp_path, detection.TASK, **arguments)


def test_unknown_words_are_named(tmp_path):
    with pytest.raises(ValueError, match="format='kitti' is not one of 'coco', 'yolo'"):
        prepare("x", tmp_path, detection.TASK, format="kitti")
    with pytest.raises(ValueError, match="take 'fail' or 'skip'"):
        prepare("x", tmp_path, detection.TASK, on_error="pass", **SHAPES)


def test_remains_of_a_killed_run_are_removed(tmp_path):
    remains = tmp_path / "s" / "incomplete.XYZ_1.0.0"
    remains.mkdir(parents=True)
    prepare("s", tmp_path, detection.TASK, **SHAPES)
    assert not remains.exists()


def test_several_processes_at_once(tmp_path):
    code = (
        "import sys; from detjax.data.prepare import prepare\n"
        "from detjax.tasks import detection\n"
        "prepare('s', sys.argv[1], detection.TASK, log=print, format='shapes', "
        "num_train=20, num_val=1, size=32)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    printed = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sorted("wrote" in text for text in printed) == [False, False, True]
    assert len(builder.source("s", tmp_path, "train", detection.TASK)) == 20
