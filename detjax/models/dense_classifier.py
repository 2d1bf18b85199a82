"""Labelling by a sliding window: a classifier of patches, at every place.

    b, c     images, classes
    s        side of a patch, in pixels
    n        patches of an image that are learnt
    oh, ow   rows and columns of places
    logits   [b oh ow c]

The step from classification to segmentation (Ning et al. 2005; Farabet et al. 2013;
Ciresan et al. 2012). Literally, the patch around each place is cut out and classified.
As one convolution with the same weights each map is computed once for all patches that
share it: a fully connected layer is a convolution with a kernel as large as its map,
and a pooling that would lose places keeps the size and dilates what follows. Both give
the same numbers.
"""

import dataclasses
import functools
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from flax import linen
from jax import lax

from detjax import losses
from detjax.errors import UserError
from detjax.models.pixelwise import Loss, enlarged, segmenter, without_padding
from detjax.nn.conv import Conv, convolve
from detjax.nn.images import Pixels, normalize
from detjax.settings import Count, Dtype, NotEmpty
from detjax.types import Array, Batch, Inputs, LabelMap, LabelScores, Model


@dataclasses.dataclass(frozen=True)
class Patch:
    """The classifier of patches: convolutions with pooling, then two full layers.

    side: of a patch, in pixels. The middle of an even one lies half a pixel behind the
        pixel whose class it tells.
    features: channels of its convolutions, each without padding and with a ReLU and the
        maxima of 2x2 cells behind it.
    kernel: their side.
    hidden: units of the first full layer.
    """

    side: Count = 32
    features: Annotated[tuple[Count, ...], NotEmpty()] = (16, 32)
    kernel: Count = 5
    hidden: Count = 128

    @property
    def stride(self) -> int:
        """What its poolings make."""
        return 2 ** len(self.features)

    @property
    def left(self) -> int:
        """The side of the map that the first full layer reads.

        Raises UserError where nothing is left.
        """
        side = self.side
        for _ in self.features:
            side = (side - self.kernel + 1) // 2
        if side < 1:
            raise UserError(
                f"model.patch.side={self.side} leaves nothing behind "
                f"{len(self.features)} convolutions of {self.kernel} x {self.kernel} "
                "and 2x2 maxima; give larger patches or fewer model.patch.features"
            )
        return side


class Full(linen.Module):
    """A fully connected layer on a map of `side` x `side` cells: kernel [. features].

    On larger maps, [b h w i], it is a convolution: at every place where it fits, of
    cells that are `dilation` apart.
    """

    features: int
    side: int
    dtype: Any

    @linen.compact
    def __call__(self, x, dilation: int = 1):
        inputs = self.side**2 * x.shape[-1]
        init = jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        kernel = self.param("kernel", init, (inputs, self.features)).astype(self.dtype)
        bias = self.param("bias", linen.initializers.zeros, (self.features,))
        if x.shape[1:3] == (self.side, self.side):
            y = (x.reshape(len(x), inputs) @ kernel)[:, None, None]
        else:
            shape = self.side, self.side, x.shape[-1], self.features
            y = convolve(x, kernel.reshape(shape), dilation=dilation)
        return y + bias.astype(self.dtype)


