"""The views of `scripts/explain.py`: which there are, their options, and their call.

A view is a module of `explain.views` with a function

    view(trained, images, out, *, option: kind = default, ...) -> paths

whose annotations and docstring are all that is said of its options.
"""

import ast
import importlib
import inspect
import pathlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from detjax import draw, models, predict, settings
from detjax.data import builder, example
from detjax.data.records import Unreadable
from detjax.errors import UserError
from detjax.explain import views
from detjax.predict import TrainedModel
from detjax.predict_paths import pictures_of

# (trained, images, out, **options) -> the files that were written
View = Callable[..., list[pathlib.Path]]
FOLDER = "pictures"  # the folder of pictures of the data set
TRIES = 4  # records that are tried for each picture, where some cannot be read


def names() -> list[str]:
    """The names of all views."""
    found = (module.name for module in pkgutil.iter_modules(views.__path__))
    # What several of them share is a module beside them.
    return sorted(name for name in found if hasattr(_module(name), "view"))


def view(name: str) -> View:
    """The view called `name`. Raises UserError for another, with the nearest."""
    if name not in names():
        raise UserError(
            f"{name!r} is no view{settings.nearest(name, names())}; there are "
            f"{', '.join(names())}"
        )
    return _module(name).view


def needs_pictures(name: str) -> bool:
    """Whether the view called `name` is of pictures; if its `PICTURES` is not False."""
    return getattr(_module(name), "PICTURES", True)


def _module(name: str) -> Any:
    return importlib.import_module(f"{views.__name__}.{name}")


def summary(name: str) -> str:
    """The first sentence of what the view called `name` draws."""
    return (inspect.getdoc(view(name)) or "").partition("\n")[0]


def switches(chosen: Iterable[str]) -> set[str]:
    """The options of the views in `chosen` that are on or off."""
    return {
        key
        for name in chosen
        for key, parameter in settings.keywords(view(name)).items()
        if parameter.annotation is bool
    }


def parsed(name: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Options of the view called `name` from texts, as a command line has them.

    A text that is no number, list or None stays one; a list may go without brackets.
    Raises UserError for an option that there is not, and for one that does not fit.
    """
    known, found = settings.keywords(view(name)), {}
    for key, text in given.items():
        if key not in known:
            raise UserError(
                f"--{key} is no option of {name}{settings.nearest(key, known)}; it has "
                f"{', '.join(known)}"
            )
        kind = known[key].annotation
        read = _literal(text)
        try:
            found[key] = settings.check(key, read, kind)
        except UserError as error:
            # A name may look like a number, and a list have a single member.
            for other in (text, tuple(text.split(",")), (read,)):
                try:
                    found[key] = settings.check(key, other, kind)
                    break
                except UserError:
                    continue
            else:
                raise error from None
    return found


def explain(
    name: str,
    workdir: str | pathlib.Path,
    out: str | pathlib.Path,
    pictures: Sequence[str | pathlib.Path] = (),
    *,
    best: bool = False,
    count: int = 4,
    **options: Any,
) -> list[pathlib.Path]:
    """What the view called `name` draws of a run into `out`; the paths of the files.

    pictures: files, and folders of them. Without any the first `count` of the run's
        evaluation split, which are written to `out` too.
    options: of the view.

    Raises UserError for an unknown view, where there is no run, and where a picture
    cannot be read.
    """
    draws = view(name)
    options = settings.check_all(name, draws, options)
    trained = visible(predict.load(workdir, best))
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    if pictures:
        found, _ = pictures_of(pictures)
        if not found:
            raise UserError(f"there is no picture in {', '.join(map(str, pictures))}")
    elif not needs_pictures(name):
        found = []
    else:
        found = of_data_set(trained, folder / FOLDER, count)
    return draws(trained, found, folder, **options)


def visible(trained: TrainedModel) -> TrainedModel:
    """`trained` without rematerialisation, whose layers have no value outside."""
    settings_of_model = dict(trained.config["model"])
    backbone = settings_of_model.get("backbone")
    if not isinstance(backbone, Mapping) or not backbone.get("remat"):
        return trained
    settings_of_model["backbone"] = {**backbone, "remat": False}
    return trained._replace(model=models.make(**settings_of_model))


def of_data_set(
    trained: TrainedModel, folder: pathlib.Path, count: int
) -> list[pathlib.Path]:
    """The first `count` pictures of the run's evaluation split, written to `folder`.

    Raises UserError where the data set is not there: give pictures then.
    """
    data = trained.config["data"]
    split = data.get("eval_split") or "val"
    try:
        records = builder.source(
            data["name"], data.get("data_dir", "datasets"), split, trained.task
        )
    except (UserError, KeyError) as error:
        raise UserError(
            f"{error}; without the run's data set, name pictures after the flags"
        ) from None
    folder.mkdir(parents=True, exist_ok=True)
    found: list[pathlib.Path] = []
    for place in range(min(len(records), TRIES * count)):
        if len(found) == count:
            break
        try:
            picture = example.read(records[place])
        except Unreadable:
            continue
        found.append(folder / f"{place:05d}.png")
        draw.save(found[-1], picture)
    return found


def usage(chosen: Iterable[str]) -> str:
    """What the views in `chosen` draw, and their options."""
    lines = []
    for name in chosen:
        lines.append(f"  {name}: {summary(name)}")
        said = settings.described(view(name))
        for key, parameter in settings.keywords(view(name)).items():
            kind = settings.describe(parameter.annotation)
            usual = parameter.default
            shown = "" if usual is parameter.empty else f" [{usual!r}]"
            lines.append(f"    --{key}: {said.get(key, '')} ({kind}){shown}")
    return "\n".join(lines)


def _literal(text: str) -> Any:
    """What Python reads `text` as; the text itself where that is nothing."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
