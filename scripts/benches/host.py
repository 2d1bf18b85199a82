"""What the host does beside a network: metrics, checkpoints, starting."""

import os
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from benches import cases
from benches.timing import Row, in_turn
from detjax import experiment, models, optim, sharding, train
from detjax.checkpoint import Checkpoints

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


def coco_eval():
    """boxes at COCO val's size, against pycocotools"""
    from detjax.eval import coco
    from tests import eval_cases

    case = truths, results, ids = eval_cases.synthetic(5_000, 36_781, 300_000, 80, 0)
    ours, _ = in_turn(
        lambda: coco.evaluate(truths, results, image_ids=ids, num_classes=80), runs=3
    )
    peer = 1e3 * eval_cases.oracle(*eval_cases.to_coco(*case, 80)).seconds
    yield Row("coco_eval", "5,000 images, 300,000 boxes", ours, "pycocotools", peer)


def checkpoint():
    """what saving holds the loop up for, against a step of the quickstart's network
    and of YOLACT-550 R50 at batch 1"""
    from configs import quickstart

    small = {"num_classes": 4, **experiment.plain(quickstart.get_config().model)}
    for what, kwargs, side, count in (
        ("quickstart, batch 8", small, 128, 8),
        ("R50, 550 px, batch 1", {"name": "yolact_resnet50"}, 550, 1),
    ):
        lost, alone = saving(kwargs, side, count)
        yield Row("checkpoint", what, lost, "a step", alone)


def saving(settings, side, count):
    """Milliseconds for which saves hold a loop up, and those of its steps."""
    model = models.make(**settings)
    optimizer, _ = optim.make(steps=1000, schedule={"peak": 1e-4})
    layout = sharding.make(devices=jax.devices()[:1])
    data = layout.put(cases.noise(count, (side, side)))
    images = data.inputs.images
    run = jax.jit(train.create, static_argnums=(0, 1, 2, 3))(
        model.init, optimizer, jax.ShapeDtypeStruct(images.shape, np.uint8), 0
    )
    run = layout.keep(run)
    step = jax.jit(train.make_step(model, optimizer, layout), donate_argnums=0)
    steps, saves = [], []
    with tempfile.TemporaryDirectory() as folder:
        held = Checkpoints(folder, keep=1)
        for i in range(1, 22):
            start = time.perf_counter()
            run, metrics = step(run, data, np.int32(i))
            jax.block_until_ready(metrics)
            steps.append(1e3 * (time.perf_counter() - start))
            if i % 5 == 1:
                start = time.perf_counter()
                held.save(i, run, {})
                saves.append(1e3 * (time.perf_counter() - start))
        held.close()
    # The first of each compiles.
    return statistics.median(saves[1:]), statistics.median(steps[1:])


def cold_start():
    """a first process with the compilation cache against a second"""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "DETJAX_CACHE": folder,
            # Beside a process that has begun to use the device.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
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
    yield Row("cold_start", "R50, process", 1e3 * warm, "no cache", 1e3 * cold)
    yield Row(
        "cold_start", "R50, first predict", 1e3 * warm_part, "no cache", 1e3 * cold_part
    )
