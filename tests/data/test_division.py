"""Pools of images, divided: sizes, classes, and the same again."""

import collections

import numpy as np
import pytest
import tiny_sets
from hypothesis import given
from hypothesis import strategies as st

from detjax.commands import make_dataset
from detjax.data import builder, division
from detjax.data.prepare import prepare
from detjax.errors import UserError
from detjax.tasks import classification, detection

POOLS = st.lists(st.frozensets(st.integers(0, 6), max_size=4), min_size=1, max_size=60)


@given(POOLS, st.sampled_from([(0.8, 0.2), (0.5, 0.25, 0.25), (0.6, 0.1)]))
def test_sizes_are_as_asked_and_the_order_of_files_is_irrelevant(pool, shares):
    names = [f"{i}.png" for i in range(len(pool))]
    found = division.stratified(names, pool, shares)
    sizes = collections.Counter(found)
    for split, share in enumerate(shares):
        assert abs(sizes[split] - share * len(pool)) < 1
    order = np.random.default_rng(0).permutation(len(pool)).tolist()
    again = division.stratified(
        [names[i] for i in order], [pool[i] for i in order], shares
    )
    assert again == [found[i] for i in order]


def test_every_class_is_divided_alike():
    """Rare classes too: a random cut gives some of these none in a split."""
    rng = np.random.default_rng(0)
    often = 0.6 ** np.arange(1, 11)
    pool = [set(np.flatnonzero(rng.random(10) < often)) for _ in range(2000)]
    names = [str(i) for i in range(len(pool))]
    found = np.array(division.stratified(names, pool, [0.8, 0.2], seed=3))
    for kind in range(10):
        own = np.array([kind in held for held in pool])
        part = (found[own] == 1).mean()
        assert abs(part - 0.2) < 0.02 + 0.6 / own.sum(), (kind, own.sum())


def test_seeds_divide_otherwise():
    names = [str(i) for i in range(40)]
    pool = [()] * 40
    first, same, other = (
        division.stratified(names, pool, [0.5, 0.5], s) for s in (0, 0, 1)
    )
    assert first == same != other


def test_it_takes_no_minutes():
    rng = np.random.default_rng(0)
    pool = [set(row) for row in rng.integers(0, 1000, (20_000, 4)).tolist()]
    names = [str(i) for i in range(len(pool))]
    assert len(division.stratified(names, pool, [0.9, 0.1])) == 20_000


@pytest.mark.parametrize(
    "shares", [{}, {"a": 0.0}, {"a": -1.0, "b": 1.0}, {"a": 0.8, "b": 0.3}]
)
def test_shares_that_are_none(shares):
    with pytest.raises(UserError, match="give parts of 1, as"):
        division.check(shares)


def labelme_pool(folder, count=10):
    """LabelMe files: cats, and a dog in every fifth."""
    import json

    for i in range(count):
        tiny_sets.write_image(folder / f"{i}.png", width=60 + i)
        corners = [[5, 5], [20, 20]]
        names = ["cat", "dog"] if i % 5 == 0 else ["cat"]
        shapes = [
            {"label": n, "points": corners, "shape_type": "rectangle"} for n in names
        ]
        held = {"shapes": shapes, "imagePath": f"{i}.png"}
        (folder / f"{i}.json").write_text(json.dumps(held))
    return folder


def test_a_pool_becomes_splits_and_is_known_again(tmp_path):
    section = {
        "format": "labelme",
        "root": labelme_pool(tmp_path / "in"),
        "split_by": {"train": 0.5, "val": 0.5},
    }
    prepare("p", tmp_path, detection.TASK, **section)
    info = builder.info("p", tmp_path)
    assert info.splits == {"train": 5, "val": 5}
    ids = {}
    for split in info.splits:
        records = list(builder.source("p", tmp_path, split, detection.TASK))
        ids[split] = {r.id for r in records}
        dogs = sum(
            a.label == info.classes.index("dog") for r in records for a in r.truth
        )
        assert dogs == 1
    assert ids["train"] | ids["val"] == {*range(1, 11)}
    assert prepare("p", tmp_path, detection.TASK, **section)
    for other in ({"split_seed": 1}, {"split_by": {"train": 0.6, "val": 0.4}}):
        with pytest.raises(UserError, match="its split_"):
            prepare("p", tmp_path, detection.TASK, **section | other)


def test_folders_and_coco_are_divided_too(tmp_path):
    for label in "ab":
        for i in range(4):
            tiny_sets.write_image(tmp_path / "f" / label / f"{i}.png", width=9 + i)
    section = {"root": tmp_path / "f", "split_by": {"train": 0.5, "val": 0.5}}
    prepare("f", tmp_path, classification.TASK, format="folders", **section)
    labels = [
        r.truth for r in builder.source("f", tmp_path, "val", classification.TASK)
    ]
    assert labels == [(0,), (0,), (1,), (1,)]
    path = tiny_sets.write_coco(tmp_path / "c")
    section = {"splits": {path: path}, "split_by": {"a": 0.34, "b": 0.33, "c": 0.33}}
    prepare("c", tmp_path, detection.TASK, format="coco", **section)
    assert builder.info("c", tmp_path).splits == {"a": 1, "b": 1, "c": 1}
    with pytest.raises(UserError, match="name the one with --split"):
        prepare(
            "d", tmp_path, detection.TASK, format="coco", **section | {"splits": None}
        )
    two = section | {"splits": {"a": path, "b": path}}
    with pytest.raises(UserError, match="one pool of images, and --split names 2"):
        prepare("d", tmp_path, detection.TASK, format="coco", **two)
    with pytest.raises(UserError, match="split 'b' would be empty: there are 3 images"):
        few = section | {"split_by": {"a": 0.9, "b": 0.1}}
        prepare("d", tmp_path, detection.TASK, format="coco", **few)


def keywords(*flags):
    return make_dataset.keywords(make_dataset.arguments(flags))


def test_flags_are_the_same_for_all_formats():
    for name in make_dataset.FORMATS:
        flags = [name, "--name=x", "--out=o", "--root=r", "--classes=a, b"]
        flags += ["--on-error=skip", "--split-by=train:.75,val:.25", "--split-seed=3"]
        assert keywords(*flags) == {
            "format": name,
            "name": "x",
            "data_dir": "o",
            "root": "r",
            "classes": ("a", "b"),
            "on_error": "skip",
            "split_by": {"train": 0.75, "val": 0.25},
            "split_seed": 3,
        }
        several = keywords(
            name, "--name=x", "--root=r", "--split", "a=1", "b", "--split=c=d"
        )
        one = 1 if name == "folders" else "1"
        assert several["splits"] == {"a": one, "b": "b", "c": "d"}
    for text in ("train", "train:x", "train:.5,train:.5"):
        with pytest.raises(UserError, match=f"--split-by={text}"):
            keywords("yolo", "--name=x", "--root=r", f"--split-by={text}")
