"""Gated-SCNN as a model: its network, edge targets, and the sum of its losses."""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp

from detjax import losses as shared
from detjax.models.gscnn import losses
from detjax.models.gscnn.losses import Loss
from detjax.models.gscnn.net import Net
from detjax.models.gscnn.wide_resnet import STAGES, WideResNet
from detjax.models.pixelwise import enlarged, without_padding
from detjax.nn.batch import each_image
from detjax.nn.images import Pixels, windows
from detjax.nn.norm import Norm
from detjax.nn.start import initialiser
from detjax.ops.edges import label_edges
from detjax.settings import Count, Dtype
from detjax.types import Array, Batch, Inputs, LabelScores, Model, Spec


@dataclasses.dataclass(frozen=True)
class Backbone:
    """Wide ResNet-38, dilated to an output stride of 8.

    width: channels of its first stage.
    blocks: residual blocks of each of its six later stages.
    norm: of all layers of the model.
    dropout: whether whole channels are dropped in its last two stages.
    remat: trains in less memory and more time: the insides of blocks are computed again
        for the gradient.
    """

    width: Count = 64
    blocks: tuple[Count, ...] = tuple(stage[0] for stage in STAGES)
    norm: Norm = "batch"
    dropout: bool = True
    remat: bool = False

    def body(self, dtype: Any) -> WideResNet:
        """Normalised images -> the seven features."""
        return WideResNet(
            self.width, self.blocks, self.dropout, self.norm, self.remat, dtype
        )


GROUPS = {"backbone": r"^backbone\.", "head": r"^(?!backbone\.)"}


def gscnn(
    *,
    num_classes: Count,
    backbone: Backbone = Backbone(),
    features: Count = 256,
    loss: Loss = Loss(),
    canny: Literal["input", "pixels"] = "input",
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """Gated-SCNN.

    num_classes: the classes that are told apart; if not set those of the data set.
    features: channels of the pooling's branches and of the decoder.
    canny: of what Canny's edges are taken: the picture's "pixels", or the normalised
        "input" cast to bytes, as the authors' code does and their weights expect.
    pixels: how images are normalised: by ImageNet's mean and deviation and so on, or
        not ("normalized"), because float images are already.
    dtype: of activations; parameters, logits and losses are float32.

    In training "pixels", "edge", "attention" and "dual" among the metrics are the
    losses by their weights, "correct" the share of pixels whose most probable class is
    right.
    """
    kind = jnp.dtype(dtype)
    body = backbone.body(kind)
    net = Net(body, num_classes, features, canny, backbone.norm, pixels, kind)

    def total(params, state, batch: Batch, key):
        drop, drawn = jax.random.split(key)
        found, updated = net.apply(
            {"params": params, **state},
            batch.inputs.images,
            train=True,
            mutable=[*state],
            rngs={"dropout": drop},
        )
        shape = (*batch.inputs.images.shape[:3], num_classes)
        mean, metrics = parts(found, batch, jax.random.gumbel(drawn, shape), loss)
        return mean, (updated, metrics)

    def predict(params, state, inputs: Inputs) -> LabelScores:
        logits, _ = net.apply({"params": params, **state}, inputs.images)
        return LabelScores(logits, inputs.images.shape[1:3])

    spec = Spec("segmentation", num_classes, groups=GROUPS)
    return Model(spec, initialiser(net), total, predict, net)


def parts(
    found: tuple[Array, Array], batch: Batch, noise: Array, loss: Loss
) -> tuple[Array, dict[str, Array]]:
    """The sum of the losses, and these by their weights.

    found: logits [b oh ow c] and edges [b h w]; noise: [b h w c], Gumbel's.
    """
    coarse, edge = found
    images = batch.inputs.images
    logits = enlarged(coarse, images.shape[1:3])
    valid = without_padding(batch.target.valid, batch)
    # Junk where no class is known is no index.
    labels = jnp.where(valid, batch.target.labels.astype(jnp.int32), 0)
    counted = _pictures(batch)
    edges = functools.partial(label_edges, radius=loss.radius)
    target = each_image(edges)(labels, valid)
    metrics = {
        "pixels": loss.segmentation * losses.weighted(logits, labels, valid),
        "edge": loss.edge * losses.edges(edge, target, counted, loss.squashed_again),
        "attention": loss.attention
        * losses.weighted(logits, labels, valid & (edge > loss.edge_above)),
        "dual": loss.dual
        * losses.dual(
            logits,
            labels,
            valid,
            counted,
            noise,
            temperature=loss.temperature,
            gradient=loss.gradient,
        ),
    }
    right = (logits.argmax(axis=-1) == labels).astype(jnp.float32)
    correct = shared.masked_mean(right, valid)
    return sum(metrics.values()), {**metrics, "correct": correct}


def _pictures(batch: Batch) -> Array:
    """The pixels [b h w] of real pictures, without the borders of letterboxed ones."""
    h, w = batch.inputs.images.shape[1:3]
    x1, y1, x2, y2 = (side[:, None, None] for side in windows(batch.inputs).T)
    y, x = (jnp.arange(n) + 0.5 for n in (h, w))
    y = y[:, None]
    inside = (y >= y1) & (y <= y2) & (x >= x1) & (x <= x2)
    return inside & batch.inputs.view.valid[:, None, None]
