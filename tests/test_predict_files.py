"""Folders of pictures in, drawings out: nothing of the user's is lost."""

import json
import os
from typing import Any, NamedTuple

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from detjax import draw, predict, predict_files, predict_paths
from detjax.errors import UserError
from detjax.predictor import Predictor, prepared
from detjax.tasks import detection
from detjax.types import Detections, Task


def full_image(params, state, inputs):
    """An answer for tests: one object in every picture, whose mask is full."""
    count, h, w, _ = inputs.images.shape
    return Detections(
        boxes=jnp.tile(jnp.array([0.0, 0.0, w, h]), (count, 1, 1)),
        scores=jnp.full((count, 1), 0.9),
        labels=jnp.zeros((count, 1), jnp.int32),
        valid=jnp.ones((count, 1), bool),
        box_masks=jnp.ones((count, 1, 4, 4)),
    )


def restore(answer, affine, size, *rest):
    """That of detections, whose memory does not suffice for some sizes."""
    if size == (13, 13):
        raise MemoryError
    if size == (14, 14):
        cv2.resize(np.zeros((0, 14, 3), np.uint8), (4, 4))
    return detection.TASK.restore(answer, affine, size, *rest)


class Run(NamedTuple):
    """A trained model that finds one thing in every picture."""

    buckets: tuple[tuple[int, int], ...] = ((16, 16),)
    predict: Any = full_image
    classes: tuple[str, ...] = ("thing",)
    category_ids: tuple[int, ...] = (7,)
    task: Task = detection.TASK._replace(restore=restore)

    def predictor(self, batch_size, **_):
        def prepare(image):
            return prepared(image, None, None, False, buckets=self.buckets)

        return Predictor(self.predict, self.task, {}, {}, prepare, batch_size)


@pytest.fixture(autouse=True)
def run(monkeypatch):
    monkeypatch.setattr(predict, "load", lambda workdir, best: Run())


def picture(path, h=20, w=30):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((h, w, 3), 90, np.uint8))
    return path


def go(out, *paths):
    return predict_files.predict("run", out, paths)


def drawings(folder):
    return sorted(p.name for p in folder.iterdir())


def contents(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_drawings_and_their_index(tmp_path):
    picture(tmp_path / "in" / "a.jpg")
    picture(tmp_path / "in" / "b.png")
    assert go(tmp_path / "out", tmp_path / "in") == []
    assert drawings(tmp_path / "out") == ["a.png", "b.png", "predictions.json"]
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [row["image_id"] for row in rows] == [1, 2]
    assert [row["drawing"] for row in rows] == ["a.png", "b.png"]
    assert rows[0]["file_name"] == str(tmp_path / "in" / "a.jpg")
    assert (rows[0]["category"], rows[0]["category_id"]) == ("thing", 7)
    assert rows[0]["segmentation"]["size"] == [20, 30]


@pytest.mark.parametrize("kind", ["absolute", "relative", "dots", "link", "hard link"])
def test_a_picture_is_never_replaced_by_its_drawing(kind, tmp_path, monkeypatch):
    photo = picture(tmp_path / "photos" / "a.png")
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(photo.parent)
    out = {
        "absolute": photo.parent,
        "relative": ".",
        "dots": tmp_path / "x" / ".." / "photos",
        "link": tmp_path / "link",
        "hard link": tmp_path / "x",
    }[kind]
    (tmp_path / "link").symlink_to(photo.parent)
    if kind == "hard link":
        os.link(photo, tmp_path / "x" / "a.png")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"a\.png, which is that picture"):
        go(out, photo.parent if kind != "relative" else "a.png")
    assert contents(tmp_path) == before


def test_other_files_of_the_user_are_never_replaced(tmp_path):
    photo = picture(tmp_path / "in" / "a.jpg")
    other = picture(tmp_path / "out" / "a.png", 9, 9)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="not a drawing of an earlier prediction"):
        go(tmp_path / "out", photo)
    other.unlink()
    other.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not a drawing"):
        go(tmp_path / "out", photo)
    other.unlink()
    (tmp_path / "out" / "predictions.json").write_text('{"mine": 1}')
    with pytest.raises(UserError, match=r"predictions\.json is there"):
        go(tmp_path / "out", photo)
    (tmp_path / "out" / "predictions.json").unlink()
    before.pop(other)
    assert contents(tmp_path) == before


