"""What of numbers for pixels is explained: their mean over the picture."""

import jax.numpy as jnp
import numpy as np

from detjax.nn.images import shown
from detjax.tasks.dense import quantities
from detjax.types import Array, Asked, Inputs, Question, ValueMap


def ask(answers: ValueMap, inputs: Inputs, question: Question) -> Asked:
    """The mean of the picture; `which` is its places [1 h w]."""
    where = np.asarray(shown(inputs, answers.values.shape[1:3]))
    return Asked([question.quantity], where, of_region)


def of_region(answers: ValueMap, where: Array) -> Array:
    """The mean value [b 1] of places [b h w]."""
    return quantities.value(answers, jnp.asarray(where))
