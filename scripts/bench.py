"""Measure detjax against its peers: python scripts/bench.py NAME... --json=FILE.

    fast_nms      80 classes x 19,248 boxes, top 200, against the same in torch
    greedy_nms    1,000 and 5,000 boxes, against torchvision.ops.nms
    yolact        YOLACT-550 R50, float32: the network against the same in torch, and
                  what comes after it against the network
    roi_align     the two formulations of RoIAlign, forward and backward, no peer
    two_stage     Faster and Mask R-CNN R50-FPN on a photograph of 480 x 640; no peer
    coco_eval     boxes at COCO val's size, against pycocotools
    loader        ms an image of the COCO recipe's input pipeline at batch 8, on the 26
                  photographs of DETJAX_DATA's coco_cc, against OpenCV decoding and
                  resizing alone on one thread, divided by the cores, and against a
                  straightforward pipeline in PIL that does the same
    checkpoint    ms for which saving holds the loop up, against a step of the
                  quickstart's network and of YOLACT-550 R50 at batch 1
    cold_start    a first process with the compilation cache against a second
    throughput    ms a batch in bfloat16 at batches 1, 8, 64 on an accelerator, against
                  the time that its peak arithmetic would take

Rows have the median of several runs after a warm-up, ours and the peer's in turn, but
for coco_eval's peer and cold_start, which run once; `ratio` is peer / ours. A peer that
cannot be loaded leaves its cells empty. Peers come with the extra `bench`.
"""

import argparse
import functools
import importlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from detjax import experiment, models, optim, sharding, train
from detjax.checkpoint import Checkpoints
from detjax.ops import masks, nms, roi
from detjax.types import Batch, Inputs, Objects, View
from detjax.weights import convert

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = ("jax", "jaxlib", "numpy", "torch", "torchvision", "pycocotools")
# bfloat16, dense
PEAK_TFLOPS = {"H100": 790.0, "H200": 790.0, "A100": 312.0}


def in_turn(ours, peer=None, runs=9):
    """Median milliseconds of each, run alternately after two warm-ups."""
    functions = [f for f in (ours, peer) if f]
    times: list[list[float]] = [[] for _ in functions]
    for i in range(runs + 2):
        for function, seen in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if i >= 2:
                seen.append(1e3 * (time.perf_counter() - start))
    found = [statistics.median(seen) for seen in times]
    return found[0], found[1] if peer else None


def row(name, size, ours_ms, peer=None, peer_ms=None):
    device = jax.devices()[0]
    return {
        "name": name,
        "size": size,
        "ours_ms": round(ours_ms, 3),
        "peer": peer,
        "peer_ms": None if peer_ms is None else round(peer_ms, 3),
        "ratio": None if peer_ms is None else round(peer_ms / ours_ms, 2),
        "device": f"{device.device_kind}, {os.cpu_count()} cores {platform.machine()}",
        "versions": {p: version(p) for p in PACKAGES if version(p)},
    }


@functools.cache
def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def ready(function, *args):
    return lambda: jax.block_until_ready(function(*args))


def torch_peers():
    """The module of torch peers, or None where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch
    import torch_peers

    torch.set_num_threads(os.cpu_count())
    return torch_peers


def random_boxes(rng, n, spread=550, side=80):
    low = rng.uniform(0, spread, (n, 2))
    return np.concatenate([low, low + rng.uniform(4, side, (n, 2))], 1).astype("f")


def fast_nms():
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
    yield row("fast_nms", "80 x 19,248, top 200", times[0], "torch", times[1])


def greedy_nms():
    try:
        import torch
        import torchvision
    except (ImportError, RuntimeError) as error:
        # A torchvision built for another torch finds no operators.
        print(f"greedy_nms: torchvision cannot be loaded: {error}", file=sys.stderr)
        torchvision = None
    for n in (1_000, 5_000):
        rng = np.random.default_rng(n)
        boxes, scores = random_boxes(rng, n), rng.random(n).astype("f")
        ours = jax.jit(lambda b, s: nms.greedy(b, s, 0.5))
        peer = None
        if torchvision:
            b, s = torch.from_numpy(boxes), torch.from_numpy(scores)
            peer = functools.partial(torchvision.ops.nms, b, s, 0.5)
            kept = np.flatnonzero(ours(boxes, scores))
            np.testing.assert_array_equal(kept, np.sort(peer().numpy()))
        times = in_turn(ready(ours, jnp.asarray(boxes), jnp.asarray(scores)), peer)
        yield row("greedy_nms", f"{n:,} boxes", times[0], "torchvision", times[1])


def random_weights(name):
    """Random weights of an original by its own names, and how to draw them again."""
    model = models.make(name)
    image = jnp.zeros((1, 550, 550, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    rng = np.random.default_rng(0)

    def drawn(x):
        if x.ndim > 1:
            return rng.standard_normal(x.shape, "f") * np.sqrt(
                2 / np.prod(x.shape[:-1])
            )
        return rng.uniform(0.2, 0.5, x.shape).astype("f")

    params, state = jax.tree.map(lambda x: drawn(x).astype("f"), shapes)
    return model, params, state


def yolact():
    model, params, state = random_weights("yolact_resnet50")
    image = np.random.default_rng(1).normal(0, 1, (1, 550, 550, 3)).astype("f")

    @jax.jit
    def network(params, state, image):
        out = model.net.apply({"params": params, **state}, image)
        return out.deltas, out.logits, out.coefficients, out.prototypes

    @jax.jit
    def whole(params, state, image):
        """Image to masks in the image's pixels, one program."""
        found = model.predict(params, state, Inputs(image))
        drawn = jax.vmap(lambda m: masks.resize(m, (550, 550)) > 0.5)(found.masks)
        return found.boxes, found.scores, found.labels, drawn

    peers, peer = torch_peers(), None
    arguments = (params, state, jnp.asarray(image))
    if peers:
        import torch

        held = convert.export(params, state, source="yolact", classes=80)
        net = peers.Yolact(held)
        x = torch.from_numpy(image).permute(0, 3, 1, 2).contiguous()

        def peer():
            with torch.inference_mode():
                return net(x)

        for a, b in zip(network(*arguments), peer(), strict=True):
            b = b.numpy()
            if b.shape[-1] == 81:
                b = np.roll(b, -1, axis=-1)
            assert np.abs(a - b).max() < 1e-3 * b.std(), "not the same network"
    ours_ms, peer_ms = in_turn(ready(network, *arguments), peer, runs=7)
    yield row("yolact_network", "R50, 550 px", ours_ms, "torch", peer_ms)
    whole_ms, alone_ms = in_turn(
        ready(whole, *arguments), ready(network, *arguments), runs=7
    )
    yield row("yolact_whole", "R50, 550 px", whole_ms, "its network", alone_ms)


