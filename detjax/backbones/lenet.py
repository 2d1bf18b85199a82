"""LeNet-5 (LeCun et al., Proc. IEEE 1998), as in its section II.B, and Caffe's LeNet.

    images    [b h w 1], or [b h w 3], whose channels' mean is taken: 32 x 32 for
              `lenet5`, 28 x 28 for `lenet_caffe`
    c2..c5    [b h/4 w/4 120] after the squashing, of `lenet_caffe` [b h/4 w/4 50]; and
              its maxima at strides 8, 16 and 32

In `lenet5` a subsampling unit multiplies the sum of its four inputs by a trained
coefficient and adds a trained bias; the maps of C3 see some of S2's each (table I); and
a class's logit is minus the squared distance (eq. 7) of F6 from a code of +1 and -1,
which is not trained. The authors' codes are drawn characters; here they are random, as
the paper allows, so that there may be any number. Parameters are 60,000.

Classifiers have no padding, as published; where the nets give features they are padded.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from detjax.errors import UserError
from detjax.nn import pool
from detjax.nn.conv import Conv
from detjax.nn.images import check_size

NAMES = ("lenet5", "lenet_caffe")
# Table I: the maps of S2 that each map of C3 sees.
TABLE = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5)),
    *((0, 1, 2, 5), (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)


def connections() -> tuple[np.ndarray, np.ndarray]:
    """Table I as pairs: the map of C3 and the map of S2 of each of 60 kernels."""
    pairs = [(out, map_) for out, seen in enumerate(TABLE) for map_ in seen]
    outs, seen = np.transpose(pairs)
    return outs, seen


def uniform(fan_in: int):
    """An initialiser: uniform from -2.4 to 2.4 by the number of inputs of a unit."""
    limit = 2.4 / fan_in

    def draw(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return draw


def squash(x):
    """1.7159 tanh(2/3 x), appendix A."""
    return 1.7159 * jnp.tanh(x * (2 / 3))


class Subsampling(linen.Module):
    """[b h w c] -> [b h/2 w/2 c]: sums of 2x2 cells, by a coefficient, plus a bias."""

    @linen.compact
    def __call__(self, x):
        shape = x.shape[-1:]
        scale = self.param("scale", uniform(4), shape)
        bias = self.param("bias", linen.initializers.zeros, shape)
        sums = 4 * linen.avg_pool(x, (2, 2), (2, 2))
        return sums * scale.astype(x.dtype) + bias.astype(x.dtype)


class Connected(linen.Module):
    """A 5x5 convolution of the connections of table I alone: 60 kernels [60 5 5]."""

    padding: int
    dtype: Any

    @linen.compact
    def __call__(self, x):
        outs, seen = connections()
        # A map that sees n others has 25 n inputs; 150 are those of the last.
        kernel = self.param("kernel", uniform(100), (len(outs), 5, 5))
        bias = self.param("bias", linen.initializers.zeros, (len(TABLE),))
        whole = jnp.zeros((5, 5, x.shape[-1], len(TABLE)), self.dtype)
        whole = whole.at[:, :, seen, outs].set(
            kernel.transpose(1, 2, 0).astype(self.dtype)
        )
        y = jax.lax.conv_general_dilated(
            x,
            whole,
            (1, 1),
            [(self.padding, self.padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + bias.astype(self.dtype)


class Codes(linen.Module):
    """Minus the squared distances [b num_classes] from a code of each class, eq. 7."""

    num_classes: int

    @linen.compact
    def __call__(self, x):
        shape = x.shape[-1], self.num_classes
        drawn = jax.random.rademacher(jax.random.key(0), shape, jnp.float32)
        # Not a parameter: it is not trained.
        codes = self.variable("codes", "kernel", lambda: drawn).value
        return -((x[:, :, None] - codes) ** 2).sum(axis=1)


class LeNet5(linen.Module):
    """Features (c2, c3, c4, c5), or minus the distances [b num_classes] of classes.

    Fewer than four `stages` give fewer features. `width` scales all layers; 6 is the
    original, and at others C3 sees all of S2. Images larger than 32 x 32 are classified
    by the means of what C5 finds. There is no norm: `norm` is for those who set it for
    any backbone. With `remat` the backward pass computes the convolutions again.

    Raises UserError for a classifier's image of fewer than 32 rows or columns.
    """

    head = r"(f6|output)\."

    width: int = 6
    stages: int = 4
    norm: str = "batch"
    num_classes: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, images, train: bool = False):
        if self.num_classes is not None:
            check_size(images, 32, "lenet5")
        convolved = LeNet5._convolved
        x = (linen.remat(convolved) if self.remat else convolved)(self, grey(images))
        if self.num_classes is None:
            return pool.continued([x], self.stages)
        x = x.astype(jnp.float32).mean(axis=(1, 2))
        x = linen.Dense(self._scaled(84), kernel_init=uniform(x.shape[-1]), name="f6")(
            x
        )
        return Codes(self.num_classes, name="output")(squash(x))

    def _convolved(self, x):
        around = None if self.num_classes is None else 0
        kinds: Any = {"padding": around, "bias": True, "dtype": self.dtype}

        def conv(name, channels, x):
            init = uniform(25 * x.shape[-1])
            layer = Conv(
                self._scaled(channels), 5, **kinds, kernel_init=init, name=name
            )
            return squash(layer(x))

        x = conv("c1", 6, x)
        x = squash(Subsampling(name="s2")(x))
        if self.width == 6:
            c3 = Connected(2 if around is None else 0, self.dtype, name="c3")
            x = squash(c3(x))
        else:
            x = conv("c3", 16, x)
        x = squash(Subsampling(name="s4")(x))
        return conv("c5", 120, x)

    def _scaled(self, channels):
        return max(channels * self.width // 6, 1)


class LeNetCaffe(linen.Module):
    """Features (c2, c3, c4, c5), or class logits [b num_classes] where that is set.

    Caffe's examples/mnist/lenet.prototxt. Fewer than four `stages` give fewer features.
    `width` scales all layers; 20 is the original. Of images larger than 28 x 28 the
    classifier sees the means of 4 x 4 bins. There is no norm: `norm` is for those who
    set it for any backbone. With `remat` the backward pass computes the convolutions
    again.

    Raises UserError for a classifier's image of fewer than 28 rows or columns.
    """

    head = r"ip2\."

    width: int = 20
    stages: int = 4
    norm: str = "batch"
    num_classes: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, images, train: bool = False):
        if self.num_classes is not None:
            check_size(images, 28, "lenet_caffe")
        convolved = LeNetCaffe._convolved
        x = (linen.remat(convolved) if self.remat else convolved)(self, grey(images))
        if self.num_classes is None:
            return pool.continued([x], self.stages)
        # Caffe flattens channels first.
        x = jnp.moveaxis(pool.binned(x, 4), -1, 1).reshape(x.shape[0], -1)
        x = linen.Dense(25 * self.width, dtype=self.dtype, name="ip1")(x)
        x = linen.relu(x).astype(jnp.float32)
        return linen.Dense(self.num_classes, name="ip2")(x)

    def _convolved(self, x):
        around = None if self.num_classes is None else 0
        kinds: Any = {"padding": around, "bias": True, "dtype": self.dtype}
        for i, channels in ((1, self.width), (2, 5 * self.width // 2)):
            x = Conv(max(channels, 1), 5, **kinds, name=f"conv{i}")(x)
            x = pool.max_pool(x, 2, 2)
            self.sow("intermediates", f"pool{i}", x)
        return x


def grey(images):
    """[b h w c] -> [b h w 1]."""
    return images.mean(axis=-1, keepdims=True)


def lenet(name: str, /, **kwargs: Any) -> linen.Module:
    """The member called `name` of `NAMES`; keywords as in its module.

    Raises UserError for an unknown name.
    """
    if name not in NAMES:
        raise UserError(f"no LeNet is called {name!r}; choose one of {[*NAMES]}")
    return LeNet5(**kwargs) if name == "lenet5" else LeNetCaffe(**kwargs)
