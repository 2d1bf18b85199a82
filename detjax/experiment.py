"""Resolves and checks the sections of a config.

A config holds explicit settings only. Defaults live in the signatures of the functions
whose keywords the sections hold; they are resolved after the flags, for the constructor
selected by `model.name`.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from detjax import evaluate, models, optim, settings, sharding, tasks, train, tta
from detjax.data import augment, blends, dataset, mosaic, prepare
from detjax.errors import UserError
from detjax.models.earlier import paths
from detjax.sections import Section, Shape
from detjax.settings import nearest

Settings = dict[str, dict[str, Any]]
Function = Callable[..., Any]

SECTIONS = ("model", "data", "optimizer", "eval", "sharding", "train")
FORMATS: dict[str, Function] = {
    name: module.catalogues for name, module in prepare.FORMATS.items()
}
# Settings that hold keywords of further functions.
NESTED: dict[str, tuple[Function, ...]] = {
    "optimizer.schedule": (optim.learning_rate,),
    "data.augment": (augment.augment, mosaic.mosaic, blends.blends),
    "data.prepare": (prepare.prepare, *FORMATS.values()),
}
# Keywords that cannot be set in a config.
NOT_SETTINGS = (
    "begun",
    "devices",
    "evaluate",
    "evaluated",
    "kept",
    "meter",
    "layout",
    "log",
    "opened",
    "profile",
    "progress",
    "stop",
    "warnings",
)
# Keywords that the run supplies.
OF_THE_RUN = {
    "optimizer": ("steps", "groups"),
    "optimizer.schedule": ("steps",),
    "train": ("workdir",),
}


def functions(name: str) -> dict[str, tuple[Function, ...]]:
    """The functions whose keywords the sections hold, for the model called `name`."""
    task = tasks.TASKS[models.task_of(name)]
    return {
        "model": (models.MODELS[name], models.wrapped),
        "data": (dataset.make, task.targets),
        "optimizer": (optim.make,),
        "eval": (task.meter, evaluate.measure, tta.augmented),
        "sharding": (sharding.make,),
        "train": (train.fit,),
    }


def config(sections: Mapping[str, Mapping[str, Any]]) -> ConfigDict:
    """A config of `sections`, in which flags can also set what they omit."""
    return Section(sections, shape=shape())


@functools.cache
def shape() -> Shape:
    """The settings of a config, for any model."""
    held: dict[str, Shape] = {section: Shape({}) for section in SECTIONS}
    for name in models.MODELS:
        for section, makers in functions(name).items():
            held[section] = _joined(held[section], _shape(section, *makers))
    names = {**held["model"].settings, "name": None}
    model = Shape(names, lambda name: models.EARLIER.get(str(name), {}))
    return Shape({**held, "model": model})


@functools.cache
def _shape(path: str, *makers: Function) -> Shape:
    """The settings that `makers` take as keywords, with nested ones."""
    found: dict[str, Shape | None] = {}
    for name, parameter in _keywords(path, *makers).items():
        stage = settings.stage_of(parameter.annotation)
        inner = NESTED.get(f"{path}.{name}", () if stage is None else (stage,))
        found[name] = _shape(f"{path}.{name}", *inner) if inner else None
    return Shape(found)


def _joined(one: Shape | None, other: Shape | None) -> Shape | None:
    """The union of the settings of both."""
    if one is None or other is None:
        return one or other
    found = dict(one.settings)
    for name, shape in other.settings.items():
        found[name] = _joined(found.get(name), shape)
    return Shape(found)


def resolve(config: ConfigDict) -> Settings:
    """The settings of `config` by section: the keywords of the sections' functions.

    Checks everything that does not need data. Raises UserError for an unknown section
    or setting, naming the nearest, for a missing required one, for an invalid value,
    and for inconsistent settings.
    """
    if not isinstance(config, Mapping | ConfigDict):
        raise UserError(
            f"the config's get_config() returned {type(config).__name__}, not a "
            "config; return experiment.config({...})"
        )
    held: Settings = {}
    for section in SECTIONS:
        value = config.get(section)
        value = {} if value is None else value
        if not isinstance(value, Mapping | ConfigDict):
            raise UserError(
                f"the config's section {section!r} is {value!r}, not a dict"
            )
        held[section] = plain(value)
    unknown = [name for name in config if name not in held]
    if unknown:
        raise UserError(
            f"the config has a section {unknown[0]!r} that nothing reads"
            f"{nearest(unknown[0], held)}; sections are {', '.join(held)}"
        )
    return check(held)


def check(held: Settings) -> Settings:
    """The settings that are `held`, checked, by their present names, tuples as such."""
    name = held["model"].get("name")
    if not isinstance(name, str) or name not in models.MODELS:
        raise UserError(
            f"model.name={name!r} is no model{nearest(name, models.MODELS)}; "
            f"choose one of {', '.join(sorted(models.MODELS))}"
        )
    checked = {"model": {"name": name, **_check_model(name, held["model"])}}
    for section, makers in functions(name).items():
        if section != "model":
            checked[section] = _check(section, makers, held[section])
    # Makers check the consistency of their settings.
    parameter = settings.keywords(models.MODELS[name]).get("num_classes")
    # The data set's are not known yet.
    unknown = parameter is not None and parameter.default is parameter.empty
    models.make(**({"num_classes": 1} if unknown else {}) | checked["model"])
    optim.make(**checked["optimizer"], steps=checked["train"]["steps"])
    return checked


def _check_model(name: str, held: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the model called `name`, checked, by their present names."""
    given = {key: value for key, value in held.items() if key != "name"}
    table = models.EARLIER.get(name, {})
    now = models.current(name, given)
    try:
        return _check("model", (models.MODELS[name], models.wrapped), now)
    except UserError as error:
        # The message uses the name that was given.
        said = str(error)
        for earlier in table:
            for path in paths(table[earlier]) if earlier in given else ():
                if said.startswith(f"model.{path}="):
                    raise UserError(
                        said.replace(f"model.{path}=", f"model.{earlier}=", 1)
                    ) from None
        raise


