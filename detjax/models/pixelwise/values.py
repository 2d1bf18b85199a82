"""A number for every pixel: losses of such maps, and a network as a model."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen

from detjax import losses
from detjax.errors import UserError
from detjax.models.pixelwise.maps import enlarged, without_padding
from detjax.nn.start import initialiser
from detjax.settings import Fraction, NonNegative, Positive
from detjax.types import Array, Batch, Inputs, Model, Spec, ValueMap


@dataclasses.dataclass(frozen=True)
class ValueLoss:
    """How the numbers of pixels are compared with the true ones.

    kind: "l1", "l2" (squared, halved), "berhu" (the reverse Huber loss, Laina et al.
        2016) or "scale_invariant_log" (Eigen et al. 2014), for numbers above 0.
    share: of "berhu": the share of the largest error above which errors are squared.
    scale_free: of "scale_invariant_log": 1 forgives any factor of a whole batch, 0
        none.
    positive: whether numbers are above 0: the softplus of what the network computes.
    start: what is added to what the network computes, before softplus; a network that
        begins near the mean of its targets learns sooner.
    auxiliary: weight of the same loss of auxiliary heads.
    """

    kind: Literal["l1", "l2", "berhu", "scale_invariant_log"] = "l1"
    share: Positive = 0.2
    scale_free: Fraction = 0.5
    positive: bool = True
    start: float = 0.0
    auxiliary: NonNegative = 0.4

    def values(self, x: Array) -> jax.Array:
        """The numbers [b h w] that a network's maps [b h w 1] stand for."""
        x = x[..., 0].astype(jnp.float32) + self.start
        return jax.nn.softplus(x) if self.positive else x

    def __call__(self, found: Array, target: ValueMap) -> Array:
        """The loss of numbers [b h w] where the target is valid."""
        assert target.valid is not None
        wanted, valid = jnp.where(target.valid, target.values, 0), target.valid
        if self.kind == "scale_invariant_log":
            return losses.scale_invariant_log(found, wanted, valid, self.scale_free)
        if self.kind == "berhu":
            each = losses.berhu(found, wanted, valid, self.share)
        elif self.kind == "l2":
            each = (found - wanted) ** 2 / 2
        else:
            each = jnp.abs(found - wanted)
        return losses.masked_mean(each, valid)


def regressor(
    net: linen.Module,
    loss: ValueLoss,
    *,
    corners: bool = False,
    groups: Mapping[str, str],
) -> Model:
    """A network as a model of the task "dense".

    net: (images [b h w 3], train=False) -> a tuple of maps [b oh ow 1]; first the one
        that counts, then, in training, those of auxiliary heads.
    corners: how maps are enlarged to the input's size; see `ops.resize.bilinear`.
    groups: see `Spec.groups`.

    In training "values" among the metrics is the loss of the map that counts,
    "auxiliary" the sum of the others', and "error" the mean absolute error. Its
    answers are `ValueMap`.
    """

    def total(params, state, batch: Batch, key):
        found, updated = net.apply(
            {"params": params, **state},
            batch.inputs.images,
            train=True,
            mutable=[*state],
            rngs={"dropout": key},
        )
        mean, metrics = differed(found, batch, batch.target, loss, corners)
        return mean, (updated, metrics)

    def predict(params, state, inputs: Inputs) -> ValueMap:
        first, *_ = net.apply({"params": params, **state}, inputs.images)
        x = enlarged(first, inputs.images.shape[1:3], corners)
        return ValueMap(loss.values(x))

    return Model(Spec("dense", 1, groups=groups), initialiser(net), total, predict, net)


def check_one(num_classes: int, name: str) -> None:
    """Raises UserError for more than the one quantity that the model `name` finds."""
    if num_classes != 1:
        raise UserError(
            f"model.num_classes={num_classes}: {name} finds one number of each pixel, "
            "the quantity of its data set; leave it out, or take a model that segments"
        )


def differed(
    maps: tuple[Array, ...],
    batch: Batch,
    target: ValueMap,
    loss: ValueLoss,
    corners: bool = False,
) -> tuple[Array, dict[str, Array]]:
    """The loss of `maps`, as a network in `regressor` makes them, and its metrics."""
    assert target.valid is not None
    target = dataclasses.replace(target, valid=without_padding(target.valid, batch))
    size = target.values.shape[1:3]
    values = [loss.values(enlarged(x, size, corners)) for x in maps]
    first, *others = (loss(found, target) for found in values)
    apart = jnp.where(target.valid, jnp.abs(values[0] - target.values), 0)
    metrics: dict[str, Any] = {
        "values": first,
        "error": losses.masked_mean(apart, target.valid),
    }
    if not others:
        return first, metrics
    metrics["auxiliary"] = sum(others)
    return first + loss.auxiliary * metrics["auxiliary"], metrics
