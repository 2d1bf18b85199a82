"""The train step and the loop around it, for any `Model`."""

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from detjax import accumulate as accumulation
from detjax import cluster, files, optim, replay, sharding
from detjax.best import comparison, keep_best
from detjax.checkpoint import Checkpoints, TrainState
from detjax.errors import UserError, mended_by
from detjax.log import Log, NonFiniteLoss
from detjax.models import ema
from detjax.nn.frozen_statistics import frozen_statistics
from detjax.preemption import Interrupted, Preempted, Watch
from detjax.settings import Count, Location, NonNegative, Pattern, Seed, Whole
from detjax.sharding import Layout
from detjax.types import Batch, Model
from detjax.weights import source, transfer, transfer_report


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
    model: Model,
    optimizer: optax.GradientTransformation,
    layout: Layout,
    accumulate: int = 1,
    steps_taken: int = 0,
) -> Callable[[TrainState, Batch, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """The train step, for the caller to jit: (run, batch, step) -> (run, metrics).

    A batch is computed in `accumulate` parts, see `accumulate.value_and_grad`. There is
    no gradient of what the optimizer has frozen after `steps_taken`, and none of it
    in "grad_norm"; batch norms among it keep their statistics.
    A step whose loss, gradient or update is not finite changes nothing, nor does any
    later one: the run keeps the state and the step number before it.
    """

    def step(train_state: TrainState, batch: Batch, number: Any):
        learnt, frozen = optim.split_frozen(optimizer, train_state.params, steps_taken)
        norms = optim.frozen_norms(optimizer, train_state.params, steps_taken)

        def loss(learnt, state, batch, key):
            with layout.traced(), frozen_statistics(norms):
                params = layout.gather(optim.joined(learnt, frozen))
                return model.loss(params, state, batch, key)

        value_and_grad = accumulation.value_and_grad(loss, accumulate, layout)
        (value, (state, metrics)), gradients = value_and_grad(
            learnt, train_state.state, batch, step_key(train_state)
        )
        norm = optax.tree.norm(gradients)
        gradients = optim.joined(gradients, jax.tree.map(jnp.zeros_like, frozen))
        updates, opt_state = optimizer.update(
            gradients, train_state.opt_state, train_state.params
        )
        params = optax.apply_updates(train_state.params, updates)
        if model.updated is not None:
            state = model.updated(params, state)
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
            params=params,
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
    """The run to resume and the log's sums; restores the position of `stream`.

    Nothing is drawn of it, so that its threads or processes are started once.
    """
    made = jax.jit(
        create, static_argnums=(0, 1, 2, 3), out_shardings=layout.replicated()
    )
    # A network that cannot be traced at this size has inconsistent settings.
    see = "see model and data.size in the config, and --debug for the trace"
    with mended_by(see, (TypeError, ValueError)):
        train_state = made(model.init, optimizer, stream.images(), seed)
    if checkpoints.latest() is not None:
        train_state, position = checkpoints.restore(layout.keep(train_state))
        where = checkpoints.directory / str(int(train_state.step)) / "loader"
        with files.reading(where, "put a copy of the checkpoint back"):
            stream.set_state(position["loader"])
            return train_state, position["log"]
    if init_from:
        workdir = checkpoints.directory.parent
        train_state = started(train_state, model, init_from, init_allow, workdir)
    return layout.keep(train_state), {}


def started(
    train_state: TrainState,
    model: Model,
    init_from: str | pathlib.Path,
    init_allow: str | None,
    workdir: pathlib.Path,
) -> TrainState:
    """`train_state` with the weights of `init_from`, see `weights.transfer`.

    What is taken is printed, and written to `workdir`/transfer.txt.
    """
    train_state, report = transfer.start(train_state, init_from, init_allow, model)
    if cluster.primary():
        held = transfer.flat(train_state.params, ema.own(train_state.state))
        folder = pathlib.Path(init_from)
        if folder.is_dir():
            folder = folder / source.run_and_folder(folder)[1]
        title = f"{len(report.loaded)} arrays taken from {folder}"
        groups = model.spec.groups
        print(f"{title}\n{transfer_report.text(report, held, groups)}", file=sys.stderr)
        whole = f"{title}\n{transfer_report.text(report, held, groups, None)}\n"
        files.write_text(workdir / "transfer.txt", whole)
        theirs = source.pixels(init_from)
        ours = getattr(model.net, "pixels", None)
        if theirs and ours and theirs != ours:
            print(
                f"warning: {init_from} has learnt from model.pixels={theirs!r}, this "
                f"run sees {ours!r}: set --config.model.pixels={theirs}",
                file=sys.stderr,
            )
    return train_state


def fit(
    model: Model,
    optimizer: optax.GradientTransformation,
    rate: optax.Schedule,
    loader: Any,
    *,
    workdir: Location,
    steps: Whole,
    seed: Seed = 0,
    accumulate: Count = 1,
    log_every: Count = 50,
    checkpoint_every: Count = 1000,
    keep: Count = 3,
    grace_seconds: NonNegative = 30.0,
    init_from: Location | None = None,
    init_allow: Pattern | None = None,
    evaluate: Callable[..., dict[str, float]] | None = None,
    evaluate_every: Whole = 0,
    best: str | None = None,
    best_is: Literal["highest", "lowest"] | None = None,
    layout: Layout | None = None,
    warnings: Callable[[dict[str, float]], dict[str, str]] = lambda sums: {},
    begun: Callable[[], Any] = lambda: None,
    opened: Callable[[Log, int], Any] = lambda log, step: None,
    evaluated: Callable[[Log, int], Any] = lambda log, step: None,
    profile: int = 0,
    progress: bool = True,
) -> TrainState:
    """Trains up to `steps`, resuming from the newest checkpoint in `workdir` if any.

    steps: updates of the parameters.
    seed: of the initialisation and of what steps draw.
    accumulate: the parts that a batch is computed in, one after the other, to save
        memory; see `accumulate.value_and_grad`.
    log_every: steps between lines of the log.
    checkpoint_every: steps between checkpoints.
    keep: the newest checkpoints that stay.
    grace_seconds: after SIGTERM, the time in which the run has to be saved.
    init_from: a folder of imported weights, or of a run (its best checkpoint if it kept
        one, else its newest), that a new run starts from; its backbone has to fit.
    init_allow: parameters of the backbone that may stay at their initialisation then.
    evaluate_every: steps between evaluations on the way; 0 is none.
    best: the metric of these whose best checkpoint stays in `workdir`/best.
    best_is: whether that is the highest or the lowest; None is the lowest of losses,
        the highest of all others.

    Writes `workdir`/metrics.jsonl and, for TensorBoard, `workdir`/tensorboard: the
    losses (means over `log_every` steps), lr, images/s, the sums of the batches' counts
    (with `warnings` about them) and compiled programs; and the metrics returned by
    `evaluate`, which is called with the run and a function that tells whether to stop.
    `begun` is called once the resumed state is known, `opened` with the log and the
    step when that is open, `evaluated` with them after each evaluation. The
    `profile`-th step from the start is traced by jax.profiler into `workdir`/profile.

    An interrupted run resumes exactly, on any layout: same parameters, same batches,
    same log. See `weights.transfer.start` for `init_from` and `init_allow`.

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
    better = comparison(best or "", best_is)
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
    out = layout.of(train_state), layout.replicated()

    def compiled(steps_taken):
        made = make_step(model, optimizer, layout, accumulate, steps_taken)
        return jax.jit(made, donate_argnums=0, out_shardings=out)

    stages = getattr(optimizer, "stages", ())
    step = compiled(int(train_state.step))
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
        held = best and keep_best(workdir, best, row, train_state, position(), better)
        log.put({"step": i, **row})
        if progress and cluster.primary():
            log.say(f"step {i}: {headline(row)}{', the best so far' * bool(held)}")
        evaluated(log, i)
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
        opened(log, first)
        if first and first < steps and progress and cluster.primary():
            log.say(f"goes on from step {first}")
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
            if i - 1 in stages and i - 1 > first:
                step = compiled(i - 1)
                if progress and cluster.primary():
                    log.say(f"step {i}: more layers learn; the step is compiled anew")
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


def headline(row: dict[str, float]) -> str:
    """The first two metrics of each kind of an evaluation, in a line."""
    kinds: dict[str, list[str]] = {}
    for name in row:
        kind = name.rpartition("/")[0]
        # Those of single classes are called after a metric of all of them.
        if kind not in row:
            kinds.setdefault(kind, []).append(name)
    first = [name for names in kinds.values() for name in names[:2]]
    return ", ".join(f"{name} {row[name]:.4g}" for name in first)


@contextlib.contextmanager
def profiled(workdir: pathlib.Path, wanted: bool):
    """Traces the block if `wanted`; yields a function to call with the results."""
    if not wanted:
        yield lambda results: None
        return
    with jax.profiler.trace(str(workdir / "profile")):
        yield jax.block_until_ready