def _check(
    path: str, makers: Sequence[Function], held: Mapping[str, Any]
) -> dict[str, Any]:
    """`held`, checked as the keywords of `makers`: a section, or a setting of one."""
    if path == "data.prepare":
        # Besides its own there are the keywords of its format.
        format = settings.check(f"{path}.format", held.get("format"), prepare.Format)
        makers = (prepare.prepare, FORMATS[format])
    wanted = _keywords(path, *makers)
    checked = {}
    for name, value in held.items():
        inner = f"{path}.{name}"
        if name not in wanted:
            raise UserError(f"{inner} is no setting{nearest(name, wanted)}")
        if inner in NESTED and isinstance(value, Mapping):
            checked[name] = _check(inner, NESTED[inner], value)
        else:
            checked[name] = settings.check(inner, value, wanted[name].annotation)
    for name, parameter in wanted.items():
        optional = parameter.default is not parameter.empty or name == "num_classes"
        if name not in held and not optional:
            raise UserError(f"{path}.{name} is not set; set it in the config")
    return checked


def complete(held: Settings) -> Settings:
    """`held` with defaults for everything omitted; stages become dicts.

    Raises UserError for invalid settings of the model.
    """
    name = held["model"]["name"]
    completed = {}
    for section, makers in functions(name).items():
        known = _keywords(section, *makers)
        usual = {k: p.default for k, p in known.items() if p.default is not p.empty}
        if section == "model":
            given = _check_model(name, held["model"])
            made = settings.build(makers[0], {**usual, **given})
            completed[section] = {"name": name, **_without_stages(made)}
        else:
            completed[section] = {**usual, **held[section]}
    return completed


def _without_stages(held: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
        for key, value in held.items()
    }


def plain(section: Mapping[str, Any] | ConfigDict) -> dict[str, Any]:
    """The settings of a section, as nested dicts of plain values."""
    return {
        key: plain(value) if isinstance(value, Mapping | ConfigDict) else value
        for key, value in section.items()
    }


def changes(
    before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[Any, Any]]:
    """The old and new values of every setting that differs, by dotted name.

    Both are JSON values.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for key in [*before, *(key for key in now if key not in before)]:
        was, wanted = before.get(key), now.get(key)
        if isinstance(was, Mapping) and isinstance(wanted, Mapping):
            found |= changes(was, wanted, f"{prefix}{key}.")
        elif was != wanted:
            found[f"{prefix}{key}"] = was, wanted
    return found


def _keywords(path: str, *makers: Function) -> dict[str, inspect.Parameter]:
    """The parameters of `makers` that the section or setting at `path` may set."""
    hidden = (*NOT_SETTINGS, *OF_THE_RUN.get(path, ()))
    known = {k: p for maker in makers for k, p in settings.keywords(maker).items()}
    return {name: known[name] for name in known if name not in hidden}
