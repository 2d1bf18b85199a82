"""Answers of all images of a split: programs, layouts, what reaches a meter."""

from typing import NamedTuple

import jax.numpy as jnp

from detjax import compilation, evaluate, sharding
from detjax.data.example import Prepare
from detjax.tasks import detection
from detjax.tasks.detection.targets import Targets
from detjax.types import Detections, Model, Spec


class Info(NamedTuple):
    """What a meter reads of a data set's information."""

    classes: tuple[str, ...] = ("a",)
    category_ids: tuple[int, ...] = (7,)


def full_image(params, state, inputs):
    """A prediction for tests: each image is one object, as sure as a parameter says."""
    count, h, w, _ = inputs.images.shape
    return Detections(
        boxes=jnp.tile(jnp.array([0.0, 0.0, w, h]), (count, 1, 1)),
        scores=jnp.full((count, 1), params),
        labels=jnp.zeros((count, 1), jnp.int32),
        valid=jnp.ones((count, 1), bool),
    )


def filled(size, count=3):
    batch = Prepare(size, Targets(1)).empty(count, size)
    view = batch.inputs.view
    batch.inputs.images[:], view.valid[:], view.sizes[:] = 0, True, size
    return batch


def test_only_the_first_evaluation_compiles():
    """Also where its layout is made anew, as for a run that goes on."""
    model = Model(Spec("detection", 1), None, None, full_image, None)
    batches = [filled((32, 48)), filled((48, 32)), filled((32, 48), 2)]

    def detect(score):
        before = compilation.count()
        meter = detection.TASK.meter([], Info(), ["a"])
        parts = evaluate.predict_all(
            model,
            detection.TASK,
            jnp.float32(score),
            {},
            batches,
            meter,
            layout=sharding.make(),
            progress=False,
        )
        assert [row["score"] for _, row in parts] == [score] * 8
        assert {row["image_id"] for _, row in parts} == {"a"}
        return compilation.count() - before

    assert detect(0.5) >= 2  # one a bucket
    assert detect(0.25) == 0
