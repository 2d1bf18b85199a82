"""Features of a data set under a network: one pass, kept in a file.

    n images, d features

For a classifier they are what its last layer reads, for other networks the mean over
places of the backbone's coarsest map.
"""

import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from flax import linen

from detjax import answers, files, parameters
from detjax.errors import UserError
from detjax.sharding import Layout
from detjax.types import Batch, Inputs, Model

FOLDER = "features"


class Embedded(NamedTuple):
    """The features of the images of a split."""

    features: np.ndarray  # [n v d] float32, in a file
    labels: np.ndarray  # [n] int32: the class; -1 where there is none, or several


def last_layer(model: Model, params: Any) -> tuple[str, ...] | None:
    """The path of the layer that makes a classifier's logits; None for other models.

    It is the one of the group "head" whose kernel has an output for every class.
    """
    pattern = model.spec.groups.get(parameters.HEAD)
    if pattern is None or model.spec.task != "classification":
        return None
    found = None
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = tuple(str(p.key) for p in path)
        fits = names[-1] == "kernel" and leaf.shape[-1] == model.spec.outputs
        if fits and re.search(pattern, ".".join(names)):
            found = names[:-1]
    return found


def embed(
    model: Model, params: Any, mirrored: bool = False
) -> Callable[[Any, Any, Inputs], jax.Array]:
    """A function (params, state, inputs) -> features [b v d] float32.

    They are of one view, or with `mirrored` of two, the second of mirrored images.

    Raises UserError for a network without a backbone to read.
    """
    layer = last_layer(model, params)
    if layer is None and model.spec.task == "classification":
        raise UserError(
            "the model has no last layer of its classes whose inputs can be read; "
            "choose another model.name"
        )

    def seen(params: Any, state: Any, inputs: Inputs) -> jax.Array:
        held: list[Any] = []

        def call(known: Any, given: tuple, named: dict, context: Any) -> Any:
            result = known(*given, **named)
            if context.method_name == "__call__":
                if layer is not None and context.module.path == layer:
                    held.append(given[0])
                elif layer is None and context.module.path == (parameters.BACKBONE,):
                    held.append(_coarsest(result))
            return result

        with linen.intercept_methods(call):
            model.predict(params, state, inputs)
        if not held:
            raise UserError(
                "the model has neither a head of its classes nor a backbone whose "
                "features can be read; choose another model.name"
            )
        x = held[-1].astype(jnp.float32)
        return x.mean(axis=tuple(range(1, x.ndim - 1)))

    def features(params: Any, state: Any, inputs: Inputs) -> jax.Array:
        views = [inputs]
        if mirrored:
            views.append(inputs.replace(images=inputs.images[:, :, ::-1]))  # type: ignore[attr-defined]
        return jnp.stack([seen(params, state, view) for view in views], axis=1)

    return features


def _coarsest(found: Any) -> Any:
    """The last of a backbone's features, in a tuple or by level."""
    found = [*found.values()] if isinstance(found, Mapping) else found
    return found[-1] if isinstance(found, list | tuple) else found


def digest(*parts: Any) -> str:
    """A digest of settings and arrays."""
    known = hashlib.sha256()
    for leaf in jax.tree.leaves(parts):
        known.update(
            np.ascontiguousarray(leaf).tobytes()
            if isinstance(leaf, jax.Array | np.ndarray)
            else json.dumps(leaf, default=str).encode()
        )
    return known.hexdigest()[:16]


def cached(
    workdir: pathlib.Path,
    key: str,
    model: Model,
    params: Any,
    state: Any,
    batches: Iterable[Batch],
    count: int,
    layout: Layout,
    mirrored: bool = False,
) -> Embedded:
    """The features of `count` images in `batches`, or those kept by the same `key`.

    They are written batch by batch, so that memory does not grow with the images.
    """
    folder = workdir / FOLDER
    paths = [folder / f"{key}-{name}.npy" for name in Embedded._fields]
    if not all(path.exists() for path in paths):
        with files.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        read = embed(model, params, mirrored)
        _compute(paths, read, params, state, batches, count, layout)
    with files.reading(folder, "remove that folder, and the features are computed"):
        return Embedded(*(np.load(path, mmap_mode="r") for path in paths))


def _compute(paths, read, params, state, batches, count, layout) -> None:
    """Writes the features and the labels to `paths`."""
    call = answers.jitted(read, _same, layout)
    params, state = layout.keep((params, state))
    given = ((batch, batch.inputs) for batch in batches)
    aside = [path.with_suffix(".part") for path in paths]
    opened: list[Any] = []
    done = 0
    bar = tqdm.tqdm(total=count, desc="features", unit="image", disable=None)
    for batch, inputs, found in answers.answered(
        functools.partial(call, params, state), given, layout
    ):
        real = np.flatnonzero(np.asarray(inputs.view.valid))
        weights = getattr(batch.target, "weights", np.zeros((len(batch.index), 1)))
        rows = [np.asarray(found)[real], labels(np.asarray(weights)[real])]
        if not opened:
            opened = [
                np.lib.format.open_memmap(
                    path, "w+", row.dtype, (count, *row.shape[1:])
                )
                for path, row in zip(aside, rows, strict=True)
            ]
        for held, row in zip(opened, rows, strict=True):
            held[done : done + len(real)] = row
        done += len(real)
        bar.update(len(real))
    bar.close()
    if not done:
        raise UserError("the split has no image that can be read; choose another")
    for written, part, path in zip(opened, aside, paths, strict=True):
        written.flush()
        if done < count:  # some could not be read
            np.save(path, written[:done])
            part.unlink()
        else:
            part.replace(path)


def labels(weights: np.ndarray) -> np.ndarray:
    """The class [n] int32 of `weights` [n c]; -1 where there is none, or several."""
    alone = (weights.sum(axis=1) == 1) & (weights.max(axis=1) == 1)
    return np.where(alone, weights.argmax(axis=1), -1).astype(np.int32)


def _same(found: jax.Array) -> jax.Array:
    return found
