"""Validation of settings by the types, ranges and choices in their annotations.

A setting is a keyword of a function, or a field of a stage: a frozen dataclass that
such a keyword holds, which groups the settings of one part of a model. Its annotation
says what it may be:

    steps: Count                      a whole number of at least 1
    momentum: Fraction = 0.9          a number between 0 and 1
    decay: Literal["cosine", "steps"]
    size: tuple[Count, Count] | None
    rpn: RPN | None = RPN()           a stage; None switches it off

`check` compares a value with its annotation; `build` makes stages of what configs hold.
"""

import dataclasses
import difflib
import functools
import inspect
import math
import numbers
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from detjax.errors import UserError


class Range(NamedTuple):
    """The numbers from `low` to `high`, both included unless they are `open`."""

    low: float | None = None
    high: float | None = None
    open: bool = False

    def misfit(self, value: Any) -> bool:
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return not (low < value < high if self.open else low <= value <= high)

    def words(self, one: str, many: str) -> tuple[str, str]:
        if self.high is None:
            said = f"above {self.low}" if self.open else f"of at least {self.low}"
        elif self.low is None:
            said = f"below {self.high}" if self.open else f"of at most {self.high}"
        else:
            said = f"between {self.low} and {self.high}"
        return f"{one} {said}", f"{many} {said}"


class Regex(NamedTuple):
    """Texts that compile as a regular expression."""

    def misfit(self, value: str) -> str | None:
        try:
            re.compile(value)
        except re.error as error:
            return str(error)
        return None

    def words(self, one: str, many: str) -> tuple[str, str]:
        return "a regular expression that compiles", "regular expressions that compile"


class OneOf(NamedTuple):
    """Texts that are one of `names`."""

    names: tuple[str, ...]

    def misfit(self, value: str) -> bool:
        return value not in self.names

    def words(self, one: str, many: str) -> tuple[str, str]:
        said = f"one of {', '.join(map(repr, self.names))}"
        return said, f"texts, each {said}"


class Rising(NamedTuple):
    """Two numbers of which the first is not the larger."""

    def misfit(self, value: Sequence[Any]) -> bool:
        return value[0] > value[1]

    def words(self, one: str, many: str) -> tuple[str, str]:
        return f"{one}, the smaller first", f"{many}, the smaller first"


