"""Paths that are wrong, and the readers that would fit."""

import pytest
import tiny_sets

from detjax.data.formats import places, sniff
from detjax.data.prepare import FORMATS, prepare
from detjax.errors import MissingFileError, UserError
from detjax.tasks import TASKS


def yolo(folder):
    tiny_sets.write_image(folder / "images" / "a.png")
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text("0 .5 .5 .1 .1\n")


def yolo_yaml(folder):
    (folder / "data.yaml").write_text("train: images\nnames: [a]\n")


def yolo_flat(folder):
    tiny_sets.write_image(folder / "a.png")
    (folder / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")


def voc(folder):
    tiny_sets.write_voc(folder, {"x": tiny_sets.voc_xml("")})


def voc_flat(folder):
    (folder / "x.xml").write_text(tiny_sets.voc_xml(""))


def labelme(folder):
    (folder / "a.json").write_text('{"version": "5", "shapes": [], "imagePath": "a"}')


def cvat(folder):
    (folder / "annotations.xml").write_text("<annotations></annotations>")


def coco(folder):
    tiny_sets.write_coco(folder / "annotations")


def objectmasks(folder):
    (folder / "images").mkdir()
    (folder / "masks").mkdir()


def bowl(folder):
    (folder / "id" / "images").mkdir(parents=True)
    (folder / "id" / "masks").mkdir()


def labelmaps(folder):
    import numpy as np

    tiny_sets.write_labelmaps(folder, {"a": np.ones((48, 64), np.uint8)})


def folders(folder):
    for label in ("cat", "dog"):
        tiny_sets.write_image(folder / label / "a.png")


LAYOUTS = {
    yolo: "yolo",
    yolo_yaml: "yolo",
    yolo_flat: "yolo",
    voc: "voc",
    voc_flat: "voc",
    labelme: "labelme",
    cvat: "cvat",
    coco: "coco",
    objectmasks: "objectmasks",
    bowl: "objectmasks",
    labelmaps: "labelmaps",
    folders: "folders",
}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_layouts_are_recognised_and_named_to_other_readers(tmp_path, layout):
    folder = tmp_path / "set"
    folder.mkdir()
    layout(folder)
    assert sniff.guess(folder).format == LAYOUTS[layout]
    other = "voc" if LAYOUTS[layout] != "voc" else "objectmasks"
    with pytest.raises(UserError) as caught:
        prepare(
            "x",
            tmp_path,
            TASKS["detection"],
            format=other,
            root=folder,
            split_by={"train": 0.5, "val": 0.5},
        )
    assert f"looks like the format {LAYOUTS[layout]!r}: try `" in str(caught.value)
    assert LAYOUTS[layout] in FORMATS


def test_nothing_is_recognised_in_nothing(tmp_path):
    assert sniff.guess(tmp_path) is None
    assert sniff.guess(tmp_path / "nowhere") is None
    (tmp_path / "a.json").write_bytes(b"\xff")
    assert sniff.guess(tmp_path) is None
    assert sniff.advice(tmp_path, "coco") == ""


def test_files_and_folders_in_each_other_s_place(tmp_path):
    path = tiny_sets.write_coco(tmp_path)
    with pytest.raises(UserError, match=r"is a file, not the folder of x.*'coco'"):
        places.folder(path, "x", "voc")
    (tmp_path / "a.zip").touch()
    with pytest.raises(UserError, match="unpack it first"):
        places.folder(tmp_path / "a.zip", "x", "voc")
    cvat(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"is a folder, not x.*'cvat'"):
        places.file(tmp_path, "x", "coco")


def test_what_is_missing_has_a_neighbour(tmp_path):
    (tmp_path / "photos" / "train").mkdir(parents=True)
    with pytest.raises(MissingFileError, match=r"did you mean .*photos/train\?"):
        places.folder(tmp_path / "photos" / "trian", "x", "voc")
    with pytest.raises(MissingFileError, match=r"did you mean .*/photos\?"):
        places.folder(tmp_path / "photo" / "train", "x", "voc")
    with pytest.raises(MissingFileError, match="has no 'elsewhere'"):
        places.file(tmp_path / "elsewhere" / "x.json", "x", "coco")


def test_paths_are_below_the_root_unless_they_are_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    assert places.joined("root", "a") == tmp_path.joinpath("root/a").relative_to(
        tmp_path
    )
    assert str(places.joined("root", "b")) == "b"
    assert places.joined("root", tmp_path / "b") == tmp_path / "b"
    assert places.joined(None, "a") == places.Path("a")
    with pytest.raises(UserError, match="no split is named"):
        places.splits_of(None, tmp_path, "labelme")
    with pytest.raises(MissingFileError, match="does not exist"):
        places.splits_of({"a": "x"}, tmp_path / "no", "labelme")
