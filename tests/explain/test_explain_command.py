"""The command that shows what is inside a run: its views, their options, its errors."""

import pathlib
from typing import Annotated, Literal

import numpy as np
import pytest
from PIL import Image

from detjax import models, predict, settings
from detjax.commands import explain as command
from detjax.errors import UserError
from detjax.explain import run
from detjax.settings import Count


def view(
    trained,
    images,
    out,
    *,
    layer: Annotated[str, settings.Regex()] = "",
    method: Literal["one", "two"] = "one",
    units: tuple[int, ...] = (),
    steps: Count = 3,
    names: tuple[str, ...] = (),
    quick: bool = False,
) -> list[pathlib.Path]:
    """Writes what it was given.

    layer: a regular expression.
    method: how.
    units: several.
    """
    (out / "said.txt").write_text(repr((layer, method, units, steps, names, quick)))
    return [out / "said.txt", *images]


NAMES, VIEW = run.names, run.view  # as they are


@pytest.fixture(autouse=True)
def one_view(monkeypatch):
    monkeypatch.setattr(run, "names", lambda: ["shown"])
    monkeypatch.setattr(run, "view", {"shown": view}.__getitem__)
    monkeypatch.setattr(run, "needs_pictures", lambda _: True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ({"steps": "5"}, {"steps": 5}),
        ({"layer": "layer4"}, {"layer": "layer4"}),
        ({"layer": "12"}, {"layer": "12"}),
        ({"units": "(1, 2)"}, {"units": (1, 2)}),
        ({"units": "1,2"}, {"units": (1, 2)}),
        ({"names": "a,b"}, {"names": ("a", "b")}),
        ({"names": "a"}, {"names": ("a",)}),
        ({"units": "9"}, {"units": (9,)}),
        ({"quick": "True"}, {"quick": True}),
    ],
)
def test_texts_become_what_options_are(text, expected):
    assert run.parsed("shown", text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ({"step": "5"}, "--step is no option of shown.*'steps'"),
        ({"steps": "0"}, "steps=0 is not a whole number of at least 1"),
        ({"method": "three"}, "method='three' is not one of"),
        ({"layer": "("}, "layer='\\(' is not a regular expression"),
    ],
)
def test_options_that_do_not_fit_are_named(text, said):
    with pytest.raises(UserError, match=said):
        run.parsed("shown", text)


def test_options_are_told_from_flags_and_pictures():
    argv = [
        "shown",
        "--workdir=a",
        "--layer=b=c",
        "x.png",
        "--quick",
        "--nobest",
        "--guide=",
    ]
    own, options = command.split([*argv, "--", "--y.png"])
    assert own == ["shown", "--workdir=a", "x.png", "--nobest", "--", "--y.png"]
    assert options == {"layer": "b=c", "quick": "True", "guide": ""}
    own, options = command.split(["shown", "--layer", "-3", "x.png", "--quick", "y"])
    assert own == ["shown", "x.png", "y"]
    assert options == {"layer": "-3", "quick": "True"}
    with pytest.raises(UserError, match="--layer is given no value"):
        command.split(["shown", "x.png", "--layer"])


def test_help_says_all_of_every_option():
    said = run.usage(["shown"])
    assert "shown: Writes what it was given." in said
    assert "--steps:  (a whole number of at least 1) [3]" in said
    assert "--method: how. (one of 'one', 'two') ['one']" in said


@pytest.fixture
def trained(monkeypatch):
    settings = {"num_classes": 2, "backbone": {"name": "resnet10", "remat": True}}
    made = predict.TrainedModel(
        {"model": {"name": "classifier", **settings}, "data": {"name": "absent"}},
        *(["a", "b"], [1, 2], models.make("classifier", **settings), None, None, 3),
    )
    monkeypatch.setattr(predict, "load", lambda *_: made)
    return made


def test_pictures_are_found_and_files_named(trained, tmp_path):
    picture = tmp_path / "in" / "a.png"
    picture.parent.mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture)
    found = run.explain("shown", "", tmp_path / "out", [picture.parent], steps=7)
    assert found == [tmp_path / "out" / "said.txt", picture]
    assert eval(found[0].read_text()) == ("", "one", (), 7, (), False)


def test_what_is_missing_is_said(trained, tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match="there is no picture in"):
        run.explain("shown", "", tmp_path / "out", [tmp_path / "in"])
    with pytest.raises(UserError, match="name pictures after the flags"):
        run.explain("shown", "", tmp_path / "out")


def test_layers_that_would_be_computed_again_are_seen(trained):
    config = run.visible(trained).config
    assert config["model"]["backbone"]["remat"]  # the run's, as it was
    assert not run.visible(trained).model.net.backbone.remat


def test_every_view_says_all_of_its_options(monkeypatch):
    monkeypatch.setattr(run, "names", NAMES)
    monkeypatch.setattr(run, "view", VIEW)
    found = run.names()
    assert {"activations", "cam", "compare", "dream", "maximise"} <= {*found}
    for name in found:
        assert run.summary(name)
        said = settings.described(run.view(name))
        assert said.keys() == settings.keywords(run.view(name)).keys(), name
        for option in said:  # the command's own would hide it
            assert not command._known(option), (name, option)
