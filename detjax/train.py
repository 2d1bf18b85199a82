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
from detjax.sharding import Layout
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
    model: Model, optimizer: optax.GradientTransformation, layout: Layout
) -> Callable[[TrainState, Batch, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """One step, for the caller to jit: (run, batch, its number) -> (run, metrics).

    A step whose loss, gradient or update is not finite changes nothing, nor does any
    after it: the run stays at the number before, as it was when that happened.
    """

    def step(run: TrainState, batch: Batch, number: Any):
        def loss(params):
            with layout.rows():
                return model.loss(
                    layout.gather(params), run.state, batch, step_key(run)
                )

        (value, (state, metrics)), gradients = jax.value_and_grad(loss, has_aux=True)(
            run.params
        )
        updates, opt_state = optimizer.update(gradients, run.opt_state, run.params)
        norm = optax.tree.norm(gradients)
        # The last update of a run has no loss after it that would show it.
        moved = optax.tree.norm(updates)
        # Of batch statistics, too, the last ones are in no loss.
        sound = [value, norm, moved, optax.tree.norm(state) if state else 0.0]
        finite = jnp.isfinite(jnp.stack([jnp.float32(x) for x in sound])).all()
        metrics = {
            "loss": value,
            **metrics,
            "grad_norm": norm,
            "update_norm": jnp.where(finite, moved, jnp.nan),
            "objects": jnp.sum(batch.objects.valid & batch.valid[:, None]),
            "cut": jnp.sum(batch.cut),
            "small": jnp.sum(batch.small),
        }
        after = dataclasses.replace(
            run,
            step=run.step + 1,
            params=optax.apply_updates(run.params, updates),
            state=state,
            opt_state=opt_state,
        )
        good = finite & (run.step == number - 1)
        return jax.tree.map(lambda a, b: jnp.where(good, a, b), after, run), metrics

    return step


def step_key(run: TrainState) -> jax.Array:
    """The key of the run's next step."""
    return jax.random.fold_in(jax.random.wrap_key_data(run.key), run.step)


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
    """The run to go on with and the log's sums; `stream` is put where it was."""
    start = stream.get_state()
    images = next(stream).images
    made = jax.jit(
        create, static_argnums=(0, 1, 2, 3), out_shardings=layout.replicated()
    )
    shape = jax.ShapeDtypeStruct(images.shape, images.dtype)
    # A network that cannot be traced at this size is one of odd settings.
    see = "see model and data.size in the config, and --debug for the trace"
    with mended_by(see, (TypeError, ValueError)):
        run = made(model, optimizer, shape, seed)
    if checkpoints.latest() is not None:
        run, position = checkpoints.restore(layout.keep(run))
        where = checkpoints.directory / str(int(run.step)) / "loader"
        with files.reading(where, "put a copy of the checkpoint back"):
            stream.set_state(position["loader"])
            return run, position["log"]
    stream.set_state(start)
    if init_from:
        run, report = transfer.start(run, init_from, init_allow)
        print(f"{len(report.loaded)} arrays from {init_from}", file=sys.stderr)
        for name in report.left:
            print(f"left at initialisation: {name}", file=sys.stderr)
    return layout.keep(run), {}


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
    grace_seconds: float = 30.0,
    init_from: str | pathlib.Path | None = None,
    init_allow: str | None = None,
    evaluate: Callable[..., dict[str, float]] | None = None,
    evaluate_every: int = 0,
    best: str | None = None,
    layout: Layout | None = None,
    begun: Callable[[], Any] = lambda: None,
    profile: int = 0,
    progress: bool = True,
) -> TrainState:
    """Trains up to `steps`, from the newest checkpoint in `workdir` if there is one.

    Writes `workdir`/metrics.jsonl and, for TensorBoard, `workdir`/tensorboard: every
    `log_every` steps the losses (means over those steps), lr, images/s, objects cut off
    by the padding and programs compiled; and what `evaluate`, called with the run and a
    function that says whether to leave off, says every `evaluate_every` steps, where
    that is set. The newest `keep` checkpoints stay, and in `workdir`/best the one with
    the highest of these metrics by the name of `best`. `begun` is called once it is
    known what the run goes on from. The `profile`-th step from the start is traced by
    jax.profiler into `workdir`/profile.

    A new run begins with the weights of the folder `init_from`, where that is set; see
    `weights.transfer.start` for it and `init_allow`. A run that was stopped goes on as
    if it had not been, on any layout: same parameters, same batches, same log.

    Raises NonFiniteLoss, with the batch and the state before it in
    `workdir`/failed-<step> (see `replay`), what was saved before staying; and Preempted
    after SIGTERM, Ctrl-C or SIGHUP, with the run saved, if that takes at most
    `grace_seconds`.
    """
    counts = {"log_every": log_every, "checkpoint_every": checkpoint_every}
    for name, count in {**counts, "keep": keep}.items():
        if count < 1:
            raise UserError(f"train.{name}={count} is below 1; set it to 1 or more")
    if best and not (evaluate and evaluate_every):
        raise UserError(
            f"train.best={best!r} is a metric of evaluations on the way; set "
            "train.evaluate_every too"
        )
    layout = layout or sharding.make()
    workdir = pathlib.Path(workdir)
    stream = iter(loader)
    checkpoints = Checkpoints(workdir, keep=keep)
    run, sums = begin(
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
        out_shardings=(layout.of(run), layout.replicated()),
    )
    first = int(run.step)
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
            # Writing goes on in the background, of checkpoints that are good.
            names = stream.names(batch)
            replay.save(workdir, i, run, batch, names)
            raise NonFiniteLoss(
                f"{error}; images of the batch: {', '.join(names)}; the last good "
                "checkpoint is kept: lower the learning rate, set "
                "optimizer.clip_norm, or look at these images"
            ) from None

    def judge(i):
        try:
            row = evaluate(run, watch.now)
        except Interrupted:
            raise Preempted(watch.signal, i) from None
        if best:
            keep_best(workdir, best, i, row, run, position())
        log.put({"step": i, **row})
        log.restart_clock()

    def due(i):
        return bool(evaluate and evaluate_every and i and i % evaluate_every == 0)

    with (
        # To the end: what SIGTERM must not cut short is the last checkpoint.
        Watch(grace_seconds) as watch,
        # Whatever ends the run, a checkpoint that is being written is finished.
        contextlib.closing(checkpoints),
        contextlib.closing(stream),
        Log(workdir, rate, first, steps, sums, progress) as log,
    ):
        if due(first) and not any(is_judgement(row, first) for row in log.rows):
            judge(first)
        for i in range(first + 1, steps + 1):
            try:
                batch = next(stream)
            except UserError:
                # The steps up to here are as good as any; among several processes the
                # others do not know of it and would not come to write with this one.
                if i - 1 > first and jax.process_count() == 1:
                    count_last()
                    checkpoints.save(i - 1, run, position())
                raise
            with profiled(workdir, i - first == profile) as done:
                run, metrics = step(run, layout.put(batch), np.int32(i))
                done(metrics)
            # One step behind, so that the device always has the next step to do.
            count_last()
            last = (i, metrics, batch)
            stop = watch.at(i)
            write = i == steps or i % log_every == 0
            # An evaluation that a kill cuts short is begun again from here.
            save = i == steps or i % checkpoint_every == 0 or stop or due(i)
            if write or save:
                count_last()
            if write:
                log.write()
            if save:
                checkpoints.save(i, run, position())
            if stop:
                checkpoints.finish()
                raise Preempted(watch.signal, i)
            if due(i):
                judge(i)
    if watch.now():
        raise Preempted(watch.signal, steps)
    return run


def is_judgement(row: dict[str, Any], step: int) -> bool:
    """Whether a line of the log is what an evaluation said at `step`."""
    return row["step"] == step and "loss" not in row


def keep_best(
    workdir: pathlib.Path,
    metric: str,
    step: int,
    row: dict[str, float],
    run: TrainState,
    position: dict[str, Any],
) -> None:
    """Saves `run` in `workdir`/best if `row` has more of `metric` than what is there.

    Raises UserError where `row` has no such metric.
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
                # Of this run before it fell back; `checkpoints` has this step too.
                held.delete(step)
            held.save(step, run, {**position, "metrics": row})
            held.finish()
            values[step] = row[metric]
        # Last, so that a kill at any moment leaves what was best so far.
        top = max(values, key=values.get, default=None)
        for other in values.keys() - {top}:
            held.delete(other)


@contextlib.contextmanager
def profiled(workdir: pathlib.Path, wanted: bool):
    """Yields a function to call with the results; traces what is inside if `wanted`."""
    if not wanted:
        yield lambda results: None
        return
    with jax.profiler.trace(str(workdir / "profile")):
        yield jax.block_until_ready
