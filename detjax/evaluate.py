"""A model's metrics on a data set, whatever its task."""

import functools
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
import tqdm

from detjax import cluster, files, sharding
from detjax.predict import weights_checked
from detjax.preemption import Interrupted
from detjax.sharding import Layout
from detjax.types import Batch, Inputs, Model, Task


def predict_all(
    model: Model,
    task: Task,
    params: Any,
    state: Any,
    loader: Iterable[Batch],
    meter: Any,
    *,
    layout: Layout | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: bool = True,
) -> list[Any]:
    """Adds predictions for valid images to `meter`; returns all processes' parts.

    Every process reads its share of the images. Raises Interrupted once `stop()` is
    true.
    """
    layout = layout or sharding.make()
    params, state = layout.keep((params, state))
    predict = predictor(model.predict, task.shrink, layout)
    quiet = not progress or not cluster.primary()
    for batch in tqdm.tqdm(loader, disable=quiet, desc="evaluate", unit="batch"):
        if stop():
            raise Interrupted
        inputs = filled_up(batch.inputs, layout.local_shares)
        with weights_checked():
            answers = layout.local(predict(params, state, layout.put_inputs(inputs)))
        view = batch.inputs.view
        for i in np.flatnonzero(view.valid):
            found = task.restore(
                jax.tree.map(lambda x, i=i: x[i], answers),
                view.affine[i],
                tuple(view.sizes[i].tolist()),
                batch.inputs.images.shape[1:3],
            )
            meter.add(int(batch.index[i]), found)
    return cluster.gather(meter.parts)


@functools.lru_cache(maxsize=8)
def predictor(
    predict: Callable[[Any, Any, Inputs], Any],
    shrink: Callable[[Any], Any],
    layout: Layout,
) -> Callable[[Any, Any, Inputs], Any]:
    """A model's jitted `predict` and `shrink` on `layout`: (params, state, inputs).

    Cached by its arguments, so that only the first evaluation compiles.
    """

    @functools.partial(jax.jit, out_shardings=layout.by_image())
    def call(params, state, inputs):
        with layout.rows():
            return shrink(predict(layout.gather(params), state, inputs))

    return call


def filled_up(inputs: Inputs, shares: int) -> Inputs:
    """`inputs` padded with the last image until `shares` divides their number."""
    missing = -len(inputs.images) % shares
    return jax.tree.map(
        lambda x: np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]), inputs
    )


def write(
    workdir: str | pathlib.Path,
    metrics: Mapping[str, float],
    results: Mapping[str, Any],
) -> None:
    """Writes the metrics to eval.json, and a meter's result files."""
    workdir = pathlib.Path(workdir)
    text = json.dumps(metrics, indent=1, allow_nan=False)
    for name, content in results.items():
        files.write_text(workdir / name, json.dumps(content))
    # Last, so that the result files exist whenever the metrics do.
    files.write_text(workdir / "eval.json", text + "\n")
