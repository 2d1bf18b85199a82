"""The train step and the loop around it, for any `Model`."""

import contextlib
import dataclasses
import json
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
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


class Preempted(SystemExit):
    """The process was told to end, and the run is saved: exit status 143."""

    def __init__(self, step: int):
        super().__init__(128 + signal.SIGTERM)
        self.step = step


@contextlib.contextmanager
def terminations() -> Iterator[threading.Event]:
    """An event that is set when SIGTERM comes, which then does not end the process.

    Outside the main thread signals cannot be caught, and the event is never set.
    """
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)


def begin(
    model: Model,
    optimizer: optax.GradientTransformation,
    stream: Any,
    checkpoints: Checkpoints,
    mesh: jax.sharding.Mesh,
    *,
    seed: int,
    init_from: str | pathlib.Path | None,
    init_allow: str | None,
) -> tuple[TrainState, dict[str, Any]]:
    """The run to go on with and the log's sums; `stream` is put where it was."""
    start = stream.get_state()
    images = next(stream).images
    run = jax.device_put(
        jax.jit(create, static_argnums=(0, 1, 3))(model, optimizer, images, seed),
        sharding.replicated(mesh),
    )
    if checkpoints.latest() is not None:
        run, position = checkpoints.restore(run)
        stream.set_state(position["loader"])
        return run, position["log"]
    stream.set_state(start)
    if init_from:
        run, report = transfer.start(run, init_from, init_allow)
        run = jax.device_put(run, sharding.replicated(mesh))
        print(f"{len(report.loaded)} arrays from {init_from}", file=sys.stderr)
        for name in report.left:
            print(f"left at initialisation: {name}", file=sys.stderr)
    return run, {}


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
    `weights.transfer.start` for it and `init_allow`. A run that was stopped goes on as
    if it had not been: same parameters, same batches, same log.

    Raises NonFiniteLoss, what was saved before staying; and Preempted after SIGTERM,
    with the run saved.
    """
    mesh = mesh or sharding.make_mesh()
    stream = iter(loader)
    checkpoints = Checkpoints(workdir, keep=keep)
    run, sums = begin(
        model,
        optimizer,
        stream,
        checkpoints,
        mesh,
        seed=seed,
        init_from=init_from,
        init_allow=init_allow,
    )
    step = jax.jit(make_step(model, optimizer), donate_argnums=0)
    first = int(run.step)
    path = pathlib.Path(workdir) / "metrics.jsonl"
    last = None  # the step whose metrics are still being computed
    with (
        # Whatever ends the run, a checkpoint that is being written is finished.
        contextlib.closing(checkpoints),
        Log(path, rate, first, steps, sums, progress) as log,
        terminations() as told,
    ):
        for i in range(first + 1, steps + 1):
            batch = next(stream)
            run, metrics = step(run, sharding.put(batch, mesh))
            # One step behind, so that the device always has the next step to do.
            if last:
                log.add(*last)
            last = (i, metrics, batch.ids, len(batch.ids) * jax.process_count())
            stop = told.is_set()
            write = i == steps or i % log_every == 0
            save = i == steps or i % checkpoint_every == 0 or stop
            if write or save:
                log.add(*last)
                last = None
            if write:
                log.write()
            if save:
                position = {"loader": stream.get_state(), "log": log.sums}
                checkpoints.save(i, run, position)
            if stop:
                raise Preempted(i)
            if evaluate and evaluate_every and i % evaluate_every == 0:
                log.put({"step": i, **evaluate(run)})
                log.restart_clock()
    return run


class Log:
    """Means of metrics over some steps, into a progress bar and a file.

    `sums` is what was summed since the last line when the run stopped. Lines of steps
    after `first`, which the run goes on from, are taken back.
    """

    def __init__(self, path, rate, first: int, steps: int, sums: dict, progress: bool):
        self.sums: dict[str, Any] = sums
        self._rate = rate
        rows = path.read_text().splitlines() if path.exists() else []
        rest = path.with_suffix(".tmp")
        rest.write_text("".join(f"{r}\n" for r in rows if before(r, first)))
        rest.replace(path)
        self._file = path.open("a")
        self._bar = tqdm.tqdm(
            total=steps, initial=first, disable=not progress, unit="step", smoothing=0.1
        )
        self._cut_told = False
        self._step = first
        self.restart_clock()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()
        self._file.close()

    def restart_clock(self) -> None:
        """Leaves the time up to now out of images/s."""
        self._images, self._since = 0, time.perf_counter()

    def add(self, step: int, metrics: dict[str, Any], ids, images: int) -> None:
        """Counts one step in; raises NonFiniteLoss."""
        metrics = {k: float(v) for k, v in jax.device_get(metrics).items()}
        check_finite(step, metrics, ids)
        for name, value in {**metrics, "steps": 1}.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self._step = step
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
        sums, self.sums = self.sums, {}
        cut, count = sums.pop("cut"), sums.pop("steps")
        self.put(
            {
                "step": self._step,
                **{name: value / count for name, value in sums.items()},
                "lr": float(self._rate(self._step - 1)),
                "images/s": self._images / seconds,
                "objects cut": cut,
            }
        )
        if cut and not self._cut_told:
            self._cut_told = True
            self._bar.write(
                f"warning: {cut:.0f} objects up to step {self._step} did not fit into "
                "data.max_objects and were not learnt; raise it to keep them"
            )
        self.restart_clock()


def before(row: str, step: int) -> bool:
    """Whether a line of the log is whole and of `step` or earlier."""
    try:
        return json.loads(row)["step"] <= step
    except (ValueError, KeyError):
        return False
