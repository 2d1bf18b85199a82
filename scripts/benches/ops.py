"""Suppression and RoIAlign alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benches.cases import random_boxes, torch_peers, torchvision_peers
from benches.timing import Row, in_turn, ready
from detjax.ops import nms, roi


def fast_nms():
    """80 classes x 19,248 boxes, top 200, against the same in torch"""
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 19_248)
    logits = rng.normal(0, 2, (80, 19_248)).astype("f")
    scores = np.exp(logits) / np.exp(logits).sum(0)
    ours = jax.jit(lambda b, s: nms.fast(b, s, 0.5, 200, 100))
    peers, peer = torch_peers(), None
    if peers:
        import torch

        b, s = torch.from_numpy(boxes), torch.from_numpy(scores)
        peer = functools.partial(peers.fast_nms, b, s)
        np.testing.assert_allclose(peer()[2], ours(boxes, scores)[2], rtol=1e-5)
    times = in_turn(ready(ours, jnp.asarray(boxes), jnp.asarray(scores)), peer)
    yield Row("fast_nms", "80 x 19,248, top 200", times[0], "torch", times[1])


def greedy_nms():
    """1,000, 5,000 and 20,000 boxes, against torchvision.ops.nms"""
    peers = torchvision_peers()
    for n in (1_000, 5_000, 20_000):
        rng = np.random.default_rng(n)
        boxes, scores = random_boxes(rng, n), rng.random(n).astype("f")
        ours = jax.jit(lambda b, s: nms.greedy(b, s, 0.5))
        peer = peers and peers.nms(boxes, scores)
        if peer:
            kept = np.flatnonzero(ours(boxes, scores))
            np.testing.assert_array_equal(kept, np.sort(peer().numpy()))
        times = in_turn(ready(ours, jnp.asarray(boxes), jnp.asarray(scores)), peer)
        yield Row("greedy_nms", f"{n:,} boxes", times[0], "torchvision", times[1])


def roi_align():
    """the two formulations of RoIAlign, gathers as ours and products with
    interpolation matrices as the peer, forward and backward"""
    rng = np.random.default_rng(0)
    for n, h, w in ((100, 16, 16), (512, 50, 68), (1000, 200, 272)):
        features = jnp.asarray(rng.standard_normal((h, w, 256)), jnp.float32)
        side = 4 * min(h, w)
        boxes = jnp.asarray(random_boxes(rng, n, 0.7 * side, 0.3 * side))
        for name, function in (("", aligned), ("_grad", aligned_gradient)):
            run = jax.jit(function, static_argnums=2)
            gather, einsum = (
                ready(run, features, boxes, method) for method in ("gather", "einsum")
            )
            ours, matrices = in_turn(gather, einsum, runs=3)
            size = f"{n} x 7x7x2 of {h}x{w}x256"
            yield Row(f"roi_align{name}", size, ours, "einsum", matrices)


def aligned(features, boxes, method):
    return roi.align(features, boxes, bins=7, scale=0.25, method=method)


def aligned_gradient(features, boxes, method):
    return jax.grad(lambda x: jnp.sum(jnp.float32(aligned(x, boxes, method)) ** 2))(
        features
    )
