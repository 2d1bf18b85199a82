"""CornerNet's losses."""

import dataclasses

import jax.numpy as jnp

from detjax import losses
from detjax.models.cornernet.match import Corner, Targets
from detjax.models.cornernet.net import Corners, Maps
from detjax.settings import NonNegative
from detjax.types import Array

# What keeps divisions by a number of objects from 0, in the authors' code.
_EPS = 1e-4


@dataclasses.dataclass(frozen=True)
class Loss:
    """The four losses, each the mean of those of all hourglasses.

    alpha, beta: of the focal loss of heat maps; see `losses.gaussian_focal`.
    pull_weight, push_weight, offset_weight: of those losses.
    """

    alpha: NonNegative = 2.0
    beta: NonNegative = 4.0
    pull_weight: NonNegative = 0.1
    push_weight: NonNegative = 0.1
    offset_weight: NonNegative = 1.0

    def sums(self, maps: tuple[Maps, ...], target: Targets) -> dict[str, Array]:
        """What is summed over a batch, [] each, of one image's maps [mh mw .].

        "heat_tl", "heat_br" and "offset" are to be divided by the numbers of corners of
        `counts`, "pull" and "push" are the image's own.
        """
        heat = {
            f"heat_{kind}": sum(
                self._focal(getattr(each, kind), getattr(target, kind), target.learnt)
                for each in maps
            )
            for kind in ("tl", "br")
        }
        tags = [
            pull_push(
                _gathered(each.tl.tag, target.tl),
                _gathered(each.br.tag, target.br),
                target.objects,
            )
            for each in maps
        ]
        offsets = [
            self._smooth(getattr(each, kind), getattr(target, kind), target.objects)
            for each in maps
            for kind in ("tl", "br")
        ]
        found = {
            **heat,
            "pull": self.pull_weight * sum(pull for pull, _ in tags),
            "push": self.push_weight * sum(push for _, push in tags),
            "offset": self.offset_weight * sum(offsets),
        }
        return {name: value / len(maps) for name, value in found.items()}

    def _focal(self, found: Corners, target: Corner, learnt: Array) -> Array:
        each = losses.gaussian_focal(found.heat, target.heat, self.alpha, self.beta)
        some = learnt[..., None] | (target.heat == 1)
        return jnp.sum(jnp.where(some, each, 0.0))

    def _smooth(self, found: Corners, target: Corner, objects: Array) -> Array:
        each = losses.smooth_l1(_gathered(found.offset, target), target.offset)
        return jnp.sum(jnp.where(objects[:, None], each, 0.0))


def counts(target: Targets) -> dict[str, Array]:
    """By what a batch's sums are divided: corners of each kind, and objects.

    Corners of one class in one cell are one.
    """
    return {
        "heat_tl": jnp.sum(target.tl.heat == 1),
        "heat_br": jnp.sum(target.br.heat == 1),
        "offset": jnp.sum(target.objects),
    }


def divided(sums: dict[str, Array], numbers: dict[str, Array]) -> dict[str, Array]:
    """The losses [] by name, of what a batch's sums and `counts` are."""
    heat = (sums[k] / jnp.maximum(numbers[k], 1) for k in ("heat_tl", "heat_br"))
    return {
        "heat": sum(heat),
        "pull": sums["pull"],
        "push": sums["push"],
        "offset": sums["offset"] / (numbers["offset"] + _EPS),
    }


def pull_push(tl: Array, br: Array, objects: Array) -> tuple[Array, Array]:
    """The losses of associative embedding of the tags [n] of one image's objects.

    Pull: the squared distances of an object's two tags from their mean, over the number
    of objects. Push: what the means of two objects lack to a distance of 1, over the
    number of pairs; 1/n less for every pair, an object with itself included, which sets
    the loss apart by a constant.

    Law and Deng 2018, equations 4 and 5, with the divisors of their code; Newell et al.
    2017 (Associative Embedding).
    """
    n = jnp.sum(objects).astype(jnp.float32)
    mean = (tl + br) / 2
    each = (tl - mean) ** 2 + (br - mean) ** 2
    pull = jnp.sum(jnp.where(objects, each, 0.0)) / (n + _EPS)
    lacking = jnp.maximum(1 - jnp.abs(mean[:, None] - mean[None]), 0.0)
    lacking = (lacking - 1 / (n + _EPS)) / ((n - 1) * n + _EPS)
    pairs = objects[:, None] & objects[None]
    return pull, jnp.sum(jnp.where(pairs, lacking, 0.0))


def _gathered(values: Array, target: Corner) -> Array:
    """Those of `values` [mh mw ...] at the corners, [n ...]."""
    return values.reshape(-1, *values.shape[2:])[target.cell]