def test_a_second_time_is_the_first_again(tmp_path, monkeypatch):
    """Also where drawings go beside the pictures, or below them."""
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "photos" / "a.png")
    picture(tmp_path / "photos" / "b.jpg")
    for _ in range(2):
        assert go("photos/drawn", "photos") == []
        assert drawings(tmp_path / "photos" / "drawn") == [
            "a.png",
            "b.png",
            "predictions.json",
        ]
        assert go("photos", "photos/b.jpg") == []
        assert go("photos", "photos/b.jpg") == []
        assert draw.is_drawing(tmp_path / "photos" / "b.png")
    with pytest.raises(UserError, match="there is no image"):
        go("other", "photos/drawn")
    # What a user names is a picture, whoever drew it.
    assert go("other", "photos/drawn/a.png") == []


def test_pictures_with_one_name_have_a_drawing_each(tmp_path):
    places = ["a-2.png", "a.jpg", "a.png", "sub/a.png", "sub/A.png"]
    for i, place in enumerate(places):
        picture(tmp_path / "in" / place, 20 + i)
    assert go(tmp_path / "out", tmp_path / "in") == []
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    names = [row["drawing"] for row in rows]
    assert len({name.lower() for name in names}) == len(places)
    assert sorted([*names, "predictions.json"]) == drawings(tmp_path / "out")
    told = {
        os.path.relpath(r["file_name"], tmp_path / "in"): r["drawing"] for r in rows
    }
    assert told["a-2.png"] == "a-2.png"
    assert told["a.jpg"] == "a.png"


def test_what_is_no_picture_is_named_and_passed_over(tmp_path):
    place = tmp_path / "in"
    picture(place / "good.png")
    os.mkfifo(place / "fifo.png")
    (place / "folder.png").mkdir()
    (place / "link.png").symlink_to("nowhere")
    (place / "text.png").write_text("no picture")
    (place / "notes.txt").write_text("no picture either")
    picture(place / "large.png", 13, 13)
    picture(place / "refused.png", 14, 14)
    complaints = go(tmp_path / "out", place, tmp_path / "absent.png")
    for name, said in {
        "fifo": "FIFO",
        "folder": "a folder",
        "link": "does not exist",
        "text": "is not an image",
        "large": "too large for the memory",
        "refused": "cannot be processed",
        "absent": "does not exist",
    }.items():
        assert sum(f"{name}.png" in c and said in c for c in complaints) == 1, name
    assert len(complaints) == 7
    assert drawings(tmp_path / "out") == ["good.png", "predictions.json"]


def test_a_picture_given_twice_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo = picture(tmp_path / "in" / "a.png")
    assert go("out", "in", photo, "in/a.png") == []
    assert drawings(tmp_path / "out") == ["a.png", "predictions.json"]


def test_out_is_named_where_it_cannot_be_a_folder(tmp_path):
    photo = picture(tmp_path / "in" / "a.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is a file; choose a folder"):
        go(tmp_path / "file", photo)
    assert (tmp_path / "file").read_text() == ""


def test_images_below_a_folder_are_found(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/2.png", "1.JPG"):
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4, 3), np.uint8))
    for name in ("notes.txt", "b/more.TXT", "README"):
        (tmp_path / name).write_text("")
    found, others = predict_paths.image_files([tmp_path])
    assert [p.name for p in found] == ["1.JPG", "2.png"]
    assert others == {".txt": 2, "": 1}


def test_a_path_that_is_not_there_changes_nothing(tmp_path):
    picture(tmp_path / "new" / "a.jpg")
    go(tmp_path / "out", tmp_path / "new")
    before = contents(tmp_path / "out")
    with pytest.raises(UserError, match=r"nwe does not exist; did you mean \S+new\?"):
        go(tmp_path / "out", tmp_path / "nwe")
    assert contents(tmp_path / "out") == before


def test_what_is_passed_over_is_counted(tmp_path):
    picture(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "film.mp4").write_text("")
    out, lines = tmp_path / "in" / "drawn", []
    for _ in range(2):
        predict_files.predict("run", out, [tmp_path / "in"], log=lines.append)
    assert lines[0] == "passed over: 1 .mp4"
    assert lines[1] == f"1 of 1 pictures are drawn in {out}, beside predictions.json"
    assert lines[2] == "1 found with a score of 0.3 or more"
    # The second time what was drawn lies in the folder too.
    assert lines[3] == (
        "passed over: 1 .json, 1 .mp4, 1 drawn by an earlier prediction"
    )
    (tmp_path / "in" / "a.jpg").unlink()
    with pytest.raises(UserError, match=r"no image in .* \(1 \.json, 1 \.mp4, 1 drawn"):
        go(tmp_path / "other", tmp_path / "in")
