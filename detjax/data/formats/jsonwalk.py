"""Incremental parsing of the lists of a JSON file, row by row."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detjax import files
from detjax.errors import UserError

# The callback for a row: the row, and where its text begins and ends.
Take = Callable[[Any, int, int], None]

_DECODE = json.JSONDecoder()
_space = re.compile(r"[ \t\n\r]*").match
_ADVICE = "mend it or get it again"


def walk(path: Path, takes: Mapping[str, Take], what: str) -> str:
    """The text of the JSON file `path`; calls `takes` for each row of its lists.

    Raises UserError with line and column for invalid JSON, and one that ends with
    `what` if it is not an object with all of these lists of objects.
    """
    text = files.read_text(path)
    try:
        found = _walk(text, takes)
    except json.JSONDecodeError as error:
        raise files.not_json(path, error, _ADVICE) from None
    except _NoList as error:
        raise UserError(f"{path} has no list of {error}; {what}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except RecursionError:
        raise UserError(
            f"{path} cannot be read as JSON: lists in lists without end; {_ADVICE}"
        ) from None
    except ValueError as error:
        if "digits" not in str(error):
            raise
        raise UserError(
            f"{path} cannot be read as JSON: a number of thousands of digits; {_ADVICE}"
        ) from None
    for name in takes:
        if name not in found:
            raise UserError(f"{path} has no list of {name}; {what}")
    return text


class _NoList(Exception):
    """A member, by its name, that is not a list of objects."""


def _walk(text: str, takes: Mapping[str, Take]) -> set[str]:
    """The names of the lists found in `text`, after calling `takes` row by row."""
    at, found = _after(text, 0), set()
    if text[at : at + 1] != "{":
        _end(text, _DECODE.raw_decode(text, at)[1])
        raise _NoList(next(iter(takes)))
    at = _after(text, at + 1)
    closed = text[at : at + 1] == "}"
    at += closed
    while not closed:
        if text[at : at + 1] != '"':
            what = "Expecting property name enclosed in double quotes"
            raise json.JSONDecodeError(what, text, at)
        name, at = _DECODE.raw_decode(text, at)
        at = _after(text, at)
        if text[at : at + 1] != ":":
            raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
        at = _after(text, at + 1)
        if name in takes:
            if name in found:
                raise UserError(f"it has {name!r} twice")
            at = _rows(text, at, name, takes[name])
            found.add(name)
        else:
            _, at = _DECODE.raw_decode(text, at)
        at, closed = _next(text, at, "}")
    _end(text, at)
    return found


def _rows(text: str, at: int, name: str, take: Take) -> int:
    """The end of the list that begins at `at`, after calling back for its rows."""
    if text[at : at + 1] != "[":
        _DECODE.raw_decode(text, at)
        raise _NoList(name)
    at = _after(text, at + 1)
    if text[at : at + 1] == "]":
        return at + 1
    closed = False
    while not closed:
        row, end = _DECODE.raw_decode(text, at)
        if not isinstance(row, dict):
            raise _NoList(name)
        take(row, at, end)
        at, closed = _next(text, end, "]")
    return at


def _next(text: str, at: int, closing: str) -> tuple[int, bool]:
    """The position after the comma or the `closing` bracket, and which it was."""
    at = _after(text, at)
    if text[at : at + 1] == closing:
        return at + 1, True
    if text[at : at + 1] != ",":
        raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    return _after(text, at + 1), False


def _after(text: str, at: int) -> int:
    return _space(text, at).end()


def _end(text: str, at: int) -> None:
    at = _after(text, at)
    if at < len(text):
        raise json.JSONDecodeError("Extra data", text, at)
