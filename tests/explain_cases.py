"""Networks small enough to work out by hand, for methods of explanation."""

import jax
import jax.numpy as jnp
import numpy as np

from detjax.nn.images import NORMALIZED, normalize
from detjax.nn.observe import site
from detjax.types import Inputs, Scores

SIDE = 5, 6


def drawn(seed=0, hidden=4, classes=3, b=2):
    """(params, state, inputs) of `predict`."""
    rng = np.random.default_rng(seed)
    params = {
        "one": {"kernel": rng.standard_normal((3, hidden)).astype("f")},
        "two": {"kernel": rng.standard_normal((hidden, classes)).astype("f")},
    }
    images = rng.standard_normal((b, *SIDE, 3)).astype("f")
    return params, {}, Inputs(jnp.asarray(images))


def predict(params, state, inputs, bend=lambda x: x**2):
    """Logits of the mean over places of bent 1x1 maps: "hidden" [b h w 4]."""
    x = normalize(inputs.images, NORMALIZED)
    x = site("one", x @ params["one"]["kernel"])
    x = site("hidden", bend(x))
    logits = site("two", x.mean(axis=(1, 2)) @ params["two"]["kernel"])
    return Scores(jax.nn.softmax(logits), logits)


def rectified(params, state, inputs):
    """`predict` with ReLU."""
    return predict(params, state, inputs, jax.nn.relu)


def logits(answers):
    """All classes' logits."""
    return answers.logits


def first(answers):
    """The first class's logit."""
    return answers.logits[:, :1]
