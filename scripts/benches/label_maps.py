"""Label maps of logits, and their confusion matrices."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from benches.timing import Row, in_turn, ready
from detjax.eval import semantic
from detjax.ops import resize
from detjax.ops.label_argmax import label_argmax

SIZE = 1024, 2048
PIXELS, PART = 1 << 30, 1 << 24  # counted, and of one picture


def label_maps():
    """Rows of enlarged labels, and of confusion matrices."""
    for classes in (21, 150):
        yield from enlarged(classes)
    for classes in (21, 150, 1000):
        yield from counted(classes)


def enlarged(classes: int):
    """Both ways, each with the memory that it needs."""

    def fused(logits):
        return label_argmax(logits, SIZE)

    def in_turns(logits):
        whole = resize.bilinear(logits, SIZE)
        scores = jax.nn.softmax(whole)
        return whole.argmax(axis=-1).astype(jnp.uint8), scores.max(axis=-1)

    shape = (SIZE[0] // 8, SIZE[1] // 8, classes)
    logits = jnp.asarray(3 * np.random.default_rng(0).normal(size=shape), jnp.float32)
    runs, memory = [], []
    for function in (fused, in_turns):
        call = jax.jit(function)
        held = call.lower(logits).compile().memory_analysis()
        memory.append(held.temp_size_in_bytes / 1e6 if held else None)
        runs.append(ready(call, logits))
    same = np.mean(np.asarray(runs[0]()[0]) == np.asarray(runs[1]()[0]))
    assert same > 0.9999, same
    ours, theirs = in_turn(runs[0], runs[1], runs=5)
    size = f"{classes} classes, {SIZE[1]} x {SIZE[0]}"
    peer = f"enlarged first ({memory[1]:,.0f} MB)" if memory[1] else "enlarged first"
    yield Row("label_argmax", size, ours, peer, theirs, memory_mb=memory[0])


def counted(classes: int):
    """The matrix of a gigapixel, of one picture again and again."""
    kind = np.uint8 if classes < 256 else np.uint16
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.integers(0, classes, PART // 64), 64).astype(kind)
    found = truth.copy()
    wrong = rng.random(PART) < 0.1
    found[wrong] = rng.integers(0, classes, int(wrong.sum()))
    valid = rng.random(PART) < 0.95

    def bincount():
        pairs = truth[valid].astype(np.int64) * classes + found[valid].astype(np.int64)
        counts = np.bincount(pairs, minlength=classes**2)
        return counts.reshape(classes, classes)

    ours = functools.partial(semantic.confusion, truth, found, valid, classes)
    np.testing.assert_array_equal(ours(), bincount())
    times = [summed(one) for one in (ours, bincount)]
    size = f"{classes} classes, 2^30 pixels"
    yield Row("confusion", size, times[0], "numpy bincount", times[1])
    held = [jnp.asarray(x) for x in (truth, found, valid)]

    def device():
        return jax.block_until_ready(semantic.confusion_on_device(*held, classes))

    np.testing.assert_array_equal(device(), bincount())
    yield Row("confusion_on_device", size, summed(device), "numpy bincount", times[1])


def summed(call) -> float:
    """Milliseconds for all pictures, summed as an evaluation does."""
    call()
    begun = time.perf_counter()
    total = np.asarray(call(), np.int64)
    for _ in range(PIXELS // PART - 1):
        total = total + np.asarray(call(), np.int64)
    assert total.sum() > 0
    return 1e3 * (time.perf_counter() - begun)
