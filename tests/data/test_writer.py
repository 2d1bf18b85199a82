"""Writing: the same bytes whoever does it, whole or not at all, in bounded memory."""

import io
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_sets
from tensorflow_datasets.core import example_serializer
from tensorflow_datasets.proto import tf_example_pb2

from detjax.data import builder, crew, features, shards, writer
from detjax.data.features import Schema
from detjax.data.prepare import prepare
from detjax.data.records import Annotation, Record
from detjax.tasks import detection

ROOT = pathlib.Path(__file__).parents[2]
SHAPES = {"format": "shapes", "num_train": 20, "num_val": 2, "size": 32}


def by_tfds(record, image, schema):
    """The example as tfds puts it together."""
    things = [
        {
            "id": a.id,
            "bbox": tfds.features.BBox(
                a.box[1] / record.height,
                a.box[0] / record.width,
                a.box[3] / record.height,
                a.box[2] / record.width,
            ),
            "label": a.label,
            "area": a.area,
            "is_crowd": a.crowd,
            "is_difficult": a.difficult,
            "rle": a.rle or b"",
        }
        | ({"keypoints": a.keypoints} if schema.keypoints else {})
        for a in record.truth
    ]
    held = {
        "image": image,
        "image_id": record.id,
        "file_name": record.file_name,
        "height": record.height,
        "width": record.width,
        "objects": things,
    }
    if schema.proposed:
        held["proposals"] = record.proposals
    named = features.features(schema, detection.TASK)
    # tfds reads an image's bytes from a file.
    held["image"] = io.BytesIO(image)
    serializer = example_serializer.ExampleSerializer(named.get_serialized_info())
    return serializer.serialize_example(named.encode_example(held))


def by_detjax(record, image, schema):
    return features.encode(record, image, schema, detection.TASK)


@pytest.mark.parametrize("objects", [0, 2])
@pytest.mark.parametrize("rich", [False, True])
def test_examples_are_those_of_tfds(objects, rich):
    schema = Schema(("a", "b"), ("nose",) if rich else (), rich, rich)
    record = Record("ü7" if rich else 7, "grün.png", 30, 40)
    record.truth = [
        Annotation(
            5 + i, (1.5, 2, 30 + i, 20), i, 9.5, crowd=i == 1, rle=b"" if i else b"abc"
        )
        for i in range(objects)
    ]
    if rich:
        record.proposals = np.float32([[1, 2, 3, 4]])
        for annotation in record.truth:
            annotation.keypoints = np.float32([[3, 4, 2]])
    ours, theirs = (
        tf_example_pb2.Example.FromString(make(record, b"\x89PNG", schema))
        for make in (by_detjax, by_tfds)
    )
    assert ours == theirs


def contents(target):
    return {path.name: path.read_bytes() for path in target.iterdir()}


