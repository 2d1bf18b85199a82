"""The tables of settings: complete, true, and every row with a description."""

from detjax import backbones, reference
from scripts import reference as pages


def test_every_setting_is_described():
    found = reference.of_runs() | reference.of_models()
    silent = [row.key for rows in found.values() for row in rows if not row.text]
    assert silent == []


def test_rows_are_the_signatures():
    train = {row.key: row for row in reference.of_runs()["train"]}
    assert train["train.steps"].default == ""  # required
    assert train["train.keep"].default == "3"
    assert train["train.keep"].kind == "a whole number of at least 1"
    assert "train.workdir" not in train
    model = {row.key: row for row in reference.of_models()["Two-stage detectors"]}
    # Of stages that are on and of those that are off, at the family's own defaults.
    assert model["model.rpn.positive"].default == "0.7"
    assert model["model.mask.bins"].default == "14"
    assert model["model.ema"].default == "None"


def test_long_lists_of_names_are_cut():
    rows = {row.key: row for row in reference.of_models()["Classifiers"]}
    kind = rows["model.backbone.name"].kind
    assert kind.startswith("one of 'resnet10', ") and kind.endswith(" others")
    assert int(kind.split()[-2]) == len(backbones.FAMILIES) - 3
    assert reference.kind_of(int | None) == "a whole number, or None"


def test_tables_are_markdown():
    row = reference.Row("a.b", "'x|y'", "a text, or None", "What it does.")
    assert reference.table([row]).splitlines()[2] == (
        r"| `a.b` | `'x\|y'` | a text, or None | What it does. |"
    )


def test_the_pages_are_up_to_date():
    """If not: python scripts/reference.py."""
    for path, text in pages.pages().items():
        assert path.read_text() == text, path.name
