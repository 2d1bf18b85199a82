"""Published weight files as checkpoints, for prediction and for initialising runs."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from detjax import backbones, models
from detjax.backbones.facts import FACTS
from detjax.checkpoint import Checkpoints, TrainState
from detjax.errors import UserError
from detjax.types import Model
from detjax.weights import convert, names, read
from detjax.weights.convert import Report


def load(
    path: str | pathlib.Path,
    *,
    source: str,
    model: str,
    allow: str | None = None,
    **kwargs: Any,
) -> tuple[Any, Any, Report]:
    """Params and state of the model or backbone called `model` from a torch file.

    `kwargs` are the constructor's, such as another `num_classes`. Parameters excepted
    by `allow` (a regular expression over the file's names) are freshly initialised and
    listed in the report; so are auxiliary heads, which exist in training alone, where
    the file has nothing of them. Raises UserError that names the file if it does not
    fit.
    """
    check_names(source, model)
    # Before initialising parameters, which is slow.
    read.matches(allow, "--allow")
    state_dict = read.state_dict(path)
    classes = None
    if model in models.MODELS:
        made = models.make(model, **kwargs)
        classes = getattr(made.net, "num_classes", None)
        image = jnp.zeros((1, 256, 256, 3), jnp.uint8)
        init = made.init
        absent = _auxiliary(made, image, convert.renamed(state_dict, source), source)
        if absent:
            allow = f"(?:{allow})|{absent}" if allow else absent
    else:
        fact = FACTS[model]
        implied = backbones.implied(model, state_dict)
        net = backbones.make(
            model, **{"num_classes": fact.classes, **implied, **kwargs}
        )
        # Layers on a flattened map are for images of this size.
        image = jnp.zeros((1, fact.side, fact.side, 3), jnp.uint8)

        def init(key, image):
            variables = net.init(key, image.astype(jnp.float32))
            return variables.pop("params"), variables

    key = jax.random.key(0, impl="rbg")
    # Without `allow` all parameters are imported and none is initialised.
    fresh = jax.jit(init)(key, image) if allow else jax.eval_shape(init, key, image)
    kind = {"source": source, "classes": classes, "allow": allow}
    try:
        return convert.load(state_dict, *fresh, **kind)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _auxiliary(
    model: Model, image: Any, held: Mapping[str, Any], source: str
) -> str | None:
    """A pattern of the file's names for `model`'s auxiliary heads, if it has none."""
    group = model.spec.groups.get("auxiliary")
    if group is None:
        return None
    params, state = jax.eval_shape(model.init, jax.random.key(0), image)
    flat = traverse_util.flatten_dict({"params": params, **state})
    paths = [".".join(path[1:]) for path in flat]
    keys = [names.spell(name, source) for name in paths if re.search(group, name)]
    if not keys or any(key in held for key in keys):
        return None
    return "^(?:" + "|".join(map(re.escape, keys)) + ")$"


def check_names(source: str, model: str) -> None:
    """Raises UserError for an unknown source, model or backbone."""
    known = [*models.MODELS, *backbones.FAMILIES]
    for kind, given, choices in (
        ("source", source, [*names.SOURCES]),
        ("model or backbone", model, known),
    ):
        if given not in choices:
            raise UserError(
                f"no {kind} is called {given!r}; choose one of {', '.join(choices)}"
            )


def save(out: str | pathlib.Path, params: Any, state: Any) -> None:
    """Writes weights as a checkpoint of step 0."""
    checkpoints = Checkpoints(out)
    checkpoints.save(
        0,
        TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            state=state,
            opt_state={},
            key=jax.random.key_data(jax.random.key(0)),
        ),
        {},
    )
    checkpoints.close()
