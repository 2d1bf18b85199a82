"""Label maps in files: layouts, codings, problems."""

import cv2
import numpy as np
import pytest
import tiny_sets
from PIL import Image

from detjax.data import label_maps
from detjax.data.formats import semantic, semantic_tables
from detjax.errors import UserError

SIZE = (48, 64)
NAMES = ("background", "cat", "dog")


def drawn(seed=0, values=(0, 1, 2, 255)):
    """A map of `SIZE` of blocks of these values, all of them there."""
    rng = np.random.default_rng(seed)
    blocks = rng.permutation(np.resize(values, 48)).reshape(6, 8)
    return np.kron(blocks, np.ones((8, 8), np.int64)).astype(np.uint16)


def save(path, values, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if palette is not None:
        image = Image.fromarray(values.astype(np.uint8), "P")
        image.putpalette(np.asarray(palette, np.uint8).ravel().tolist())
        image.save(path)
    elif path.suffix == ".npy":
        np.save(path, values)
    elif values.ndim == 3:
        assert cv2.imwrite(str(path), values.astype(np.uint8)[..., ::-1])
    else:
        kind = np.uint8 if values.max() < 256 else np.uint16
        assert cv2.imwrite(str(path), values.astype(kind))


def flat(folder, maps, ending=".png"):
    """images/ and labels/ of these maps by name."""
    for name, values in maps.items():
        tiny_sets.write_image(folder / "images" / f"{name}.png")
        save(folder / "labels" / f"{name}{ending}", values)
    return folder


def read(folder, **arguments):
    arguments.setdefault("splits", {"train": "."})
    [found] = semantic.read_splits(root=folder, **arguments).values()
    return found


def truth(found):
    return [label_maps.decode(r.truth, (r.height, r.width)) for r in found.records]


def check(found, wanted, off):
    """That the one record of `found` has the labels `wanted` [h w], ignored `off`."""
    [(labels, valid)] = truth(found)
    np.testing.assert_array_equal(valid, ~off)
    np.testing.assert_array_equal(labels[valid], wanted[valid])


@pytest.mark.parametrize("ending", [".png", ".tif", ".npy", ".bmp"])
def test_numbers_are_classes_and_255_is_ignored(tmp_path, ending):
    values = drawn()
    found = read(flat(tmp_path, {"a": values}, ending), classes=NAMES)
    assert found.classes == NAMES
    assert not found.problems
    check(found, values, values == 255)


def test_a_thousand_classes_take_sixteen_bits(tmp_path):
    names = tuple(f"c{i}" for i in range(1000))
    values = drawn(values=(0, 7, 300, 999, 255))
    found = read(flat(tmp_path, {"a": values}), classes=names, ignore=(65535,))
    check(found, values, values == 65535)


def test_palettes_are_numbers(tmp_path):
    palette = np.random.default_rng(0).integers(0, 255, (256, 3))
    tiny_sets.write_image(tmp_path / "images" / "a.png")
    save(tmp_path / "labels" / "a.png", drawn(), palette)
    check(read(tmp_path, classes=NAMES), drawn(), drawn() == 255)


def test_one_bit_and_grey_colours_are_numbers(tmp_path):
    values = drawn(values=(0, 1))
    folder = flat(tmp_path / "1", {"a": values})
    Image.fromarray(values.astype(bool)).save(folder / "labels" / "a.png")
    check(read(folder, classes=("off", "on")), values, values > 1)
    grey = np.repeat(drawn()[..., None], 3, axis=2)
    check(
        read(flat(tmp_path / "2", {"a": grey}), classes=NAMES), drawn(), drawn() == 255
    )


def test_values_name_the_numbers_of_classes(tmp_path):
    values = drawn(values=(0, 255))
    found = read(flat(tmp_path, {"a": values}), classes=("off", "on"), values=(0, 255))
    check(found, values // 255, values < 0)


def test_a_table_has_colours_of_classes(tmp_path):
    tints = np.array([[0, 0, 0], [200, 10, 10], [10, 10, 200], [90, 90, 90]])
    values = drawn(values=(0, 1, 2, 3))
    folder = flat(tmp_path, {"a": tints[values]})
    (tmp_path / "classes.csv").write_text(
        "name,r,g,b\nsky,0,0,0\ncar,200,10,10\ncar,10,10,200\nVoid,90,90,90\n"
    )
    found = read(folder, table="classes.csv")
    assert found.classes == ("sky", "car")
    check(found, np.minimum(values, 1), values == 3)
    with pytest.raises(UserError, match="not both"):
        read(folder, table="classes.csv", classes=("a", "b"))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is empty"),
        ("name,red\na,1\n", "needs name, and r, g, b or value"),
        ("name,value\na,x\n", "line 2"),
        ("name,value\na,1\nb,1\n", "the value 1 for two classes"),
        ("name,r,g,b\na,1,2,300\n", "line 2: colours go from 0 to 255"),
        ("name,value\nvoid,1\n", "no class"),
    ],
)
def test_tables_that_are_wrong_are_told(tmp_path, text, what):
    folder = flat(tmp_path, {"a": drawn()})
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=what):
        read(folder, table="t.csv")


