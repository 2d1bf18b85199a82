"""Whether a config fits its data and the run that a work directory holds."""

import json
import pathlib
import re
import sys

from detjax import cluster, experiment, optim
from detjax import predict as prediction
from detjax.data import sizing
from detjax.data.builder import Info
from detjax.errors import UserError
from detjax.experiment import Settings


def check(described: Settings, info: Info, workdir: pathlib.Path) -> None:
    """Raises UserError if the parts of an experiment are inconsistent.

    That is the model and the data set, or this config and the run in `workdir`.
    """
    have, want = len(info.classes), described["model"]["num_classes"]
    if have != want:
        raise UserError(
            f"the data set {info.name!r} has {have} classes, the model {want}; "
            f"leave model.num_classes out, or set --config.model.num_classes={have}"
        )
    path = workdir / "config.json"
    if path.exists():
        before = prediction.read_config(path)
        # A run without a checkpoint does not constrain the config.
        kept = (workdir / "checkpoints").glob("[0-9]*")
        step = max((int(p.name) for p in kept if p.name.isdecimal()), default=None)
        if step is not None:
            compare(before, json.loads(json.dumps(described)), workdir, step)


# A learning rate that changes by more than this factor is worth a warning.
JUMP = 1.5
# Settings that a resumed run cannot change: its network, its data, the meaning of its
# metrics, and what is read only at the first step.
FIXED = re.compile(
    rf"model\.(?!backbone\.remat$)|classes$|category_ids$"
    rf"|data\.({'|'.join(sizing.KEYWORDS)}|sizes|size_every)$|data\.seed$|train\.seed$"
)


# What may change when nothing is left to train: how a run is evaluated and kept.
UNTRAINED = re.compile(
    r"eval\.|sharding\.|data\.(eval_|prepare|threads$|workers$|data_dir$|on_error$"
    r"|max_skipped$)|train\.(keep|grace_seconds|log_every|checkpoint_every"
    r"|evaluate_every|best|best_is|steps)$"
)


def compare(before: Settings, now: Settings, workdir: pathlib.Path, step: int) -> None:
    """Prints the settings that a run changes that is resumed at `step`.

    A learning rate that jumps is a warning. Raises UserError for settings that cannot
    change, and where nothing is left to train with those that do.
    """
    changed = experiment.changes(with_defaults(before, now), now)
    # A batch has one size, and begins where batches of another number would not.
    bucketed = any(len(now["data"].get(k) or ()) > 1 for k in ("buckets", "sizes"))
    for name, (was, wanted) in changed.items():
        if FIXED.match(name) or (bucketed and name == "data.batch_size"):
            raise UserError(
                f"{workdir} holds a run with {name}={was}, the config says {wanted}; "
                "set it back, or choose another --workdir"
            )
    listed = ", ".join(f"{k} {was} -> {new}" for k, (was, new) in changed.items())
    steps = now["train"]["steps"]
    if step >= steps and any(not UNTRAINED.match(name) for name in changed):
        raise UserError(
            f"{workdir} holds a run of {step} steps, so nothing would be trained up to "
            f"train.steps={steps} with other settings ({listed}); raise train.steps, "
            "set them back, or choose another --workdir"
        )
    if step > steps:
        raise UserError(
            f"{workdir} holds a run of {step} steps, more than train.steps={steps}; "
            "raise it, or choose another --workdir"
        )
    if not cluster.primary():
        return
    if step == steps:
        print(f"{workdir} is trained up to {step}: it is evaluated", file=sys.stderr)
    if changed:
        print(f"{workdir} goes on with other settings: {listed}", file=sys.stderr)
    if step < steps:
        warn_of_jump(with_defaults(before, now), now, step)


def warn_of_jump(before: Settings, now: Settings, step: int) -> None:
    """Warns if the learning rate after `step` is not what it was to be."""
    was, new = (
        float(
            optim.learning_rate(
                steps=held["train"]["steps"], **held["optimizer"]["schedule"]
            )(step)
        )
        for held in (before, now)
    )
    if max(was, new) > JUMP * min(was, new):
        decay = now["optimizer"]["schedule"].get("decay", "cosine")
        print(
            f"warning: the learning rate at step {step} was {was:.3g} and is now "
            f"{new:.3g}: optimizer.schedule (decay={decay!r}) and train.steps="
            f"{now['train']['steps']} say so; a shorter rest can be trained from "
            "these weights with train.init_from and another --workdir",
            file=sys.stderr,
        )


def with_defaults(before: Settings, now: Settings) -> Settings:
    """An earlier config.json with defaults for settings added since."""
    held = {
        section: before[section] if isinstance(before.get(section), dict) else {}
        for section in experiment.SECTIONS
    }
    named = {**held, "model": {**held["model"], "name": now["model"]["name"]}}
    filled = json.loads(json.dumps(experiment.complete(named)))
    filled["model"]["name"] = held["model"].get("name")
    # Which earlier versions did not write.
    return {"keypoints": now.get("keypoints"), **before, **filled}
