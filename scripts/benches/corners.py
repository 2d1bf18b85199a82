"""Corner pooling, Hourglass-104 and the decoding of corners."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benches import cases
from benches.timing import Row, in_turn, ready
from detjax.models.cornernet import Detect
from detjax.models.cornernet.net import Maps
from detjax.nn.images import NORMALIZED
from detjax.ops import corner_pool
from detjax.weights import convert

SIDE = 511


def corners() -> Iterator[Row]:
    """corner pooling forward and backward against torch's cummax; CornerNet with
    Hourglass-104 at 511 pixels, one image, against the same network in torch; the
    decoding of its corners, soft NMS included, against the network"""
    peers = cases.corner_peers()
    yield from pools(peers)
    yield from networks(peers)


def pools(peers: Any) -> Iterator[Row]:
    """Of maps as CornerNet's: 128 x 128 x 128."""
    x = np.random.default_rng(0).standard_normal((1, 128, 128, 128)).astype("f")
    for name, axis in (("top", 2), ("left", 3)):
        pool = jax.vmap(getattr(corner_pool, name))

        def gradient(x, pool=pool):
            return jax.grad(lambda x: jnp.sum(pool(x) ** 2))(x)

        forward = backward = None
        if peers:
            import torch

            given = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
            forward = functools.partial(peers.swept, given, axis, True)
            backward = functools.partial(_slope, peers, given, axis)
        for kind, ours, peer in (
            ("", pool, forward),
            ("_grad", gradient, backward),
        ):
            call = ready(jax.jit(ours), jnp.asarray(x))
            if peer:
                theirs = peer().permute(0, 2, 3, 1)
                np.testing.assert_allclose(call(), theirs, rtol=1e-4, atol=1e-4)
            times = in_turn(call, peer, runs=15)
            shown = "128 x 128 x 128"
            yield Row(f"corner_pool_{name}{kind}", shown, times[0], "torch", times[1])


def _slope(peers: Any, given: Any, axis: int) -> Any:
    given = given.clone().requires_grad_()
    (peers.swept(given, axis, True) ** 2).sum().backward()
    return given.grad


def networks(peers: Any) -> Iterator[Row]:
    image = np.random.default_rng(0).standard_normal((1, SIDE, SIDE, 3)).astype("f")
    model, params, state = cases.random_weights(
        SIDE, name="cornernet_hourglass104", pixels=NORMALIZED
    )
    variables = {"params": params, **state}
    # What predicting takes: the other hourglass's heads are left out.
    apply = jax.jit(lambda variables, image: model.net.apply(variables, image)[-1])
    maps, peer = apply(variables, image), None
    if peers:
        import torch

        held = convert.export(params, state, source="cornernet")
        net = peers.CornerNet(held)
        given = torch.from_numpy(image[..., ::-1].copy())
        given = given.permute(0, 3, 1, 2).contiguous()

        def peer():
            with torch.inference_mode():
                return net(given)

        for ours, theirs in zip(jax.tree.leaves(maps), peer(), strict=True):
            theirs = theirs.permute(0, 2, 3, 1).numpy().reshape(ours.shape)
            np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-2)
    times = in_turn(ready(apply, variables, image), peer, runs=3)
    yield Row("hourglass104", f"{SIDE} px", times[0], "torch", times[1])
    decoded = in_turn(ready(jax.jit(jax.vmap(decode)), busy(maps)), runs=15)
    yield Row("cornernet_decoding", f"{SIDE} px", decoded[0], "its network", times[0])


def decode(maps: Maps) -> Any:
    window, cell = jnp.array([0.0, 0, SIDE, SIDE]), SIDE / maps.tl.tag.shape[0]
    return Detect()(maps, window, scale=jnp.array([cell, cell]))


def busy(maps: Maps) -> Maps:
    """Maps of these shapes with many pairs, of few classes."""
    rng = np.random.default_rng(0)

    def corners(found: Any) -> Any:
        heat = rng.normal(-4, 1, found.heat.shape)
        heat[..., :4] += 4
        tag = rng.normal(0, 0.2, found.tag.shape)
        return found._replace(heat=heat.astype("f"), tag=tag.astype("f"))

    return Maps(corners(maps.tl), corners(maps.br))