def two_stage():
    """A photograph of 480 x 640, resized to 800 x 1067, to detections: one program."""
    for name in ("faster_rcnn_r50_fpn", "mask_rcnn_r50_fpn"):
        model, params, state = random_weights(name)
        image = np.random.default_rng(0).integers(0, 255, (1, 800, 1067, 3), np.uint8)
        arguments = params, state, Inputs(jnp.asarray(image))
        ours, _ = in_turn(ready(jax.jit(model.predict), *arguments), runs=3)
        yield row(name, "800 x 1067", ours, "torchvision")


def coco_eval():
    sys.path.insert(0, str(ROOT / "tests"))
    import eval_cases

    from detjax.eval import coco

    case = truths, results, ids = eval_cases.synthetic(5_000, 36_781, 300_000, 80, 0)
    ours, _ = in_turn(
        lambda: coco.evaluate(truths, results, image_ids=ids, num_classes=80), runs=3
    )
    peer = 1e3 * eval_cases.oracle(*eval_cases.to_coco(*case, 80)).seconds
    yield row("coco_eval", "5,000 images, 300,000 boxes", ours, "pycocotools", peer)


def checkpoint():
    """Milliseconds for which `save` holds a loop up, beside those of a step."""
    quickstart = importlib.import_module("configs.quickstart").get_config()
    small = {"num_classes": 4, **experiment.plain(quickstart.model)}
    for what, kwargs, side, count in (
        ("quickstart, batch 8", small, 128, 8),
        ("R50, 550 px, batch 1", {"name": "yolact_resnet50"}, 550, 1),
    ):
        model = models.make(**kwargs)
        optimizer, _ = optim.make(steps=1000, schedule={"peak": 1e-4})
        layout = sharding.make(devices=jax.devices()[:1])
        data = layout.put(noise(count, side))
        images = data.inputs.images
        run = jax.jit(train.create, static_argnums=(0, 1, 2, 3))(
            model.init, optimizer, jax.ShapeDtypeStruct(images.shape, np.uint8), 0
        )
        run = layout.keep(run)
        step = jax.jit(train.make_step(model, optimizer, layout), donate_argnums=0)
        with tempfile.TemporaryDirectory() as folder:
            held = Checkpoints(folder, keep=1)
            times: dict[str, list[float]] = {"step": [], "save": []}
            for i in range(1, 22):
                start = time.perf_counter()
                run, metrics = step(run, data, np.int32(i))
                jax.block_until_ready(metrics)
                times["step"].append(1e3 * (time.perf_counter() - start))
                if i % 5 == 1:
                    start = time.perf_counter()
                    held.save(i, run, {})
                    times["save"].append(1e3 * (time.perf_counter() - start))
            held.close()
        # The first of each compiles.
        lost, alone = (statistics.median(times[k][1:]) for k in ("save", "step"))
        yield row("checkpoint", what, lost, "a step", alone)


