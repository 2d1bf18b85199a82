"""Runs of every family: they go on where they were, and survive a loss gone wrong."""

import json

import jax
import numpy as np
import pytest
from families import OF_PIXELS, batch, everything, task_of, with_inputs

from detjax import log, models, optim, train

# The others differ in nothing that a run sees.
QUICK = (
    "rcnn",
    *[name for name in everything() if task_of(name) in OF_PIXELS][:1],
)
STEPS = 4

pytestmark = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
        for name in everything()
    ],
)


class Batches:
    """A loader of other batches for ever; an image of number `poisoned` is NaN."""

    def __init__(self, name, poisoned=None):
        self.name, self.poisoned = name, poisoned

    def __iter__(self):
        return Stream(self.name, self.poisoned)


class Stream:
    def __init__(self, name, poisoned):
        self.number, self.name, self.poisoned = 0, name, poisoned

    def __next__(self):
        self.number += 1
        data = batch(count=8, seed=self.number, name=self.name)
        images = data.inputs.images.astype(np.float32) / 128 - 1
        if self.number == self.poisoned:
            images[0] = np.nan
        return with_inputs(data, images=images)

    def images(self):
        images = batch(count=8, seed=1).inputs.images
        return jax.ShapeDtypeStruct(images.shape, np.float32)

    def get_state(self):
        return {"number": self.number}

    def set_state(self, state):
        self.number = state["number"]

    def names(self, batch):
        return [f"image {i}" for i in batch.index.tolist()]

    def close(self):
        pass


def fit(name, workdir, steps, poisoned=None):
    optimizer, rate = optim.make(steps=STEPS, name="adamw", schedule={"peak": 1e-3})
    return train.fit(
        # A byte cannot be NaN.
        models.make(**{**everything()[name], "pixels": "normalized"}),
        optimizer,
        rate,
        Batches(name, poisoned),
        workdir=workdir,
        steps=steps,
        log_every=1,
        checkpoint_every=2,
        progress=False,
    )


def losses(workdir):
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def test_a_run_goes_on_as_if_nothing_had_happened(name, tmp_path):
    straight = fit(name, tmp_path / "straight", STEPS)
    fit(name, tmp_path / "stopped", 2)
    with pytest.raises(log.NonFiniteLoss):
        fit(name, tmp_path / "stopped", STEPS, poisoned=4)
    assert (tmp_path / "stopped" / "failed-4").is_dir()
    resumed = fit(name, tmp_path / "stopped", STEPS)
    ours, theirs = (
        jax.device_get((run.params, run.state, run.opt_state, run.step))
        for run in (resumed, straight)
    )
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "straight")
