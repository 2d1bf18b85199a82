"""Certificates: errors of a model relative to its original."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from detjax.parity import goldens
from detjax.parity.goldens import relative
from detjax.types import Batch, Model
from detjax.weights.names import spell


class Certificate(NamedTuple):
    """How far a model is from its original; errors are the largest, relative ones."""

    model: str
    parameters: int
    expected_parameters: int
    outputs: dict[str, float]  # in units of the output's std
    losses: dict[str, float] | None = None
    gradients: dict[str, float] | None = None  # of norms, by the original's names
    detections: float | None = None  # the part of the original's with a twin, of 1
    mask_areas: float | None = None  # largest difference, relative to the mask's area
    proposals: float | None = None  # the part of the original's with a twin, of 1
    file: bool | None = None  # whether the weight file written is the original's
    # Pixels that another class wins than in the original, near ties apart.
    moved: int | None = None
    # What the golden's images were, where that is not what its file says.
    images: str | None = None


class Training(NamedTuple):
    """What one step has of losses and gradients, by the original's names."""

    losses: dict[str, float]
    total: float
    norms: dict[str, tuple[float, float]]  # of gradients; see `goldens.norms`

    def facts(self) -> dict[str, Any]:
        """The same as a golden holds it."""
        norms = {name: exact for name, (exact, _) in self.norms.items()}
        return {"losses": self.losses, "total": self.total, "grad_norm": norms}


def size(params: Any) -> int:
    """The number of parameters."""
    return sum(x.size for x in jax.tree.leaves(params))


def training(
    model: Model,
    params: Any,
    state: Any,
    batch: Batch,
    *,
    names: Mapping[str, str],
    source: str,
) -> Training:
    """Losses and norms of gradients; `names` has our losses by the original's names."""
    step = jax.jit(jax.value_and_grad(model.loss, has_aux=True))
    (total, (_, metrics)), gradients = step(params, state, batch, jax.random.key(0))
    return Training(
        {theirs: float(metrics[o]) for theirs, o in names.items() if o in metrics},
        float(total),
        {
            spell(".".join(path), source): goldens.norms(np.asarray(gradient))
            for path, gradient in traverse_util.flatten_dict(gradients).items()
        },
    )


def training_errors(
    ours: Training, expected: dict[str, Any], names: Mapping[str, str]
) -> tuple[dict[str, float], dict[str, float]]:
    """The errors of losses, by our names, and of the norm of every gradient.

    Raises ValueError where parameters differ by name.
    """
    losses = {
        names[name]: relative(ours.losses[name], value)
        for name, value in expected["losses"].items()
    }
    losses["total"] = relative(ours.total, expected["total"])
    known = expected["grad_norm"]
    if ours.norms.keys() != known.keys():
        raise ValueError(
            f"gradients differ by name: {ours.norms.keys() ^ known.keys()}"
        )
    # A norm that is nothing beside the largest is rounding on both sides.
    floor = 1e-6 * max(known.values())
    return losses, {
        k: min(relative(norm, known[k], floor) for norm in ours.norms[k]) for k in known
    }


def twins(
    ours: dict[str, Any], expected: dict[str, Any], within: Mapping[str, float]
) -> np.ndarray:
    """For each expected detection the place of ours, -1 where there is none.

    Both hold boxes [. 4], labels [.] and scores. Labels are equal in twins; `within`
    has by name how far other fields may differ, all coordinates of a box included. The
    nearest box that is free is taken.
    """
    free = np.ones(len(ours["boxes"]), bool)
    match = np.full(len(expected["boxes"]), -1)
    for j, label in enumerate(expected["labels"]):
        near = free & (np.asarray(ours["labels"]) == label)
        for name, reach in within.items():
            if name in expected:
                apart = np.abs(np.asarray(ours[name]) - expected[name][j])
                near &= apart.max(axis=tuple(range(1, apart.ndim)), initial=0) < reach
        if near.any():
            apart = np.abs(np.asarray(ours["boxes"]) - expected["boxes"][j])
            match[j] = np.argmin(np.where(near, apart.max(axis=1), np.inf))
            free[match[j]] = False
    return match


def share(matched: list[np.ndarray], counts: list[int]) -> float:
    """The part of detections with a twin, of 1, ours being `counts` an image.

    Detections too many count against us like those that are missing.
    """
    total = sum(max(len(m), n) for m, n in zip(matched, counts, strict=True))
    return float(sum((m >= 0).sum() for m in matched) / max(total, 1))