class NotEmpty(NamedTuple):
    """Lists with a member."""

    def misfit(self, value: Sequence[Any]) -> bool:
        return not value

    def words(self, one: str, many: str) -> tuple[str, str]:
        return tuple(w.replace(" of ", " of one or more ", 1) for w in (one, many))  # type: ignore[return-value]


Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Seed = Annotated[int, Range(0, 2**63 - 1)]
Positive = Annotated[float, Range(0, open=True)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
Pattern = Annotated[str, Regex()]
Span = Annotated[tuple[Positive, Positive], Rising()]
Location = str | pathlib.Path
Dtype = Literal["float32", "bfloat16", "float16"]

NUMERALS = {1: "one", 2: "two", 3: "three", 4: "four"}


class _Misfit(Exception):
    """A value of the wrong kind; the text is a more specific reason."""


def check(name: str, value: Any, annotation: Any) -> Any:
    """`value` of the setting `name`, if it fits its `annotation`; lists become tuples.

    A stage may be given as settings by name, which are checked one by one; as a text,
    its name; as True, and as False or None where None switches it off. Numbers are
    finite, whole numbers are numbers too, and True is neither. A path is a text or a
    `Path`.

    Raises UserError with the name, the value and what it may be.
    """
    stage = stage_of(annotation)
    if stage is not None:
        if isinstance(value, Mapping):
            return check_all(name, stage, value)
        if isinstance(value, str) and "name" in keywords(stage):
            return {"name": check(name, value, keywords(stage)["name"].annotation)}
        if isinstance(value, stage) or value is True:
            return value
        if value is False and NoneType in _alternatives(annotation):
            return None
    reasons = []
    for kind in _alternatives(annotation):
        try:
            return _as(value, kind)
        except _Misfit as error:
            reasons += [f" ({error})"] if str(error) else []
    raise UserError(f"{name}={value!r} is not {describe(annotation)}{''.join(reasons)}")


def check_all(
    prefix: str, function: Callable[..., Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """`given`, each checked as a keyword of `function`.

    Raises UserError for one that it does not take, naming the nearest, and for one that
    it needs and that is missing.
    """
    known = keywords(function)
    for name in given:
        if name not in known:
            raise UserError(f"{prefix}.{name} is no setting{nearest(name, known)}")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in given:
            raise UserError(f"{prefix}.{name} is not set")
    return {
        name: check(f"{prefix}.{name}", value, known[name].annotation)
        for name, value in given.items()
    }


def keywords(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The settings of a function, or of a stage, by name."""
    parameters = inspect.signature(function).parameters
    if dataclasses.is_dataclass(function):
        return dict(parameters)
    return {n: p for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


# Of a docstring: "name: text", "one, other: text" or "name   text".
_DEFINED = re.compile(r"( *)(\w+(?:, \w+)*)(?:: +| {2,})(\S.*)")


def described(function: Callable[..., Any]) -> dict[str, str]:
    """What the docstring of a function, or of a stage, says of each of its settings.

    A definition goes on in lines that are indented further.
    """
    known, found, depth = keywords(function), {}, None
    names: list[str] = []
    for line in _documented(function).splitlines():
        defined = _DEFINED.fullmatch(line)
        given = defined[2].split(", ") if defined else []
        if defined and all(name in known for name in given):
            depth, names = len(defined[1]), given
            found.update(dict.fromkeys(names, defined[3].strip()))
        elif line.strip() and depth is not None and line.startswith(" " * (depth + 1)):
            for name in names:
                found[name] += f" {line.strip()}"
        else:
            depth = None
    return found


def _documented(function: Any) -> str:
    """The docstring, of what a partial calls."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.getdoc(function) or ""


def describe(annotation: Any) -> str:
    """What a setting of this annotation may be: 'a whole number of at least 1'."""
    *most, last = [_words(kind)[0] for kind in _alternatives(annotation)]
    return f"{', '.join(most)}, or {last}" if most else last


def nearest(name: Any, known: Iterable[str]) -> str:
    """The suggestion after an unknown name: the nearest known one, if any."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, UnionType):
        return [k for arg in get_args(annotation) for k in _alternatives(arg)]
    return [annotation]


def _as(value: Any, kind: Any) -> Any:
    """`value` as one of `kind`, which is no union; raises _Misfit."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        value = _as(value, args[0])
        for mark in args[1:]:
            misfit = mark.misfit(value)
            if misfit:
                raise _Misfit(misfit if isinstance(misfit, str) else "")
        return value
    if origin is Literal:
        fits = any(type(value) is type(arg) and value == arg for arg in args)
    elif origin in (tuple, list, Sequence):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise _Misfit
        if origin is tuple and args[-1] is not Ellipsis:
            if len(value) != len(args):
                raise _Misfit
            return tuple(_any(x, k) for x, k in zip(value, args, strict=True))
        return tuple(_any(x, args[0]) for x in value)
    elif origin is Mapping:
        if not isinstance(value, Mapping):
            raise _Misfit
        return {_any(k, args[0]): _any(v, args[1]) for k, v in value.items()}
    elif kind is bool:
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        fits = isinstance(value, bool)
    elif kind is int:
        fits = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    elif kind is float:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        fits = real and (isinstance(value, numbers.Integral) or math.isfinite(value))
    else:
        fits = kind is Any or isinstance(value, kind)
    if not fits:
        raise _Misfit
    return value


def _any(value: Any, annotation: Any) -> Any:
    """`value` as one of an annotation's kinds; raises _Misfit."""
    for kind in _alternatives(annotation):
        try:
            return _as(value, kind)
        except _Misfit as error:
            reason = error
    raise reason


def _words(kind: Any) -> tuple[str, str]:
    """Singular and plural of `kind`, which is not a union."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        words = _words(args[0])
        for mark in args[1:]:
            words = mark.words(*words)
        return words
    if origin is Literal:
        return OneOf(args).words("", "")
    if origin in (tuple, list, Sequence):
        kinds = [arg for arg in args if arg is not Ellipsis]
        several = [" or ".join(_words(k)[1] for k in _alternatives(a)) for a in kinds]
        if origin is not tuple or Ellipsis in args:
            return f"a list of {several[0]}", f"lists of {several[0]}"
        what = several[0] if len(set(several)) == 1 else " and ".join(several)
        count = NUMERALS.get(len(args), str(len(args)))
        return f"{count} {what}", f"lists of {count} {what}"
    if origin is Mapping:
        what = "settings" if args[1] is Any else _words(_alternatives(args[1])[0])[1]
        return f"{what} by name", f"{what} by name"
    if dataclasses.is_dataclass(kind):
        named = "a name, " if "name" in keywords(kind) else ""  # type: ignore[arg-type]
        return f"{named}settings by name, True", ""
    return {
        NoneType: ("None", "None"),
        bool: ("True or False", "True or False"),
        int: ("a whole number", "whole numbers"),
        float: ("a number", "numbers"),
        str: ("a text", "texts"),
        pathlib.Path: ("a path", "paths"),
        Any: ("anything", "anything"),
    }[kind]


def stage_of(annotation: Any) -> Any:
    """The dataclass that a setting of this annotation holds, if it holds one."""
    kinds = _alternatives(annotation)
    return next((k for k in kinds if dataclasses.is_dataclass(k)), None)


def build(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with stages built from their short forms.

    A mapping changes the settings that it names of the stage that `function` has by
    default, or of one with the stage's own defaults where that is None. A text is its
    `name`. True is the default stage, False and None are no stage.
    """
    parameters = keywords(function)
    made = dict(given)
    for name, value in given.items():
        stage = stage_of(parameters[name].annotation) if name in parameters else None
        if stage is None or isinstance(value, stage):
            continue
        if value is None or value is False:
            made[name] = None
            continue
        held = parameters[name].default
        held = held if isinstance(held, stage) else stage()
        if isinstance(value, str):
            value = {"name": value}
        made[name] = held if value is True else _changed(held, value)
    return made


def _changed(stage: Any, values: Mapping[str, Any]) -> Any:
    """`stage` with other `values`, those of its stages among them."""
    kind: Callable[..., Any] = type(stage)
    held = {f.name: getattr(stage, f.name) for f in dataclasses.fields(stage)}
    made = build(functools.partial(kind, **held), values)
    return dataclasses.replace(stage, **made)
