"""Pictures that are there twice are named, whatever they are called."""

import tiny_sets

from detjax.data import duplicates
from detjax.data.prepare import prepare
from detjax.data.summary import Row, Summary
from detjax.tasks import classification


def test_the_same_file_in_a_split_and_in_two(tmp_path):
    for name, width in (("a", 9), ("b", 10), ("c", 10), ("e", 12)):
        tiny_sets.write_image(tmp_path / "train" / "x" / f"{name}.png", width=width)
    for name, width in (("d", 9), ("f", 11)):
        tiny_sets.write_image(tmp_path / "val" / "x" / f"{name}.png", width=width)
    lines = []
    splits = {"train": tmp_path / "train", "val": tmp_path / "val"}
    section = {"format": "folders", "splits": splits, "log": lines.append}
    prepare("d", tmp_path, classification.TASK, **section)
    said = [line for line in lines if line.startswith("warning")]
    assert said[0].endswith("'train' has 1 picture more than once: x/c.png is x/b.png")
    assert "'train' and 'val' share 1 picture" in said[1]
    assert said[1].endswith("x/d.png of val is x/a.png of train")
    listed = (tmp_path / "d-duplicates.txt").read_text().splitlines()
    assert listed == ["x/c.png is x/b.png", "x/d.png of val is x/a.png of train"]


def test_many_are_counted_and_unknown_ones_are_not():
    found = Summary("train", ())
    for i in range(8):
        digest = b"" if i > 5 else b"same"
        found.add(Row(i, (1, 1), [], [], {}, 0, f"{i}.png", digest))
    (twins,) = duplicates.of({"train": found})
    assert len(twins.pairs) == 5
    assert "5 pictures more than once" in twins.line()
    assert twins.line().endswith("3.png is 0.png and 2 more")