@pytest.mark.parametrize("palette", [False, True])
def test_grey_maps_and_palettes_have_colours_too(tmp_path, palette):
    """Where the table has nothing but colours: one whole map may be of one grey."""
    values = drawn(values=(0, 1))
    tints = np.array([[128, 128, 128], [64, 64, 64]])
    folder = flat(tmp_path, {"a": tints[values], "b": tints[values][..., 0]})
    if palette:
        save(folder / "labels" / "a.png", values, tints)
    (tmp_path / "t.csv").write_text("name,r,g,b\nsky,128,128,128\nsea,64,64,64\n")
    found = read(folder, table="t.csv")
    assert not found.problems
    for labels, valid in truth(found):
        np.testing.assert_array_equal(labels, values)
        assert valid.all()


def test_masks_of_255_are_asked_about(tmp_path):
    folder = flat(tmp_path, {"a": drawn(values=(0, 255)), "b": drawn(values=(0,))})
    with pytest.raises(UserError, match="--values=0,255, if not --ignore=255"):
        read(folder, classes=("off", "on"))
    assert len(read(folder, classes=("off", "on"), ignore=255).records) == 2


def test_what_is_ignored_is_no_class(tmp_path):
    folder = flat(tmp_path, {"a": drawn()})
    with pytest.raises(UserError, match="--ignore=2 is the number of the class 'dog'"):
        read(folder, classes=NAMES, ignore=2)


def test_folders_have_any_capitals_and_maps_the_whole_name(tmp_path):
    tiny_sets.write_image(tmp_path / "Images" / "a.jpg")
    save(tmp_path / "Masks" / "a.jpg.png", drawn())
    check(read(tmp_path, classes=NAMES), drawn(), drawn() == 255)


def test_names_that_are_there_twice_are_problems(tmp_path):
    folder = flat(tmp_path, {"a": drawn(), "b": drawn(), "c": drawn()})
    save(folder / "labels" / "a.npy", drawn())
    save(folder / "labels" / "c_mask.png", drawn())
    tiny_sets.write_image(folder / "images" / "b.jpg")
    found = read(folder, classes=NAMES)
    assert sorted((p.file, p.reason) for p in found.problems) == [
        ("a.png", "two label maps"),
        ("b.png", "duplicate name"),
        ("c_mask.png", "missing image"),
    ]


