"""The stacked hourglass as it was made: the pose of an image's main object.

    b        images
    k        keypoints of an object
    mh, mw   height and width of the features' map

Newell, Yang and Deng (ECCV 2016): a heatmap for each keypoint after every hourglass,
all of them supervised. Our hourglasses are CornerNet's, which halve their maps by
strides and not by pooling.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from detjax import losses
from detjax.backbones.hourglass import Hourglass
from detjax.errors import UserError
from detjax.nn.batch import each_image
from detjax.nn.conv import Conv
from detjax.nn.hourglass import StackedHourglass
from detjax.nn.images import Pixels, normalize, windows
from detjax.nn.start import initialiser
from detjax.ops import boxes as geometry
from detjax.ops import gaussians
from detjax.settings import Count, Dtype, NonNegative
from detjax.types import Array, Batch, Detections, Inputs, Model, Objects, Spec

# Eight of them, of one block at each size, and as wide throughout.
NEWELL = Hourglass(stacks=8, dims=(256,) * 5, modules=(1,) * 5)


@dataclasses.dataclass(frozen=True)
class Keypoint:
    """The heatmaps.

    count: keypoints of an object; 14 and 16 are MPII's, 17 COCO's of a person.
    radius: cells that the target of a keypoint reaches from its own; its deviation is
        (2 radius + 1) / 6, so that 3 is a little more than the paper's 1 cell.
    class_weight: of the class of the main object, where there are several.
    """

    count: Count = 17
    radius: Count = 3
    class_weight: NonNegative = 1.0


class Outputs(NamedTuple):
    """What the network computes of b images."""

    heatmaps: tuple[Array, ...]  # [b mh mw k] of every hourglass
    logits: Array  # [b c] of the class


class Net(linen.Module):
    """Images [b h w 3] -> `Outputs`."""

    num_classes: int
    backbone: StackedHourglass
    count: int
    pixels: str
    dtype: Any

    @linen.compact
    def __call__(self, images, train: bool = False) -> Outputs:
        x = normalize(images, self.pixels, self.dtype)
        features = self.backbone(x, train)
        maps = tuple(
            Conv(
                *(self.count, 1),
                bias=True,
                # Most cells are 0: maps begin near that.
                kernel_init=jax.nn.initializers.normal(0.01),
                dtype=self.dtype,
                name=f"heatmaps.{i}",
            )(y)
            for i, y in enumerate(features)
        )
        mean = features[-1].astype(jnp.float32).mean(axis=(1, 2))
        logits = linen.Dense(self.num_classes, name="class")(mean)
        return Outputs(tuple(x.astype(jnp.float32) for x in maps), logits)


def hourglass_pose(
    *,
    num_classes: Count,
    backbone: Hourglass = NEWELL,
    keypoint: Keypoint = Keypoint(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """A network for the keypoints of one object an image.

    num_classes: the classes that are told apart; if not set those of the data set.
    backbone: hourglasses; the defaults are Newell's eight.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.

    It learns the largest object of each image: give it pictures of one, cut around it.
    Its answers are `Detections` of a single row, whose box is drawn around the
    keypoints. Keypoints of visibility 0 are not learnt.

    Raises UserError where a batch has no keypoints, or another number of them.
    """
    kind = jnp.dtype(dtype)
    net = Net(num_classes, backbone.body(kind), keypoint.count, pixels, kind)

    def total(params, state, batch: Batch, key):
        check(batch.target, keypoint.count)
        (h, w), seen = batch.inputs.images.shape[1:3], batch.inputs.view.valid
        (maps, logits), updated = net.apply(
            {"params": params, **state},
            batch.inputs.images,
            train=True,
            mutable=[*state],
        )

        def one(maps, objects):
            mh, mw = maps[0].shape[:2]
            place, real = main(objects)
            points = objects.keypoints[place] * jnp.array([mw / w, mh / h, 1])
            wanted = targets(points, (mh, mw), keypoint.radius)
            learnt = (points[:, 2] > 0) & real
            apart = sum(((x - wanted) ** 2).sum(axis=(0, 1)) for x in maps)
            error = losses.masked_mean(apart / len(maps), learnt)
            return error, learnt.any(), objects.labels[place], real

        error, posed, labels, real = each_image(one)(maps, batch.target)
        parts = {"heatmap": losses.masked_mean(error, posed & seen)}
        if num_classes > 1:
            entropy = losses.softmax_cross_entropy(logits, labels)
            parts["class"] = keypoint.class_weight * losses.masked_mean(
                entropy, real & seen
            )
        positives = jnp.sum(real & seen)
        return sum(parts.values()), (updated, {**parts, "positives": positives})

    def predict(params, state, inputs: Inputs) -> Detections:
        outputs: Any = net.apply({"params": params, **state}, inputs.images)
        last = outputs.heatmaps[-1]
        size = jnp.array(inputs.images.shape[2:0:-1]) / jnp.array(last.shape[2:0:-1])
        points = each_image(highest)(last)
        points = points * jnp.append(size, 1.0)
        box = each_image(around)(points, windows(inputs))
        odds = jax.nn.softmax(outputs.logits)
        scores = points[..., 2].mean(axis=-1) * odds.max(axis=-1)
        return Detections(
            box[:, None],
            scores[:, None],
            odds.argmax(axis=-1)[:, None].astype(jnp.int32),
            jnp.ones((len(box), 1), bool),
            keypoints=points[:, None],
        )

    groups = {name: rf"^{name}\." for name in ("backbone", "heatmaps", "class")}
    spec = Spec("detection", num_classes, groups=groups)
    return Model(spec, initialiser(net), total, predict, net)


def check(objects: Objects, count: int) -> None:
    """Raises UserError unless objects have `count` keypoints."""
    given = None if objects.keypoints is None else objects.keypoints.shape[-2]
    if given != count:
        raise UserError(
            f"this network learns {count} keypoints but the batch has "
            f"{'none' if given is None else f'{given} an object'}; set "
            "model.keypoint.count to their number, and data.keypoints=True"
        )


def main(objects: Objects) -> tuple[Array, Array]:
    """The place of the largest object of an image, and whether there is one."""
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    real = objects.valid & ~objects.crowd
    return jnp.where(real, sides.prod(axis=-1), -1.0).argmax(), real.any()


def targets(points: Array, size: tuple[int, int], radius: int) -> Array:
    """Keypoints [k 3] -> [mh mw k]: a map of each, 1 in its cell and less around it."""
    k = len(points)
    cells = jnp.floor(points[:, :2]).astype(jnp.int32)
    # One on the far edge lies in the last cell.
    cells = jnp.minimum(cells, jnp.array([size[1] - 1, size[0] - 1]))
    radii = jnp.full(k, radius, jnp.float32)
    return gaussians.splat(cells, radii, jnp.arange(k), points[:, 2] > 0, size, k)


def highest(maps: Array) -> Array:
    """[mh mw k] -> [k 3]: where each map is highest, x and y in cells, and its value.

    From the middle of the highest cell a quarter of a cell towards the higher of its
    neighbours, in each direction (Newell et al. 2016, section 4.1).
    """
    _, w, k = maps.shape
    place = maps.reshape(-1, k).argmax(axis=0)
    y, x = jnp.divmod(place, w)
    each = jnp.arange(k)
    beyond = jnp.pad(maps, ((1, 1), (1, 1), (0, 0)), mode="edge")
    across = beyond[y + 1, x + 2, each] - beyond[y + 1, x, each]
    down = beyond[y + 2, x + 1, each] - beyond[y, x + 1, each]
    shift = 0.25 * jnp.sign(jnp.stack([across, down], axis=-1))
    at = jnp.stack([x, y], axis=-1) + 0.5 + shift
    return jnp.column_stack([at, jnp.clip(maps[y, x, each], 0, 1)])


def around(points: Array, window: Array) -> Array:
    """The box [4] around keypoints [k 3], cut to the picture's window [4]."""
    box = jnp.concatenate([points[:, :2].min(axis=0), points[:, :2].max(axis=0)])
    return geometry.clip(box[None], window)[0]
