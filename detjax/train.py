"""The train step and the loop around it, for any `Model`."""

import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from detjax import sharding
from detjax.checkpoint import Checkpoints, TrainState
from detjax.types import Batch, Model
from detjax.weights import transfer


def create(
    model: Model, optimizer: optax.GradientTransformation, images: Any, seed: int
) -> TrainState:
    """The state of a run before its first step; `images` only lend their shape."""
    # Drawing hundreds of tensors compiles five times faster with XLA's own generator;
    # steps draw little, and with the default one the same on any mesh.
    params, state = model.init(
        jax.random.key(seed, impl="rbg"), jnp.zeros(images.shape, images.dtype)
    )
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        state=state,
        opt_state=optimizer.init(params),
        key=jax.random.key_data(jax.random.key(seed)),
    )


def make_step(
    model: Model, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """One step, for the caller to jit: (run, batch) -> (run, metrics)."""

    def step(run: TrainState, batch: Batch):
        key = jax.random.fold_in(jax.random.wrap_key_data(run.key), run.step)
        (loss, (state, metrics)), gradients = jax.value_and_grad(
            model.loss, has_aux=True
        )(run.params, run.state, batch, key)
        updates, opt_state = optimizer.update(gradients, run.opt_state, run.params)
        metrics = {
            "loss": loss,
            **metrics,
            "grad_norm": optax.tree.norm(gradients),
            "cut": jnp.sum(batch.cut),
        }
        run = dataclasses.replace(
            run,
            step=run.step + 1,
            params=optax.apply_updates(run.params, updates),
            state=state,
            opt_state=opt_state,
        )
        return run, metrics

    return step


class NonFiniteLoss(ArithmeticError):
    """A loss became infinite or not a number; the last good checkpoint is kept."""


def check_finite(step: int, metrics: dict[str, Any], ids: np.ndarray) -> None:
    """Raises NonFiniteLoss with the step, the losses and the batch's image ids."""
    if np.isfinite(metrics["loss"]) and np.isfinite(metrics["grad_norm"]):
        return
    parts = ", ".join(f"{k}={float(v):.4g}" for k, v in metrics.items())
    raise NonFiniteLoss(
        f"the loss is not finite at step {step}: {parts}; image ids of the batch: "
        f"{ids.tolist()}; the last good checkpoint is kept: lower the learning rate, "
        "set optimizer.clip_norm, or look at these images"
    )


def fit(
    model: Model,
    optimizer: optax.GradientTransformation,
    rate: optax.Schedule,
    loader: Any,
    *,
    workdir: str | pathlib.Path,
    steps: int,
    seed: int = 0,
    log_every: int = 50,
    checkpoint_every: int = 1000,
    keep: int = 3,
    init_from: str | pathlib.Path | None = None,
    init_allow: str | None = None,
    evaluate: Callable[[TrainState], dict[str, float]] | None = None,
    evaluate_every: int = 0,
    mesh: jax.sharding.Mesh | None = None,
    progress: bool = True,
) -> TrainState:
    """Trains up to `steps`, from the newest checkpoint in `workdir` if there is one.

    Writes `workdir`/metrics.jsonl, an object every `log_every` steps: step, losses
    (means over those steps), lr, images/s, objects cut off by the padding; and what
    `evaluate` says of the run every `evaluate_every` steps, where that is set.

    A new run begins with the weights of the folder `init_from`, where that is set; see
    `weights.transfer.start` for it and `init_allow`.

    Raises NonFiniteLoss; what was saved before stays.
    """
    mesh = mesh or sharding.make_mesh()
    workdir = pathlib.Path(workdir)
    stream = iter(loader)
    start_position = stream.get_state()
    batch = next(stream)
    checkpoints = Checkpoints(workdir, keep=keep)
    run = jax.device_put(
        jax.jit(create, static_argnums=(0, 1, 3))(model, optimizer, batch.images, seed),
        sharding.replicated(mesh),
    )
    if checkpoints.latest() is None:
        stream.set_state(start_position)
        if init_from:
            run, report = transfer.start(run, init_from, init_allow)
            run = jax.device_put(run, sharding.replicated(mesh))
            print(f"{len(report.loaded)} arrays from {init_from}", file=sys.stderr)
            for name in report.left:
                print(f"left at initialisation: {name}", file=sys.stderr)
    else:
        run, position = checkpoints.restore(run)
        stream.set_state(position)
    step = jax.jit(make_step(model, optimizer), donate_argnums=0)
    log = Log(workdir / "metrics.jsonl", rate, int(run.step), steps, progress)
    last = None  # the step whose metrics are still being computed
    with log:
        for i in range(int(run.step), steps):
            batch = next(stream)
            run, metrics = step(run, sharding.put(batch, mesh))
            # One step behind, so that the device always has the next step to do.
            if last:
                log.add(*last)
            last = (i + 1, metrics, batch.ids, len(batch.ids) * jax.process_count())
            done = i + 1 == steps
            if done or (i + 1) % log_every == 0 or (i + 1) % checkpoint_every == 0:
                log.add(*last)
                last = None
            if done or (i + 1) % log_every == 0:
                log.write()
            if done or (i + 1) % checkpoint_every == 0:
                checkpoints.save(i + 1, run, stream.get_state())
            if evaluate and evaluate_every and (i + 1) % evaluate_every == 0:
                log.put({"step": i + 1, **evaluate(run)})
    checkpoints.close()
    return run


class Log:
    """Means of metrics over some steps, into a progress bar and a file."""

    def __init__(self, path, rate, first: int, steps: int, progress: bool):
        self._file = path.open("a")
        self._rate = rate
        self._bar = tqdm.tqdm(
            total=steps, initial=first, disable=not progress, unit="step", smoothing=0.1
        )
        self._cut_told = False
        self._reset(first)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()
        self._file.close()

    def _reset(self, step: int):
        self._sums: dict[str, float] = {}
        self._step, self._count, self._images = step, 0, 0
        self._since = time.perf_counter()

    def add(self, step: int, metrics: dict[str, Any], ids, images: int) -> None:
        """Counts one step in; raises NonFiniteLoss."""
        metrics = {k: float(v) for k, v in jax.device_get(metrics).items()}
        check_finite(step, metrics, ids)
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._step, self._count = step, self._count + 1
        self._images += images
        self._bar.update(step - self._bar.n)
        self._bar.set_postfix(loss=f"{metrics['loss']:.3f}", refresh=False)

    def put(self, row: dict[str, float]) -> None:
        """One line of the file."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def write(self) -> None:
        """One line of the means since the last."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        cut = self._sums.pop("cut")
        row = {
            "step": self._step,
            **{k: v / self._count for k, v in self._sums.items()},
            "lr": float(self._rate(self._step - 1)),
            "images/s": self._images / seconds,
            "objects cut": cut,
        }
        self.put(row)
        if cut and not self._cut_told:
            self._cut_told = True
            self._bar.write(
                f"warning: {cut:.0f} objects up to step {self._step} did not fit into "
                "data.max_objects and were not learnt; raise it to keep them"
            )
        self._reset(self._step)