def test_processes_write_what_threads_do(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(shards, "SHARD_BYTES", 8_000)
    one = contents(prepare("s", tmp_path / "a", detection.TASK, **SHAPES))
    monkeypatch.setattr(writer, "MANY", 1)
    two = contents(prepare("s", tmp_path / "b", detection.TASK, **SHAPES))
    assert one == two
    assert sum("s-train.array_record" in name for name in one) > 2
    ids = [r.id for r in builder.source("s", tmp_path / "b", "train", detection.TASK)]
    assert ids == [*range(1, 21)]
    rows = tfds.builder_from_directory(tmp_path / "b" / "s" / builder.VERSION)
    assert [row["image_id"] for row in rows.as_data_source("train")] == ids
    assert "Traceback" not in capfd.readouterr().err


def test_only_a_few_are_taken_ahead():
    for run, most in ((crew.serial, 40), (crew.parallel, 2 * 16 * 9)):
        taken = []
        things = (taken.append(i) or i for i in range(10_000))
        made = run(abs, things)
        assert [next(made) for _ in range(3)] == [0, 1, 2]
        assert len(taken) < most
        made.close()


def test_what_goes_wrong_in_a_process_is_raised_here():
    with pytest.raises(TypeError, match="bad operand"):
        list(crew.parallel(abs, ["text"]))
    with pytest.raises(OSError, match=r"ended by itself \(status 7\).*memory"):
        list(crew.parallel(os._exit, [7]))


def gone(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return True
    return state[0] == "Z"


def children(pid):
    return pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_processes_end_with_the_one_that_started_them(end):
    code = (
        "import signal, time; from detjax.data import crew\n"
        # As a shell has it, whatever runs the tests.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "for _ in crew.parallel(time.sleep, [0.0] * 64 + [100.0] * 64):\n"
        "    print(flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as one:
        one.stdout.readline()
        others = children(one.pid)
        assert others
        one.send_signal(end)
        one.wait(20)
    until = time.monotonic() + 10
    while not all(map(gone, others)) and time.monotonic() < until:
        time.sleep(0.05)
    assert all(map(gone, others))


def script(tmp_path, limit=0, **env):
    """scripts/make_dataset.py on a small COCO set, files limited to `limit` bytes."""
    if not (tmp_path / "instances.json").exists():
        tiny_sets.write_coco(tmp_path)
    flags = [f"--out={tmp_path / 'out'}", f"--images={tmp_path / 'images'}"]
    flags += ["--name=c", f"--split=train={tmp_path / 'instances.json'}"]
    return subprocess.run(
        tiny_sets.starting("scripts/make_dataset.py", "coco", *flags, limit=limit),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_processes_end_where_writing_fails(tmp_path, monkeypatch):
    def fail(self, data):
        raise OSError("no room")

    monkeypatch.setattr(writer, "MANY", 1)
    monkeypatch.setattr(shards.Shards, "add", fail)
    before = children(os.getpid())
    with pytest.raises(OSError, match="no room"):
        prepare("s", tmp_path, detection.TASK, **SHAPES)
    assert children(os.getpid()) == before
    assert [p.name for p in tmp_path.iterdir()] == [".s.lock"]


@pytest.mark.parametrize("limit", [1, 20_000])
def test_no_room_leaves_nothing_and_room_makes_it(tmp_path, limit):
    done = script(tmp_path, limit)
    assert done.returncode == 1
    assert "space" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == [".c.lock"]
    assert script(tmp_path).returncode == 0


def test_neither_home_nor_tmp_is_needed(tmp_path):
    done = script(tmp_path, HOME="/nonexistent", TMPDIR="/nonexistent")
    assert (done.returncode, done.stderr) == (0, "")


def test_leftovers_are_ours_alone(tmp_path):
    folder = tmp_path / "s"
    (folder / "incomplete.1a2b").mkdir(parents=True)
    (folder / "incomplete.1a2b" / "train-00000.part").write_bytes(b"half")
    (folder / "incomplete.txt").write_text("a user's")
    prepare("s", tmp_path, detection.TASK, **SHAPES)
    assert sorted(p.name for p in folder.iterdir()) == ["1.0.0", "incomplete.txt"]


def test_what_is_there_is_only_read(tmp_path):
    target = prepare("s", tmp_path, detection.TASK, **SHAPES)
    (tmp_path / ".s.lock").unlink()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert prepare("s", tmp_path, detection.TASK, **SHAPES) == target
    builder.listing("s", tmp_path, "train", detection.TASK)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_numbers_that_make_no_picture_are_named(tmp_path):
    for wrong in ({"num_train": 0}, {"size": "x"}, {"seed": -1}, {"num_val": True}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}=.* not a whole num"):
            prepare("s", tmp_path, detection.TASK, **SHAPES | wrong)
    with pytest.raises(ValueError, match=r"sizes is no setting .*'size'"):
        prepare("s", tmp_path, detection.TASK, **SHAPES, sizes=3)
    with pytest.raises(ValueError, match=r"voc\.root is not set"):
        prepare("s", tmp_path, detection.TASK, format="voc", splits={})
    with pytest.raises(ValueError, match="no split is named; give each one's JSON"):
        prepare("s", tmp_path, detection.TASK, format="coco", splits={})
    for wrong in ({"splits": "train"}, {"images": {"a": 3}}, {"classes": "cat"}):
        arguments = {"splits": {"a": "b"}, "images": "c"} | wrong
        with pytest.raises(ValueError, match=rf"coco\.{next(iter(wrong))}=.* is not "):
            prepare("s", tmp_path, detection.TASK, format="coco", **arguments)
