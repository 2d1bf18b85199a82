"""Values against their annotations; stages from what configs hold."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from detjax import experiment, models, settings
from detjax.errors import UserError
from detjax.models import earlier
from detjax.settings import (
    Count,
    Fraction,
    Location,
    NonNegative,
    NotEmpty,
    OneOf,
    Pattern,
    Positive,
    Range,
    Seed,
    Whole,
)


@dataclasses.dataclass(frozen=True)
class Inner:
    depth: Count = 2


@dataclasses.dataclass(frozen=True)
class Stage:
    name: Literal["a", "b"] = "a"
    width: Count = 8
    sizes: tuple[Positive, ...] = (1,)
    inner: Inner | None = Inner()


def constructor(
    *, classes: Count, stage: Stage = Stage(), head: Stage | None = None, plain: int = 0
):
    return classes, stage, head, plain


GOOD = [
    (3, Count, 3),
    (np.int64(3), Count, 3),
    (0, Whole, 0),
    (2**63 - 1, Seed, 2**63 - 1),
    (1, Fraction, 1),
    (10**400, NonNegative, 10**400),
    (0.5, Fraction, 0.5),
    ("true", bool, True),
    ("False", bool, False),
    (True, bool, True),
    (None, Count | None, None),
    ([64, 32], tuple[Count, Count], (64, 32)),
    ([[1, 2], (3,)], tuple[tuple[Count, ...], ...], ((1, 2), (3,))),
    ((), tuple[Count, ...], ()),
    (["a"], Sequence[str], ("a",)),
    ({"a": [1]}, Mapping[str, tuple[Count, ...]], {"a": (1,)}),
    (r"^a\.", Pattern, r"^a\."),
    ("sgd", Literal["sgd", "adamw"], "sgd"),
    ("resnet18", Annotated[str, OneOf(("resnet18",))], "resnet18"),
    ("x/y", Location, "x/y"),
    (object, Any, object),
    ("b", Stage, {"name": "b"}),
    ({"sizes": [1, 2]}, Stage, {"sizes": (1, 2)}),
    ({"inner": {"depth": 3}}, Stage, {"inner": {"depth": 3}}),
    (False, Stage | None, None),
    (True, Stage, True),
    (Stage(), Stage, Stage()),
]


@pytest.mark.parametrize("value, annotation, expected", GOOD, ids=repr)
def test_what_fits_is_returned(value, annotation, expected):
    assert settings.check("a.b", value, annotation) == expected


BAD = [
    (0, Count, "a whole number of at least 1"),
    (2.0, Count, "a whole number of at least 1"),
    (True, Count, "a whole number of at least 1"),
    ("3", Count, "a whole number of at least 1"),
    (-1, Seed, "a whole number between 0 and 9223372036854775807"),
    (0, Positive, "a number above 0"),
    (float("nan"), NonNegative, "a number of at least 0"),
    (float("inf"), NonNegative, "a number of at least 0"),
    (True, float, "a number"),
    (2, Fraction, "a number between 0 and 1"),
    (1, bool, "True or False"),
    ("yes", bool, "True or False"),
    (3, str, "a text"),
    (3, Location, "a text, or a path"),
    ("lamb", Literal["sgd", "adamw"], "one of 'sgd', 'adamw'"),
    (True, Literal[1, 2], "one of 1, 2"),
    ("x", Annotated[str, OneOf(("a", "b"))], "one of 'a', 'b'"),
    (
        (1, 2, 3),
        tuple[Count, Count] | None,
        "two whole numbers of at least 1, or None",
    ),
    ((1, 0), tuple[Count, Count], "two whole numbers of at least 1"),
    ("ab", tuple[Count, ...], "a list of whole numbers of at least 1"),
    (
        ((64,), "x"),
        tuple[tuple[Count, Count], ...],
        "a list of lists of two whole numbers of at least 1",
    ),
    (
        (),
        Annotated[tuple[Count, ...], NotEmpty()],
        "a list of one or more whole numbers of at least 1",
    ),
    ((9,), tuple[Annotated[int, Range(2, 5)], ...], "whole numbers between 2 and 5"),
    (9, Annotated[int, Range(high=5)], "a whole number of at most 5"),
    ({"a": -1}, Mapping[str, NonNegative], "numbers of at least 0 by name"),
    (3, Mapping[str, Any], "settings by name"),
    (
        "[",
        Pattern | None,
        "a regular expression that compiles, or None (unterminated character set at "
        "position 0)",
    ),
    (3, Stage | None, "a name, settings by name, True, or None"),
    (None, Inner, "settings by name, True"),
]


@pytest.mark.parametrize("value, annotation, words", BAD, ids=repr)
def test_what_does_not_fit_is_a_sentence(value, annotation, words):
    with pytest.raises(UserError) as caught:
        settings.check("a.b", value, annotation)
    assert str(caught.value).startswith(f"a.b={value!r} is not ")
    assert str(caught.value).endswith(words)


@pytest.mark.parametrize(
    "given, words",
    [
        ({"clases": 3}, r"m\.clases is no setting \(did you mean 'classes'\?\)"),
        ({"zzz": 3}, r"m\.zzz is no setting$"),
        ({}, r"m\.classes is not set"),
        ({"classes": 0}, r"m\.classes=0 is not"),
        ({"classes": 1, "stage": {"widht": 3}}, r"m\.stage\.widht .*'width'"),
        ({"classes": 1, "stage": "c"}, r"m\.stage='c' is not one of 'a', 'b'"),
        ({"classes": 1, "head": {"inner": {"depth": 0}}}, r"m\.head\.inner\.depth=0"),
        ({"classes": 1, "stage": False}, r"m\.stage=False is not"),
    ],
)
def test_keywords_are_checked_at_any_depth(given, words):
    with pytest.raises(UserError, match=words):
        settings.check_all("m", constructor, given)


def test_stages_are_made_of_what_stands_for_them():
    def made(**given):
        return settings.build(constructor, given)

    assert made(plain=3, stage=Stage(width=1)) == {"plain": 3, "stage": Stage(width=1)}
    assert made(stage={"width": 3})["stage"] == Stage(width=3)
    assert made(stage="b")["stage"] == Stage("b")
    assert made(head=True)["head"] == Stage()
    assert made(head=False)["head"] is made(head=None)["head"] is None
    assert made(stage={"inner": {"depth": 5}})["stage"].inner == Inner(5)
    assert made(stage={"inner": None})["stage"].inner is None


def test_a_dict_changes_the_default_of_what_is_made():
    wide = functools.partial(constructor, stage=Stage("b", 64, inner=Inner(7)))
    made = settings.build(wide, {"stage": {"sizes": (3,), "inner": {}}})
    assert made["stage"] == Stage("b", 64, (3,), Inner(7))


def test_an_earlier_name_may_be_that_of_several_settings():
    table = {"width": ("stage.width", "head.width"), "deep": "stage.inner.depth"}
    given = {"width": 3, "deep": 4, "plain": 1}
    assert earlier.renamed(constructor, table, given) == {
        "plain": 1,
        "stage": {"width": 3, "inner": {"depth": 4}},
    }
    assert earlier.renamed(constructor, table, {"head": "b", "width": 3}) == {
        "head": {"name": "b", "width": 3},
        "stage": {"width": 3},
    }


def annotations():
    """Every setting of every section, stages' included, with its annotation."""

    def of(path, *makers):
        for maker in makers:
            for name, parameter in experiment._keywords(path, maker).items():
                yield f"{path}.{name}", parameter.annotation
                stage = settings.stage_of(parameter.annotation)
                nested = () if stage is None else (stage,)
                inner = f"{path}.{name}"
                yield from of(inner, *experiment.NESTED.get(inner, nested))

    for name in models.MODELS:
        for section, makers in experiment.functions(name).items():
            yield from of(section, *makers)


def test_every_setting_says_what_it_may_be():
    for name, annotation in annotations():
        assert annotation is not Any, name
        assert settings.describe(annotation), name


def test_docstrings_say_what_settings_do():
    def function(*, one=1, two=2, three=3, four=4):
        """Something.

        one, two: numbers that
            go on here.
        three  as in a table,
               which goes on too

        And prose: four is not defined by it.
        """

    assert settings.described(function) == {
        "one": "numbers that go on here.",
        "two": "numbers that go on here.",
        "three": "as in a table, which goes on too",
    }
    assert settings.described(functools.partial(function, one=2))["three"]
