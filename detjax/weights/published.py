"""From a published weight file to a folder that predicts and that runs start from."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from detjax import backbones, models
from detjax.checkpoint import Checkpoints, TrainState
from detjax.weights import convert
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

    `kwargs` are the constructor's, such as another `num_classes`. What `allow` (a
    regular expression over the file's names) leaves out is freshly initialised and
    listed in the report. Raises ValueError where the file does not fit.
    """
    state_dict = convert.read(path)
    image = jnp.zeros((1, 64, 64, 3), jnp.uint8)
    classes = None
    if model in models.MODELS:
        made = models.make(model, **kwargs)
        classes = made.net.num_classes
        image = jnp.zeros((1, 256, 256, 3), jnp.uint8)
        init = made.init
    else:
        net = backbones.make(model, **{"num_classes": 1000, **kwargs})

        def init(key, image):
            variables = net.init(key, image.astype(jnp.float32))
            return variables.pop("params"), variables

    key = jax.random.key(0, impl="rbg")
    # Nothing is drawn where nothing may be left at its initialisation.
    fresh = jax.jit(init)(key, image) if allow else jax.eval_shape(init, key, image)
    return convert.load(state_dict, *fresh, source=source, classes=classes, allow=allow)


def save(out: str | pathlib.Path, params: Any, state: Any) -> None:
    """Writes weights as a checkpoint of step 0, which `restore` and a run can read."""
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
