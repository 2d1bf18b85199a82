"""Translates settings with names of earlier versions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detjax import settings
from detjax.errors import UserError

Table = Mapping[str, str | tuple[str, ...]]


def renamed(
    function: Callable[..., Any], table: Table, given: Mapping[str, Any]
) -> dict[str, Any]:
    """`given` by the present names of the settings of `function`.

    `table` has the dotted path now of every earlier name, or several. At the path of a
    stage stands what switches it on or off; the settings of a stage that is off are
    left out.

    Raises UserError where one setting is given by both names.
    """
    made = _copy({name: value for name, value in given.items() if name not in table})
    earlier = [(p, name) for name in table if name in given for p in paths(table[name])]
    for path, name in earlier:
        if _holds(made, path.split(".")):
            raise UserError(
                f"model.{name}={given[name]!r} is the earlier name of model.{path}, "
                f"which is set too; leave {name} out"
            )
    # Stages first: whether they are there decides on their settings.
    for path, name in sorted(earlier, key=lambda item: item[0].count(".")):
        _put(function, made, path.split("."), given[name])
    return made


def paths(held: str | tuple[str, ...]) -> tuple[str, ...]:
    """The paths of an entry of a table."""
    return (held,) if isinstance(held, str) else held


def _put(
    function: Callable[..., Any], held: dict[str, Any], path: list[str], value: Any
) -> None:
    """Sets `value` at `path` in the settings `held`, where its stage is on."""
    first, *rest = path
    if not rest:
        held[first] = value
        return
    parameter = settings.keywords(function).get(first)
    stage = held.get(first, parameter and parameter.default)
    if parameter is None or stage is None or stage is False:
        return
    if not isinstance(held.get(first), dict):
        held[first] = {"name": stage} if isinstance(stage, str) else {}
    _put(settings.stage_of(parameter.annotation), held[first], rest, value)


def _holds(given: Any, path: Sequence[str]) -> bool:
    """Whether there is a value at `path` in nested dicts."""
    for name in path:
        if not isinstance(given, Mapping) or name not in given:
            return False
        given = given[name]
    return True


def _copy(given: Any) -> Any:
    """Nested mappings as dicts of their own."""
    if isinstance(given, Mapping):
        return {name: _copy(value) for name, value in given.items()}
    return given
