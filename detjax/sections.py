"""A config's sections: settings from files and flags, not checked yet."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from detjax.models.earlier import Table, paths


class Shape(NamedTuple):
    """The settings of a section by name, with the shapes of nested ones.

    `earlier` maps names of earlier versions; `name` is the section's.
    """

    settings: Mapping[str, "Shape | None"]
    earlier: Callable[[Any], Table] = lambda name: {}


class Section(ConfigDict):
    """Settings of a `Shape`, of which files and flags can set any to any value.

    A dict replaces what a setting holds. For a stage, a text sets its name and keeps
    the rest, and True leaves it as it is. A setting of a stage can be set before the
    stage is: `c.model.rescore.weight = 20`. Setting an earlier name replaces the value
    of the present one.
    """

    def __init__(
        self,
        given: Any = None,
        *_: Any,
        shape: Shape | None = None,
        place: tuple["Section", str] | None = None,
        **__: Any,
    ):
        # A setting may be any mapping, such as regular expressions to numbers.
        super().__init__(type_safe=False, allow_dotted_keys=shape is None)
        object.__setattr__(self, "_shape", shape or Shape({}))
        object.__setattr__(self, "_place", place)
        for key, value in (given or {}).items():
            self._hold(key, value)

    def __setitem__(self, key: str, value: Any) -> None:
        now = paths(self._shape.earlier(self._fields.get("name")).get(key, ()))
        if not now:
            self._hold(key, value)
            return
        self._fields.pop(key, None)
        for path in now:
            if "." in path:
                self._drop(path.split("."))
                self._hold(key, value)
            else:
                self._hold(path, value)

    def __getitem__(self, key: str) -> Any:
        shape = self._shape.settings.get(key)
        if shape is None or key in self._fields:
            return super().__getitem__(key)
        return Section(shape=shape, place=(self, key))

    def update(self, *others: Mapping[str, Any], **settings: Any) -> None:
        """Sets what the others hold; mappings join those that are held already."""
        for other in (*others, settings):
            for key, value in other.items():
                held = self._fields.get(key)
                if isinstance(value, Mapping | ConfigDict) and isinstance(
                    held, Section
                ):
                    held.update(value)
                else:
                    self[key] = value

    def __deepcopy__(self, memo: Any) -> "Section":
        return Section(self.to_dict(), shape=self._shape)

    def get_type(self, key: str) -> type:
        """Parses a flag's value: any Python literal, or text."""
        return object

    def _hold(self, key: str, value: Any) -> None:
        shape, held = self._shape.settings.get(key), self._fields.get(key)
        if isinstance(value, Mapping | ConfigDict):
            value = Section(value, shape=shape)
        elif isinstance(value, str) and shape and "name" in shape.settings:
            named = held if isinstance(held, Section) else Section(shape=shape)
            named._hold("name", value)
            value = named
        elif value is True and isinstance(held, Section):
            value = held
        self._attach(key, value)

    def _attach(self, key: str, value: Any) -> None:
        self._fields[key] = value
        if self._place:
            outer, name = self._place
            object.__setattr__(self, "_place", None)
            outer._attach(name, self)

    def _drop(self, path: list[str]) -> None:
        """Deletes the value at `path`."""
        held = self._fields.get(path[0])
        if len(path) == 1:
            self._fields.pop(path[0], None)
        elif isinstance(held, Section):
            held._drop(path[1:])