def test_numbers_of_thirty_two_bits_are_found(tmp_path):
    values = drawn(values=(0, 1, 2)).astype(np.int64) * 100_000_000
    folder = flat(tmp_path, {"a": values}, ".npy")
    found = read(folder, classes=NAMES, values=(0, 100_000_000, 200_000_000))
    check(found, values // 100_000_000, values < 0)


def test_voc_has_its_lists_and_names(tmp_path):
    values = drawn(values=(0, 5, 20, 255))
    palette = np.random.default_rng(0).integers(0, 255, (256, 3))
    for name in "abc":
        tiny_sets.write_image(tmp_path / "JPEGImages" / f"{name}.jpg")
        save(tmp_path / "SegmentationClass" / f"{name}.png", values, palette)
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c\n")
    found = semantic.read_splits(root=tmp_path)
    assert {s: len(d.records) for s, d in found.items()} == {"train": 2, "val": 1}
    assert found["val"].classes == semantic_tables.VOC
    check(found["val"], values, values == 255)


@pytest.mark.parametrize("train_ids", [False, True])
def test_cityscapes_ids_become_train_ids(tmp_path, train_ids):
    ids = drawn(values=(0, 7, 26, 33))
    train = np.select([ids == 7, ids == 26, ids == 33], [0, 13, 18], 255)
    begin = "ulm_000000_000019"
    for split in ("train", "val"):
        folder = tmp_path / "leftImg8bit" / split / "ulm"
        tiny_sets.write_image(folder / f"{begin}_leftImg8bit.png")
        folder = tmp_path / "gtFine" / split / "ulm"
        save(folder / f"{begin}_gtFine_labelIds.png", ids)
        save(folder / f"{begin}_gtFine_instanceIds.png", ids * 100)
        save(folder / f"{begin}_gtFine_color.png", np.repeat(ids[..., None], 3, 2))
        if train_ids:
            save(folder / f"{begin}_gtFine_labelTrainIds.png", train)
    found = semantic.read_splits(root=tmp_path)
    assert [*found] == ["train", "val"]
    assert found["train"].classes == tuple(semantic_tables.CITYSCAPES)
    assert len(found["train"].classes) == 19
    assert not found["train"].problems
    check(found["train"], train, train == 255)


def test_ade20k_counts_from_one(tmp_path):
    values = drawn(values=(0, 1, 150))
    for part in ("training", "validation"):
        tiny_sets.write_image(tmp_path / "images" / part / "a.jpg")
        save(tmp_path / "annotations" / part / "a.png", values)
    rows = [f"{i}\t0.1\t1\t1\tthing{i}, other" for i in range(1, 151)]
    rows[149] = "150\t.1\t1\t1\tthing3"
    (tmp_path / "objectInfo150.txt").write_text("\n".join(["Idx\tName", *rows]) + "\n")
    found = semantic.read_splits(root=tmp_path)["val"]
    assert found.classes[:2] == ("thing1", "thing2")
    assert found.classes[-1] == "thing3 (2)"
    check(found, values.astype(int) - 1, values == 0)


@pytest.mark.parametrize("outer", [False, True])
def test_splits_are_folders_outside_or_inside(tmp_path, outer):
    for split in ("train", "val"):
        inner = ("images", "masks")
        paths = [
            tmp_path / (f"{split}/{name}" if outer else f"{name}/{split}")
            for name in inner
        ]
        tiny_sets.write_image(paths[0] / "deep" / "a.jpg")
        save(paths[1] / "deep" / "a_mask.png", drawn())
    found = semantic.read_splits(
        root=tmp_path, classes=NAMES, splits={"train": "train", "val": "val"}
    )
    for one in found.values():
        assert not one.problems
        check(one, drawn(), drawn() == 255)


def test_maps_may_lie_beside_their_images(tmp_path):
    for name in "ab":
        tiny_sets.write_image(tmp_path / f"{name}.jpg")
        save(tmp_path / f"{name}_mask.png", drawn())
    found = read(tmp_path, classes=NAMES)
    assert [r.file_name for r in found.records] == ["a.jpg", "b.jpg"]
    assert not found.problems


def reasons(found):
    return {p.reason: str(p) for p in found.problems}


def test_problems_name_file_and_fault(tmp_path):
    folder = flat(
        tmp_path,
        {
            "good": drawn(),
            "unknown": drawn(values=(0, 1, 3, 9)),
            "empty": drawn(values=(255,)),
            "small": drawn()[:40],
            "lossy": drawn(),
            "broken": drawn(),
            "alone": drawn(),
            "colours": np.stack([drawn(), drawn() * 0, drawn()], axis=2),
        },
    )
    (folder / "labels" / "lossy.png").unlink()
    Image.fromarray(drawn().astype(np.uint8)).save(folder / "labels" / "lossy.jpg")
    whole = (folder / "labels" / "broken.png").read_bytes()
    (folder / "labels" / "broken.png").write_bytes(whole[:60])
    (folder / "labels" / "alone.png").unlink()
    save(folder / "labels" / "nobody.png", drawn())
    found = read(folder, classes=NAMES)
    assert [r.file_name for r in found.records] == ["good.png"]
    said = {p.file: (p.reason, p.detail) for p in found.problems}
    assert said["unknown.png"][0] == "value without a class"
    assert "the values 3, 9 (50.0% of the pixels)" in said["unknown.png"][1]
    assert said["empty.png"][0] == "nothing labelled"
    assert said["small.png"] == (
        "label map of another size",
        "is 64 x 40, its image 64 x 48 pixels",
    )
    assert "is a JPEG, which is lossy" in said["lossy.jpg"][1]
    assert "is cut off after 60 bytes" in said["broken.png"][1]
    assert said["alone.png"][0] == "missing label map"
    assert said["nobody.png"][0] == "missing image"
    assert "--table=FILE.csv" in said["colours.png"][1]
    assert len(found.problems) == 8


def test_what_is_not_named_is_asked_for(tmp_path):
    folder = flat(tmp_path, {"a": drawn()})
    with pytest.raises(UserError, match="--classes=background,cat"):
        read(folder)
    with pytest.raises(UserError, match="--split-by"):
        semantic.catalogues(root=folder, classes=NAMES)
    with pytest.raises(UserError, match="one number for each"):
        read(folder, classes=NAMES, values=(1, 2))
    with pytest.raises(UserError, match="no folder of the label maps"):
        read(folder, classes=NAMES, labels="elsewhere")
    with pytest.raises(UserError, match="no folder of the images"):
        read(tmp_path / "labels", classes=NAMES, images="gone")


def test_digests_follow_the_files_and_the_coding(tmp_path):
    folder = flat(tmp_path, {"a": drawn()})
    given = {"root": folder, "splits": {"train": "."}, "classes": NAMES}
    first = semantic.digests(**given)
    assert first == semantic.digests(**given)
    assert first != semantic.digests(**given, ignore=254)
    save(folder / "labels" / "a.png", drawn(values=range(3)))
    assert first != semantic.digests(**given)


def test_pictures_that_exif_turns_have_maps_of_upright_pixels(tmp_path):
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8)
    )
    exif = image.getexif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    image.save(tmp_path / "images" / "a.jpg", exif=exif)
    save(tmp_path / "labels" / "a.png", drawn())
    check(read(tmp_path, classes=NAMES), drawn(), drawn() == 255)