def noise(count, side):
    """A batch of noise with an object an image."""
    one = np.tile(
        np.array([side / 4, side / 4, side / 2, side / 2], "f"), (count, 1, 1)
    )
    images = np.random.default_rng(0).integers(0, 255, (count, side, side, 3), np.uint8)
    view = View(
        affine=np.tile(np.eye(2, 3, dtype="f"), (count, 1, 1)),
        sizes=np.full((count, 2), side, np.int32),
        valid=np.ones(count, bool),
    )
    objects = Objects(
        boxes=one,
        labels=np.zeros((count, 1), np.int32),
        valid=np.ones((count, 1), bool),
        crowd=np.zeros((count, 1), bool),
        masks=np.ones((count, 1, side // 4, side // 4), np.uint8),
    )
    return Batch(Inputs(images, view), objects, np.arange(count, dtype=np.int32))


COLD = """
import time; start = time.perf_counter()
import numpy as np, jax
from detjax import compilation, models
from detjax.types import Inputs
compilation.enable_cache()
model = models.make("yolact_resnet50")
image = np.zeros((1, 550, 550, 3), np.uint8)
shapes = jax.eval_shape(model.init, jax.random.key(0), image)
params, state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
ready = time.perf_counter()
jax.block_until_ready(jax.jit(model.predict)(params, state, Inputs(image)))
print(time.perf_counter() - start, time.perf_counter() - ready)
"""


def cold_start():
    """Seconds to a first prediction: of a process, and of its compile-and-run part."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "DETJAX_CACHE": folder}
        seen = [
            subprocess.run(
                [sys.executable, "-c", COLD],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            ).stdout.split()
            for _ in range(2)
        ]
    (cold, cold_part), (warm, warm_part) = (map(float, s) for s in seen)
    yield row("cold_start", "R50, process", 1e3 * warm, "no cache", 1e3 * cold)
    yield row(
        "cold_start", "R50, first predict", 1e3 * warm_part, "no cache", 1e3 * cold_part
    )


def throughput():
    """Images/s in bfloat16, the roofline as the peer; one row a batch size."""
    kind = jax.devices()[0].device_kind
    if jax.default_backend() == "cpu":
        print("throughput: no accelerator here, nothing measured", file=sys.stderr)
        return
    peak = next((v for k, v in PEAK_TFLOPS.items() if k in kind), None)
    for name in ("yolact_resnet50", "yolact_base"):
        model = models.make(name, dtype="bfloat16")
        predict = jax.jit(model.predict)
        for count in (1, 8, 64):
            images = jnp.zeros((count, 550, 550, 3), jnp.uint8)
            key = jax.random.key(0, impl="rbg")
            params, state = jax.jit(model.init)(key, images[:1])
            ours, _ = in_turn(ready(predict, params, state, Inputs(images)), runs=20)
            cost = (
                predict.lower(params, state, Inputs(images)).compile().cost_analysis()
            )
            roof = None if peak is None else cost["flops"] / peak / 1e9
            yield row(f"{name}_bf16", f"batch {count}", ours, "layer roofline", roof)


def loader():
    """Batches as a run gets them, timed from one batch's arrival to another's."""
    import bench_loader

    for size, taken, peer, its in bench_loader.rows():
        yield row("loader", size, taken, peer, its)


def roi_align():
    """Gathers as `ours`, the product with interpolation matrices as the peer."""
    rng = np.random.default_rng(0)
    for n, h, w in ((100, 16, 16), (512, 50, 68), (1000, 200, 272)):
        features = jnp.asarray(rng.standard_normal((h, w, 256)), jnp.float32)
        side = 4 * min(h, w)
        boxes = jnp.asarray(random_boxes(rng, n, 0.7 * side, 0.3 * side))

        def forward(features, boxes, method):
            return roi.align(features, boxes, bins=7, scale=0.25, method=method)

        def backward(features, boxes, method):
            return jnp.sum(forward(features, boxes, method) ** 2)

        for name, function in (("", forward), ("_grad", jax.grad(backward))):
            run = jax.jit(function, static_argnums=2)
            gather, einsum = (
                ready(run, features, boxes, method) for method in ("gather", "einsum")
            )
            ours, matrices = in_turn(gather, einsum, runs=3)
            size = f"{n} x 7x7x2 of {h}x{w}x256"
            yield row(f"roi_align{name}", size, ours, "einsum", matrices)


BENCHES = {
    f.__name__: f
    for f in (
        fast_nms,
        greedy_nms,
        yolact,
        roi_align,
        two_stage,
        coco_eval,
        loader,
        checkpoint,
        cold_start,
        throughput,
    )
}


def main(argv=None):
    sys.path.insert(0, str(ROOT))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=[*BENCHES, "all"])
    parser.add_argument("--json", help="where the rows go")
    given = parser.parse_args(argv)
    rows = []
    print(f"{'name':18} {'size':28} {'ours ms':>10} {'peer ms':>10} {'ratio':>7}  peer")
    for name in BENCHES if "all" in given.names else given.names:
        for found in BENCHES[name]():
            rows.append(found)
            peer, ratio = found["peer_ms"], found["ratio"]
            print(
                f"{found['name']:18} {found['size']:28} {found['ours_ms']:10.2f} "
                f"{'' if peer is None else f'{peer:.2f}':>10} "
                f"{'' if ratio is None else f'{ratio:.2f}':>7}  {found['peer']}"
                f"{' (not measured)' if peer is None else ''}",
                flush=True,
            )
            if given.json:
                pathlib.Path(given.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