class Net(linen.Module):
    """Images [b h w 3] -> (logits [b oh ow c],), float32, as one convolution."""

    num_classes: int
    patch: Patch
    step: int
    pixels: str
    dtype: Any

    def __call__(self, images, train: bool = False):
        h, w = images.shape[1:3]
        rows, columns = (-(-n // self.step) for n in (h, w))
        x = self.everywhere(self.padded(images), self.step)[:, :rows, :columns]
        return (fitted(x, (h, w), self.step),)

    def padded(self, images):
        """Normalised images with zeros around, so that each place has its patch."""
        x = normalize(images, self.pixels, self.dtype)
        around = [
            (
                low,
                -(-n // self.step) * self.step + self.patch.side - self.step - n - low,
            )
            for n in images.shape[1:3]
            for low in [(self.patch.side - self.step) // 2]
        ]
        return jnp.pad(x, [(0, 0), *around, (0, 0)])

    @linen.compact
    def everywhere(self, x, step):
        """Logits [b oh ow c] of all patches of [b h w 3] at places `step` apart.

        Poolings behind the one that makes this step keep the size instead.
        """
        stride, dilation = 1, 1
        for i, channels in enumerate(self.patch.features, start=1):
            x = Conv(
                channels,
                self.patch.kernel,
                padding=0,
                dilation=dilation,
                bias=True,
                dtype=self.dtype,
                name=f"conv{i}",
            )(x)
            x = linen.relu(x)
            if stride < step:
                x, stride = linen.max_pool(x, (2, 2), (2, 2)), 2 * stride
            else:
                x, dilation = maxima(x, dilation), 2 * dilation
        kinds: Any = {"dtype": self.dtype}
        full = Full(self.patch.hidden, self.patch.left, name="fc1", **kinds)
        x = linen.relu(full(x, dilation))
        x = Full(self.num_classes, 1, name="fc2", **kinds)(x)
        return x.astype(jnp.float32)

    def classified(self, patches):
        """Logits [n c] of normalised patches [n s s 3]."""
        return self.everywhere(patches, self.patch.stride)[:, 0, 0]


def maxima(x: Array, dilation: int) -> Array:
    """Of 2x2 cells that are `dilation` apart, at every place where they fit."""
    for axis in (1, 2):
        low = lax.slice_in_dim(x, 0, x.shape[axis] - dilation, axis=axis)
        high = lax.slice_in_dim(x, dilation, None, axis=axis)
        x = jnp.maximum(low, high)
    return x


def fitted(logits: Array, size: tuple[int, int], step: int) -> Array:
    """Logits [b oh ow c] of places `step` apart as a map that spans `size` (h, w).

    The last places lie outside where the size is no multiple of the step: then it is
    enlarged and cropped.
    """
    h, w = size
    whole = logits.shape[1] * step, logits.shape[2] * step
    return logits if whole == size else enlarged(logits, whole)[:, :h, :w]


def cut(image: Array, top: Array, left: Array, side: int) -> Array:
    """The patch [side side 3] of an image [h w 3] that begins there."""
    return lax.dynamic_slice(image, (top, left, 0), (side, side, image.shape[-1]))


def dense_classifier(
    *,
    num_classes: Count,
    patch: Patch = Patch(),
    step: Count = 1,
    mode: Literal["convolution", "windows"] = "convolution",
    chunk: Count = 256,
    patches: Count | None = None,
    loss: Loss = Loss(),
    pixels: Pixels = "imagenet",
    dtype: Dtype = "float32",
) -> Model:
    """A classifier of patches that labels the middle of each.

    num_classes: the classes that are told apart; if not set those of the data set.
    step: pixels from a place to the next: 1, or a power of 2 up to what the patch's
        poolings make. Scores are interpolated between places.
    mode: how all places are predicted: as one "convolution", or literally, in
        "windows" that are cut out and classified one by one.
    chunk: windows that are classified at once.
    patches: how many of each image are learnt in a step, at pixels drawn anew, each
        with its middle's class; None learns all places of the image as one convolution.
    loss: of the logits.
    pixels: how images are normalised; see `nn.images.normalize`.
    dtype: of activations; parameters and losses are float32.

    Around the picture there are zeros. The groups of its parameters are "backbone", the
    convolutions, and "head".
    """
    if step not in [2**i for i in range(len(patch.features) + 1)]:
        raise UserError(
            f"model.step={step} must be 1 or a power of 2 up to {patch.stride}, what "
            f"model.patch.features={patch.features} make with 2x2 maxima behind each"
        )
    if patch.left and patch.side < step:
        raise UserError(f"model.patch.side={patch.side} is less than model.step={step}")
    net = Net(num_classes, patch, step, pixels, jnp.dtype(dtype))
    groups = {"backbone": r"^conv", "head": r"^fc"}
    model = segmenter(net, num_classes, loss, groups=groups)
    if patches is not None:
        model = model._replace(loss=functools.partial(_of_patches, net, loss, patches))
    if mode == "windows":
        model = model._replace(predict=functools.partial(_in_windows, net, chunk))
    return model


def _in_windows(net: Net, chunk: int, params, state, inputs: Inputs) -> LabelScores:
    """The answer, each window cut out and classified."""
    images, variables = inputs.images, {"params": params, **state}
    x: Any = net.apply(variables, images, method=net.padded)
    rows, columns = (-(-n // net.step) for n in images.shape[1:3])

    def one(place):
        image, row, column = place
        at = row * net.step, column * net.step
        seen = cut(x[image], *at, net.patch.side)
        return net.apply(variables, seen[None], method=net.classified)[0]

    grid = (len(images), rows, columns)
    places = [n.ravel() for n in jnp.indices(grid)]
    logits = lax.map(one, places, batch_size=chunk).reshape(*grid, -1)
    size = images.shape[1:3]
    return LabelScores(fitted(logits, size, net.step), size)


def _of_patches(net: Net, loss: Loss, count: int, params, state, batch: Batch, key):
    """The loss of `count` patches an image, with what `segmenter` has of metrics."""
    images, target = batch.inputs.images, batch.target
    b, h, w = images.shape[:3]
    side, half = net.patch.side, net.patch.side // 2
    around = [(0, 0), (half, side), (half, side), (0, 0)]
    x = jnp.pad(normalize(images, net.pixels, net.dtype), around)
    drawn = jax.random.randint(key, (b, count), 0, h * w)

    def seen(image, places):
        return jax.vmap(lambda at: cut(image, at // w, at % w, side))(places)

    crops = jax.vmap(seen)(x, drawn).reshape(b * count, side, side, -1)
    logits: Any = net.apply({"params": params, **state}, crops, method=net.classified)
    logits = logits.reshape(b, count, 1, -1)

    def at(values):
        return jnp.take_along_axis(values.reshape(b, -1), drawn, axis=1)[..., None]

    valid = at(without_padding(target.valid, batch))
    chosen = LabelMap(at(target.labels), valid, target.weights)
    found = loss(logits, chosen, batch.inputs.view.valid.sum())
    right = (logits.argmax(axis=-1) == chosen.labels).astype(jnp.float32)
    metrics = {"pixels": found, "correct": losses.masked_mean(right, valid)}
    return found, (state, metrics)
