"""CSV files of pictures and labels: columns, splits, several labels, what is wrong."""

import cv2
import numpy as np
import pytest

from detjax.commands import make_dataset
from detjax.data import builder, division
from detjax.data.formats import csv_labels, sniff
from detjax.data.prepare import prepare
from detjax.errors import MissingFileError, UserError
from detjax.tasks import TASKS


def pictures(folder, *names):
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((6, 8, 3), 5 * i, np.uint8))


def table(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def read(**arguments):
    found = csv_labels.read_splits(**arguments)
    return {
        split: [(r.file_name, r.truth) for r in dataset.records]
        for split, dataset in found.items()
    }


def test_a_file_a_split(tmp_path):
    pictures(tmp_path, "a.png", "deep/b.png", "c.png")
    table(tmp_path / "train.csv", "filename,label", "a.png,cat", "deep/b.png, dog")
    table(tmp_path / "val.csv", "label,filename", "cat,c.png")
    splits = {"train": "train.csv", "val": "val.csv"}
    assert read(splits=splits, root=tmp_path) == {
        "train": [("a.png", (0,)), ("deep/b.png", (1,))],
        "val": [("c.png", (0,))],
    }
    again = csv_labels.digests(splits=splits, root=tmp_path)
    table(tmp_path / "val.csv", "label,filename", "dog,c.png")
    now = csv_labels.digests(splits=splits, root=tmp_path)
    assert again["train"] == now["train"] and again["val"] != now["val"]


def test_a_column_of_splits(tmp_path):
    pictures(tmp_path / "images", "1.png", "2.png", "3.png")
    path = table(
        tmp_path / "all.csv", "image;class;split", "1;a;train", "2;b;train", "3;a;test"
    )
    images = tmp_path / "images"
    assert read(root=path, images=images) == {
        "train": [("1", (0,)), ("2", (1,))],
        "test": [("3", (0,))],
    }
    assert read(root=path, images=images, splits={"val": "test"}) == {
        "val": [("3", (0,))]
    }
    with pytest.raises(UserError, match=r"has the splits \['train', 'test'\], and"):
        read(root=path, images=images, splits={"val": "val"})


@pytest.mark.parametrize("lines", [("1.png|x", "a|b"), ("1.png\tx;y",)])
def test_several_labels(tmp_path, lines):
    pictures(tmp_path, "1.png", "2.png")
    path = table(
        tmp_path / "all.tsv",
        "id\tlabels",
        "1.png\tb|a",
        "2.png\ta",
        "2.png\tc;a",
    )
    assert read(root=path, splits=csv_labels.POOL) == {
        "all": [("1.png", (0, 1)), ("2.png", (0, 2))]
    }


def test_no_header_and_named_columns(tmp_path):
    pictures(tmp_path, "1.png", "2.png")
    bare = table(tmp_path / "bare.csv", "1.png,cat", '"2.png","dog, small"')
    found = read(root=bare, splits=csv_labels.POOL)["all"]
    assert found == [("1.png", (0,)), ("2.png", (1,))]
    odd = table(tmp_path / "odd.csv", "n,what,where", "0,cat,1.png")
    with pytest.raises(UserError, match=r"name them with --columns=FILE,LABEL"):
        read(root=odd, splits=csv_labels.POOL)
    named = {"root": odd, "splits": csv_labels.POOL}
    assert read(**named, columns=("where", "what")) == {"all": [("1.png", (0,))]}
    with pytest.raises(UserError, match="has no column 'which'; its first line has"):
        read(**named, columns=("where", "which"))


def test_what_is_wrong_is_named(tmp_path):
    pictures(tmp_path, "1.png", "2.png")
    path = table(
        tmp_path / "all.csv",
        "file,label",
        "1.png,a",
        "2.png,",
        "3.png,a",
        "../4.png,a",
        "1.png,what",
    )
    found = csv_labels.read_splits(
        root=path, splits=csv_labels.POOL, classes=["a", "b"]
    )["all"]
    assert [r.file_name for r in found.records] == ["1.png"]
    assert sorted({p.reason for p in found.problems}) == [
        "file outside the folder",
        "missing image",
        "no label",
        "unknown class",
    ]
    cut = table(tmp_path / "cut.csv", "file,label", "1.png")
    with pytest.raises(UserError, match=r"line 2 of .* has 1 columns, and the first"):
        read(root=cut, splits=csv_labels.POOL)
    with pytest.raises(UserError, match=r"--columns=id names 1 columns; give two"):
        read(root=path, splits=csv_labels.POOL, columns=("id",))
    part = table(tmp_path / "part.csv", "file,label,split", "1.png,a,train", "2.png,a,")
    with pytest.raises(UserError, match=r"line 3 of .* says nothing in column 'split'"):
        read(root=part)
    with pytest.raises(UserError, match="is empty"):
        read(root=table(tmp_path / "none.csv", ""), splits=csv_labels.POOL)
    with pytest.raises(MissingFileError, match="does not exist"):
        read(root=tmp_path / "gone.csv", splits=csv_labels.POOL)
    with pytest.raises(UserError, match="--split-by"):
        read(root=table(tmp_path / "one.csv", "file,label", "1.png,a"))


def test_it_becomes_a_data_set_that_is_divided(tmp_path):
    names = [f"{i}.png" for i in range(20)]
    pictures(tmp_path, *names)
    lines = [f"{name},{'ab'[i % 2]}" for i, name in enumerate(names)]
    table(tmp_path / "labels.csv", "file,label", *lines)
    argv = ["csv", "--name=mine", f"--root={tmp_path / 'labels.csv'}"]
    argv += ["--split-by=train:0.8,val:0.2", f"--out={tmp_path / 'sets'}"]
    make_dataset.main(argv)
    info = builder.info("mine", tmp_path / "sets")
    assert info.classes == ("a", "b") and info.splits == {"train": 16, "val": 4}
    task = TASKS["classification"]
    val = builder.source("mine", tmp_path / "sets", "val", task, images=False)
    assert sorted(val[i].truth for i in range(4)) == [(0,), (0,), (1,), (1,)]
    # The same file again is the same data set; other labels are not.
    kwargs = {"format": "csv", "root": tmp_path / "labels.csv"}
    by = {"train": 0.8, "val": 0.2}
    prepare("mine", tmp_path / "sets", task, split_by=by, **kwargs)
    table(tmp_path / "labels.csv", "file,label", *lines[:-1], "19.png,a")
    with pytest.raises(UserError, match="have changed since"):
        prepare("mine", tmp_path / "sets", task, split_by=by, **kwargs)


def test_readers_of_folders_point_to_it(tmp_path):
    path = table(tmp_path / "labels.csv", "file,label", "1.png,a")
    assert str(sniff.guess(path)) == f"try `csv --root={path}`"


def test_a_balanced_division_has_as_many_of_each_class(tmp_path):
    names = [f"{i}.png" for i in range(24)]
    pictures(tmp_path, *names)
    kinds = ["a"] * 4 + ["b"] * 14 + ["c"] * 6
    lines = [f"{name},{kind}" for name, kind in zip(names, kinds, strict=True)]
    path = table(tmp_path / "labels.csv", "file,label", *lines)
    argv = ["csv", "--name=mine", f"--root={path}", f"--out={tmp_path / 'sets'}"]
    argv += ["--split-by=train:0.5,val:0.5", "--balanced"]
    make_dataset.main(argv)
    task = TASKS["classification"]
    for split in ("train", "val"):
        held = builder.source("mine", tmp_path / "sets", split, task, images=False)
        assert sorted(r.truth for r in held) == [(0,), (0,), (1,), (1,), (2,), (2,)]
    make_dataset.main(argv)  # it is there already
    with pytest.raises(SystemExit):
        make_dataset.main(argv[:-1])
    pool = csv_labels.catalogues(root=path, splits=csv_labels.POOL)["all"]
    chosen = [
        [e.name for e in division.balanced(pool, seed).entries] for seed in (0, 0, 1)
    ]
    assert chosen[0] == chosen[1] != chosen[2]
    several = table(tmp_path / "two.csv", "file,label", "1.png,a|b")
    pool = csv_labels.catalogues(root=several, splits=csv_labels.POOL)["all"]
    with pytest.raises(UserError, match=r"one class an image, and 1\.png has 2"):
        division.balanced(pool)
