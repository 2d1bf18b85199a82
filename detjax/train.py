"""The train step and the loop around it, for any `Model`."""

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from detjax import files, replay, sharding
from detjax.checkpoint import Checkpoints, TrainState
from detjax.errors import UserError, mended_by
from detjax.log import Log, NonFiniteLoss
from detjax.preemption import Interrupted, Preempted, Watch
from detjax.settings import Count, Location, NonNegative, Pattern, Seed, Whole
from detjax.sharding import Layout
from detjax.types import Batch, Model
from detjax.weights import transfer


def create(
    init: Callable[..., Any],
    optimizer: optax.GradientTransformation,
    images: Any,
    seed: int,
) -> TrainState:
    """The initial state of a run; `init` is a model's.

    Only the shape of `images` is used.
    """
    # Initialising hundreds of tensors compiles five times faster with XLA's own
    # generator; steps draw little, and the default one draws the same on any mesh.
    params, state = init(
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
    model: Model, optimizer: optax.GradientTransformation, layout: Layout
) -> Callable[[TrainState, Batch, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """The train step, for the caller to jit: (run, batch, step) -> (run, metrics).

    A step whose loss, gradient or update is not finite changes nothing, nor does any
    later one: the run keeps the state and the step number before it.
    """

    def step(train_state: TrainState, batch: Batch, number: Any):
        def loss(params):
            with layout.rows():
                return model.loss(
                    layout.gather(params),
                    train_state.state,
                    batch,
                    step_key(train_state),
                )

        (value, (state, metrics)), gradients = jax.value_and_grad(loss, has_aux=True)(
            train_state.params
        )
        updates, opt_state = optimizer.update(
            gradients, train_state.opt_state, train_state.params
        )
        norm = optax.tree.norm(gradients)
        # No later loss would reveal a non-finite last update of a run.
        moved = optax.tree.norm(updates)
        # Nor are the last batch statistics part of any loss.
        sound = [value, norm, moved, optax.tree.norm(state) if state else 0.0]
        finite = jnp.isfinite(jnp.stack([jnp.float32(x) for x in sound])).all()
        metrics = {
            "loss": value,
            **metrics,
            "grad_norm": norm,
            "update_norm": jnp.where(finite, moved, jnp.nan),
            "counts": jax.tree.map(jnp.sum, batch.counts),
        }
        after = dataclasses.replace(
            train_state,
            step=train_state.step + 1,
            params=optax.apply_updates(train_state.params, updates),
            state=state,
            opt_state=opt_state,
        )
        good = finite & (train_state.step == number - 1)
        return jax.tree.map(
            lambda a, b: jnp.where(good, a, b), after, train_state
        ), metrics

    return step


def step_key(train_state: TrainState) -> jax.Array:
    """The random key of the run's next step."""
    return jax.random.fold_in(
        jax.random.wrap_key_data(train_state.key), train_state.step
    )


def begin(
    model: Model,
    optimizer: optax.GradientTransformation,
    stream: Any,
    checkpoints: Checkpoints,
    layout: Layout,
    *,
    seed: int,
    init_from: str | pathlib.Path | None,
    init_allow: str | None,
) -> tuple[TrainState, dict[str, Any]]:
    """The run to resume and the log's sums; restores the position of `stream`."""
    start = stream.get_state()
    images = next(stream).inputs.images
    made = jax.jit(
        create, static_argnums=(0, 1, 2, 3), out_shardings=layout.replicated()
    )
    shape = jax.ShapeDtypeStruct(images.shape, images.dtype)
    # A network that cannot be traced at this size has inconsistent settings.
    see = "see model and data.size in the config, and --debug for the trace"
    with mended_by(see, (TypeError, ValueError)):
        train_state = made(model.init, optimizer, shape, seed)
    if checkpoints.latest() is not None:
        train_state, position = checkpoints.restore(layout.keep(train_state))
        where = checkpoints.directory / str(int(train_state.step)) / "loader"
        with files.reading(where, "put a copy of the checkpoint back"):
            stream.set_state(position["loader"])
            return train_state, position["log"]
    stream.set_state(start)
    if init_from:
        train_state, report = transfer.start(train_state, init_from, init_allow)
        print(f"{len(report.loaded)} arrays from {init_from}", file=sys.stderr)
        for name in report.left:
            print(f"left at initialisation: {name}", file=sys.stderr)
    return layout.keep(train_state), {}


def fit(
    model: Model,
    optimizer: optax.GradientTransformation,
    rate: optax.Schedule,
    loader: Any,
    *,
    workdir: Location,
    steps: Whole,
    seed: Seed = 0,
    log_every: Count = 50,
    checkpoint_every: Count = 1000,
    keep: Count = 3,
    grace_seconds: NonNegative = 30.0,
    init_from: Location | None = None,
    init_allow: Pattern | None = None,
    evaluate: Callable[..., dict[str, float]] | None = None,
    evaluate_every: Whole = 0,
    best: str | None = None,
    layout: Layout | None = None,
    warnings: Callable[[dict[str, float]], dict[str, str]] = lambda sums: {},
    begun: Callable[[], Any] = lambda: None,
    profile: int = 0,
    progress: bool = True,
) -> TrainState:
    """Trains up to `steps`, resuming from the newest checkpoint in `workdir` if any.

    Writes `workdir`/metrics.jsonl and, for TensorBoard, `workdir`/tensorboard: every
    `log_every` steps the losses (means over those steps), lr, images/s, the sums of the
    batches' counts (with `warnings` about them) and compiled programs; and every
    `evaluate_every` steps, if set, the metrics returned by `evaluate`, which is called
    with the run and a function that tells whether to stop. Keeps the newest `keep`
    checkpoints, and in `workdir`/best the one with the highest metric named `best`.
    `begun` is called once the resumed state is known. The `profile`-th step from the
    start is traced by jax.profiler into `workdir`/profile.

    A new run starts from the weights in the folder `init_from`, if set; see
    `weights.transfer.start` for it and `init_allow`. An interrupted run resumes
    exactly, on any layout: same parameters, same batches, same log.

    Raises NonFiniteLoss, with the batch and the state before it in
    `workdir`/failed-<step> (see `replay`) and earlier checkpoints kept; and Preempted
    after SIGTERM, Ctrl-C or SIGHUP, with the run saved if that takes at most
    `grace_seconds`.
    """
    if best and not (evaluate and evaluate_every):
        raise UserError(
            f"train.best={best!r} is a metric of evaluations on the way; set "
            "train.evaluate_every too"
        )
    layout = layout or sharding.make()
    workdir = pathlib.Path(workdir)
    stream = iter(loader)
    checkpoints = Checkpoints(workdir, keep=keep)
    train_state, sums = begin(
        model,
        optimizer,
        stream,
        checkpoints,
        layout,
        seed=seed,
        init_from=init_from,
        init_allow=init_allow,
    )
    begun()
    step = jax.jit(
        make_step(model, optimizer, layout),
        donate_argnums=0,
        out_shardings=(layout.of(train_state), layout.replicated()),
    )
    first = int(train_state.step)
    last: tuple | None = None  # the step whose metrics are still being computed

    def position():
        return {"loader": stream.get_state(), "log": log.sums}

    def count_last():
        nonlocal last
        if last is None:
            return
        i, metrics, batch = last
        last = None
        try:
            log.add(i, metrics, len(batch.index) * jax.process_count())
        except NonFiniteLoss as error:
            # Only finite states are checkpointed; writing is asynchronous.
            names = stream.names(batch)
            replay.save(workdir, i, train_state, batch, names)
            raise NonFiniteLoss(
                f"{error}; images of the batch: {', '.join(names)}; the last good "
                "checkpoint is kept: lower the learning rate, set "
                "optimizer.clip_norm, or look at these images"
            ) from None

    def evaluate_now(i):
        try:
            row = evaluate(train_state, watch.now)
        except Interrupted:
            raise Preempted(watch.signal, i) from None
        if best:
            keep_best(workdir, best, i, row, train_state, position())
        log.put({"step": i, **row})
        log.restart_clock()

    def due(i):
        return bool(evaluate and evaluate_every and i and i % evaluate_every == 0)

    with (
        # Until the end: SIGTERM must not interrupt the last checkpoint.
        Watch(grace_seconds) as watch,
        # Pending checkpoints are finished however the run ends.
        contextlib.closing(checkpoints),
        contextlib.closing(stream),
        Log(workdir, rate, first, steps, sums, progress, warnings) as log,
    ):
        if due(first) and not any(is_evaluation(row, first) for row in log.rows):
            evaluate_now(first)
        for i in range(first + 1, steps + 1):
            try:
                batch = next(stream)
            except UserError:
                # The steps up to here are valid, so save them; with several processes
                # the others do not know of the error and would not join the collective
                # save.
                if i - 1 > first and jax.process_count() == 1:
                    count_last()
                    checkpoints.save(i - 1, train_state, position())
                raise
            with profiled(workdir, i - first == profile) as done:
                train_state, metrics = step(train_state, layout.put(batch), np.int32(i))
                done(metrics)
            # One step behind, so that the device always has a step queued.
            count_last()
            last = (i, metrics, batch)
            stop = watch.at(i)
            write = i == steps or i % log_every == 0
            # An evaluation interrupted by a kill restarts from here.
            save = i == steps or i % checkpoint_every == 0 or stop or due(i)
            if write or save:
                count_last()
            if write:
                log.write()
            if save:
                checkpoints.save(i, train_state, position())
            if stop:
                checkpoints.wait()
                raise Preempted(watch.signal, i)
            if due(i):
                evaluate_now(i)
    if watch.now():
        raise Preempted(watch.signal, steps)
    return train_state


def is_evaluation(row: dict[str, Any], step: int) -> bool:
    """Whether a line of the log has the evaluation metrics of `step`."""
    return row["step"] == step and "loss" not in row


def keep_best(
    workdir: pathlib.Path,
    metric: str,
    step: int,
    row: dict[str, float],
    train_state: TrainState,
    position: dict[str, Any],
) -> None:
    """Saves `run` in `workdir`/best if its `metric` in `row` beats the saved one.

    Raises UserError if `row` has no such metric.
    """
    if metric not in row:
        raise UserError(
            f"train.best={metric!r} is not a metric; choose one of {', '.join(row)}"
        )
    with contextlib.closing(Checkpoints(workdir, keep=None, folder="best")) as held:
        values = {
            before: held.position(before).get("metrics", {}).get(metric, -np.inf)
            for before in held.steps()
        }
        if row[metric] > max(values.values(), default=-np.inf):
            if step in values:
                # From before this run fell back to an earlier step, which `checkpoints`
                # has too.
                held.delete(step)
            held.save(step, train_state, {**position, "metrics": row})
            held.wait()
            values[step] = row[metric]
        # Last, so that a kill at any moment leaves the best so far.
        top = max(values, key=values.get, default=None)
        for other in values.keys() - {top}:
            held.delete(other)


@contextlib.contextmanager
def profiled(workdir: pathlib.Path, wanted: bool):
    """Traces the block if `wanted`; yields a function to call with the results."""
    if not wanted:
        yield lambda results: None
        return
    with jax.profiler.trace(str(workdir / "profile")):
        yield jax.block_until_ready
