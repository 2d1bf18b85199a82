"""Methods of suppression side by side: one network, one pass, a meter each."""

import jax
import numpy as np
from families import SIDE, TINY

from detjax import compare_nms, models
from detjax.eval.collected import Collected
from detjax.tasks import detection
from detjax.types import Inputs


def made(methods):
    held = TINY["yolact"]
    return [
        models.make(**held | {"detect": held["detect"] | {"nms": method}})
        for method in methods
    ]


def test_the_network_runs_once_for_all_methods():
    several = made(("fast", "soft", "wbf"))
    images = np.random.default_rng(0).integers(0, 255, (1, SIDE, SIDE, 3), np.uint8)
    params, state = jax.jit(several[0].init)(jax.random.key(0), images)

    def compiled(model):
        return jax.jit(model.predict).lower(params, state, Inputs(images)).compile()

    program = compiled(compare_nms.together(several))
    convolutions = program.as_text().count("convolution(")
    # What follows suppression is each method's own: masks, and their heads.
    assert convolutions <= compiled(several[0]).as_text().count("convolution(") + 1
    answers = program(params, state, Inputs(images))
    for model, answer in zip(several, answers, strict=True):
        alone = jax.jit(model.predict)(params, state, Inputs(images))
        np.testing.assert_allclose(answer.scores, alone.scores, rtol=1e-4, atol=1e-6)


class Counting:
    """A meter that counts what is found."""

    def __init__(self):
        self._held = Collected()

    def add(self, place, found):
        self._held.add({"place": np.array([place]), "found": np.array([found])})

    @property
    def parts(self):
        return self._held.parts

    def result(self, parts):
        return {"sum": int(parts["found"].sum()), "rows": len(parts["place"])}


def test_each_meter_sees_its_own():
    meters = compare_nms.Meters([Counting(), Counting()])
    for place in range(3):
        meters.add(place, (place, 10 * place))
    found = meters.results(meters.parts)
    assert found == [{"sum": 3, "rows": 3}, {"sum": 30, "rows": 3}]


def test_answers_of_several_are_restored_one_by_one():
    task = compare_nms.task_of(detection.TASK._replace(restore=lambda a, b: a + b))
    assert task.restore((1, 2), 10) == [11, 12]


def test_the_table_has_what_the_task_has():
    found = {
        "greedy": {"bbox/AP": 0.5, "bbox/AP/cat": 0.4, "bbox/AR1": 0.1, "segm/AP": 0.3},
        "soft": {"bbox/AP": 0.6, "bbox/AP/cat": 0.4, "bbox/AR1": 0.1, "segm/AP": 0.2},
    }
    table = compare_nms.table(found)
    assert table.columns == ("nms", "bbox/AP", "segm/AP")
    assert table.rows == [("greedy", 0.5, 0.3), ("soft", 0.6, 0.2)]
