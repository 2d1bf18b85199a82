"""A config's sections: what may be set in them, and what an experiment makes of that.

A config holds what was set. Defaults live in the signatures of the functions whose
keywords the sections hold; they are resolved after the flags, against the constructor
that `model.name` names then.
"""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from detjax import evaluate, models, optim, sharding, train
from detjax.data import augment, dataset
from detjax.errors import UserError

Settings = dict[str, dict[str, Any]]

# Whose keywords a section holds; the model's is the constructor of its name.
SECTIONS: dict[str, Callable[..., Any]] = {
    "data": dataset.make,
    "optimizer": optim.make,
    "eval": evaluate.evaluate,
    "sharding": sharding.make,
    "train": train.fit,
}
# Settings that hold the keywords of a function of their own.
NESTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("optimizer", "schedule"): optim.learning_rate,
    ("data", "augment"): augment.augment,
}
# Keywords that no config can hold.
NOT_SETTINGS = ("begun", "devices", "evaluate", "layout", "profile", "progress")
# Keywords that a run gives itself.
OF_THE_RUN = {
    "optimizer": ("steps",),
    "optimizer.schedule": ("steps",),
    "eval": ("classes", "category_ids"),
    "train": ("workdir",),
}


class _Unset:
    """The value of a setting that neither the config's file nor a flag has set."""

    def __repr__(self) -> str:
        return "default"

    def __deepcopy__(self, memo: Any) -> "_Unset":
        return self


UNSET = _Unset()


def config(sections: Mapping[str, Mapping[str, Any]]) -> ConfigDict:
    """A config of `sections`, in which a flag can set whatever they leave out.

    A setting that the sections do not name takes any literal of Python, or text.
    """
    filled = ConfigDict(sections)
    for section in ("model", *SECTIONS):
        if section not in filled:
            filled[section] = {}
        _leave_open(filled[section], _known(section))
    for (section, name), function in NESTED.items():
        if isinstance(filled[section].get(name), ConfigDict):
            _leave_open(filled[section][name], _settings(f"{section}.{name}", function))
    return filled


def resolve(config: ConfigDict) -> Settings:
    """What `config` sets, section by section: the keywords of the sections' functions.

    Raises UserError for a section or a setting that there is not, naming the nearest,
    and for one that is needed and missing.
    """
    if not isinstance(config, Mapping | ConfigDict):
        raise UserError(
            f"the config's get_config() returned {type(config).__name__}, not a "
            "config; return experiment.config({...})"
        )
    settings: Settings = {}
    for section in ("model", *SECTIONS):
        held = config.get(section)
        if held is None:
            held = {}
        if not isinstance(held, Mapping | ConfigDict):
            raise UserError(f"the config's section {section!r} is {held!r}, not a dict")
        settings[section] = plain(held)
    unknown = [name for name in config if name not in settings]
    if unknown:
        raise UserError(
            f"the config has a section {unknown[0]!r} that nothing reads"
            f"{nearest(unknown[0], settings)}; sections are {', '.join(settings)}"
        )
    name = settings["model"].get("name")
    if name not in models.MODELS:
        raise UserError(
            f"model.name={name!r} is no model{nearest(str(name), models.MODELS)}; "
            f"choose one of {', '.join(sorted(models.MODELS))}"
        )
    functions = {"model": models.MODELS[name], **SECTIONS}
    for section, function in functions.items():
        check_keywords(section, function, settings[section])
    for (section, name), function in NESTED.items():
        if isinstance(settings[section].get(name), Mapping):
            check_keywords(f"{section}.{name}", function, settings[section][name])
    return settings


def complete(settings: Settings) -> Settings:
    """`settings` with the defaults of everything that they leave out."""
    functions = {"model": models.MODELS[settings["model"]["name"]], **SECTIONS}
    return {
        section: {**_defaults(section, function), **settings[section]}
        for section, function in functions.items()
    }


def plain(section: Mapping[str, Any] | ConfigDict) -> dict[str, Any]:
    """What is set in a section, as nested dicts of plain values."""
    return {
        key: plain(value) if isinstance(value, ConfigDict) else value
        for key, value in section.items()
        if value is not UNSET
    }


def changes(
    before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[Any, Any]]:
    """The values before and now of every setting that differs, by dotted name.

    Both are as JSON holds them.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for key in [*before, *(key for key in now if key not in before)]:
        was, wanted = before.get(key), now.get(key)
        if isinstance(was, Mapping) and isinstance(wanted, Mapping):
            found |= changes(was, wanted, f"{prefix}{key}.")
        elif was != wanted:
            found[f"{prefix}{key}"] = was, wanted
    return found


def nearest(name: str, known: Any) -> str:
    """What follows the name of something unknown: the nearest there is, if any is."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _leave_open(section: ConfigDict, names: Any) -> None:
    """Gives a section a field for each of the names that it does not hold."""
    for name in names:
        if name not in section:
            section[name] = config_dict.FieldReference(UNSET, field_type=object)


def _settings(section: str, function: Callable[..., Any]) -> dict[str, Any]:
    """The parameters of `function` that a section may set, by name."""
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
        and name not in (*NOT_SETTINGS, *OF_THE_RUN.get(section, ()))
    }


@functools.cache
def _known(section: str) -> tuple[str, ...]:
    """The settings of a section; of the model's, those of every constructor."""
    functions = [*models.MODELS.values()] if section == "model" else [SECTIONS[section]]
    names = (name for function in functions for name in _settings(section, function))
    return tuple(dict.fromkeys(names))


def _defaults(section: str, function: Callable[..., Any]) -> dict[str, Any]:
    """What the settings of a section are that nobody sets."""
    return {
        name: parameter.default
        for name, parameter in _settings(section, function).items()
        if parameter.default is not parameter.empty
    }


def check_keywords(
    section: str, function: Callable[..., Any], given: Mapping[str, Any]
) -> None:
    """Raises UserError where `given` are not the keywords that `function` wants."""
    wanted = _settings(section, function)
    whose = f" of {given['name']}" if section == "model" else ""
    for name in given:
        if name not in wanted and (section, name) != ("model", "name"):
            raise UserError(
                f"{section}.{name} is no setting{whose}{nearest(name, wanted)}"
            )
    for name, parameter in wanted.items():
        optional = parameter.default is not parameter.empty or name == "num_classes"
        if name not in given and not optional:
            raise UserError(f"{section}.{name} is not set; set it in the config")
