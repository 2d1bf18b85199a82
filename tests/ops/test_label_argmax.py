"""The fused enlargement and argmax against the two in turn."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax.ops import resize
from detjax.ops.label_argmax import label_argmax

CASES = [
    ((16, 32, 21), (128, 256), False),
    ((9, 17, 21), (65, 129), True),
    ((7, 5, 300), (50, 41), False),
    ((40, 40, 3), (40, 40), False),
    ((50, 40, 2), (20, 10), False),
    ((5, 5, 1), (9, 9), True),
]


@pytest.mark.parametrize(("shape", "size", "corners"), CASES)
def test_labels_are_exactly_those_of_enlarged_logits(shape, size, corners):
    logits = 3 * np.random.default_rng(0).normal(size=shape).astype(np.float32)
    labels, scores = jax.jit(label_argmax, static_argnums=(1, 2))(logits, size, corners)
    assert labels.dtype == (np.uint8 if shape[-1] < 256 else np.uint16)
    # Columns first, as here, and rows first, as usual, differ by rounding.
    wide = resize.bilinear(logits, (shape[0], size[1]), corners)
    whole = resize.bilinear(wide, size, corners)
    np.testing.assert_array_equal(labels, whole.argmax(axis=-1))
    np.testing.assert_allclose(scores, jax.nn.softmax(whole).max(-1), rtol=1e-5)
    usual = resize.bilinear(logits, size, corners)
    assert (usual.argmax(axis=-1) == labels).mean() > 0.9999


def test_of_equal_classes_the_first_counts():
    labels, scores = label_argmax(jnp.zeros((2, 2, 4)), (6, 6))
    assert not labels.any()
    np.testing.assert_allclose(scores, 0.25)


def test_nothing_of_all_classes_is_held_at_full_size():
    size, classes = (512, 1024), 40
    shape = jax.ShapeDtypeStruct((64, 128, classes), np.float32)
    call = jax.jit(lambda x: label_argmax(x, size)).lower(shape).compile()
    full = size[0] * size[1] * classes
    arrays = re.findall(r"[a-z]+\d+\[([\d,]+)\]", call.as_text())
    largest = max(np.prod([int(n) for n in dims.split(",")]) for dims in arrays)
    assert largest < full / 4
    assert call.memory_analysis().temp_size_in_bytes < full * 4 / 4
