"""Answers of all images of a split: programs, layouts, what reaches a meter."""

import jax
import jax.numpy as jnp
import pytest
from infos import info

from detjax import compilation, evaluate, sharding
from detjax.data.example import Prepare
from detjax.errors import UserError
from detjax.tasks import classification, detection
from detjax.tasks.detection.targets import Targets
from detjax.types import Detections, Model, Spec, Table


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
        meter = detection.TASK.meter([], info(), ["a"])
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
        assert parts["scores"].tolist() == [score] * 8
        assert not parts["places"].any()
        return compilation.count() - before

    assert detect(0.5) >= 2  # one a bucket
    assert detect(0.25) == 0


def test_the_loss_of_a_split_is_the_mean_of_its_images():
    """On four devices, with a last batch that is filled up."""

    def loss(params, state, batch, key):
        valid = batch.inputs.view.valid
        each = jnp.float32(batch.index) * params
        mean = jnp.sum(each * valid) / jnp.maximum(valid.sum(), 1)
        return mean, (state, {"part": 2 * mean})

    model = Model(Spec("detection", 1), None, loss, None, None)
    batches = [filled((8, 8), 4), filled((8, 8), 3)]
    batches[0].index[:], batches[1].index[:] = (1, 2, 3, 4), (5, 6, 70)
    batches[1].inputs.view.valid[2] = False
    for devices in (1, 4):
        layout = sharding.make(devices=jax.devices()[:devices])
        found = evaluate.losses(
            model, jnp.float32(0.5), {}, batches, layout=layout, progress=False
        )
        mean = 0.5 * (1 + 2 + 3 + 4 + 5 + 6) / 6
        assert found == pytest.approx({"val/loss": mean, "val/part": 2 * mean})


def test_the_names_of_metrics_are_known_before_anything_is_read():
    known = info(("a", "b"), keypoints=("nose",))
    meter = detection.TASK.meter([], known, [], max_detections=(1, 50))
    names = meter.names()
    assert {"bbox/AP", "bbox/AR50", "segm/AP50", "keypoints/APm", "bbox/AP/b"} <= {
        *names
    }
    assert "bbox/AR100" not in names
    # Those of boxes are what an evaluation says, in its order.
    assert [n for n in names if n.startswith("bbox")] == [
        n for n in meter.result({}) if n.startswith("bbox")
    ]
    scores = classification.TASK.meter([], info(("a", "b")), [])
    assert scores.names() == [*scores.result({})]


def test_what_is_found_in_some_images_is_kept_and_all_is_measured():
    class Counting:
        parts = ()

        def add(self, place, found):
            self.parts += ((place, found),)

    meter = Counting()
    keeping = evaluate.Keeping(meter, {1: None, 5: None})
    for place in range(4):
        keeping.add(place, f"found {place}")
    assert keeping.kept == {1: "found 1"}
    assert keeping.parts == meter.parts and len(keeping.parts) == 4


def test_an_empty_split_has_no_loss_and_says_so():
    model = Model(Spec("detection", 1), None, lambda *_: None, None, None)
    with pytest.raises(UserError, match=r"has no image, .* data\.eval_split"):
        evaluate.losses(model, jnp.float32(0.5), {}, [], progress=False)


def test_results_are_written_as_a_stream_where_they_are_functions(tmp_path):
    table = Table(("class",), [("a",)], 0)
    held = {"results.json": lambda: iter([{"a": 1}, {"b": 2}]), "other.json": {"c": 3}}
    evaluate.write(tmp_path, {"AP": 0.5}, evaluate.Results(held, {}, table))
    assert (tmp_path / "results.json").read_text() == '[{"a": 1}, {"b": 2}]'
    assert (tmp_path / "other.json").read_text() == '{"c": 3}'
