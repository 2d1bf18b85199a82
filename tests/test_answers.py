"""The device works ahead, threads behind: answers are what a plain loop finds."""

import json
import random
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from infos import info

from detjax import answers, evaluate, sharding
from detjax.data import crew, loader
from detjax.data.example import Prepare
from detjax.data.formats import shapes
from detjax.preemption import Interrupted
from detjax.tasks.detection import TASK
from detjax.tasks.detection.restore import restore
from detjax.tasks.detection.targets import Targets
from detjax.types import Detections, Inputs, Model, Spec

COUNT = 21


def several(params, state, inputs):
    """Detections that depend on the picture, with masks on boxes."""
    count, h, w, _ = inputs.images.shape
    mean = inputs.images.astype(jnp.float32).mean(axis=(1, 2)) / 255  # [b 3]
    corner = mean * jnp.array([w, h, w]) / 3
    boxes = jnp.stack([corner[:, 0], corner[:, 1], corner[:, 0] + 20, corner[:, 1] + 9])
    boxes = jnp.stack([boxes.T, boxes.T / 2], axis=1)
    grid = jnp.linspace(0, 1, 49).reshape(7, 7) * params
    masks = jnp.tile(grid, (count, 2, 1, 1)) + mean[:, :2, None, None] / 2
    return Detections(
        boxes=boxes,
        scores=mean[:, :2],
        labels=jnp.tile(jnp.arange(2), (count, 1)),
        valid=jnp.ones((count, 2), bool),
        box_masks=masks,
    )


MODEL = Model(Spec("detection", 4), None, None, several, None)
INFO = info("abcd", category_ids=(3, 5, 6, 9), has_masks=False)


@pytest.fixture(scope="module")
def records():
    return shapes.records("val", COUNT, size=48)


def batches(records, size=4):
    return loader.eval_loader(records, Prepare((32, 32), Targets(4)), batch_size=size)


def found(records, task=TASK, devices=1, **options):
    """The meter and its parts after an evaluation."""
    layout = sharding.make(devices=jax.devices()[:devices])
    meter = task.meter(records, INFO, [r.id for r in records])
    options = {"layout": layout, "progress": False, **options}
    loaded = options.pop("loader", None) or batches(records)
    return meter, evaluate.predict_all(
        MODEL, task, jnp.float32(1), {}, loaded, meter, **options
    )


def written(meter, parts):
    return json.dumps([*meter.files(parts)["results.json"]()])


def one_by_one(records):
    """The entries of results.json, of a plain loop over the images."""
    call, rows = jax.jit(several), []
    for batch in batches(records):
        answer = jax.device_get(call(jnp.float32(1), {}, batch.inputs))
        view = batch.inputs.view
        for i in np.flatnonzero(view.valid):
            what = restore(
                jax.tree.map(lambda x, i=i: x[i], answer),
                view.affine[i],
                tuple(view.sizes[i].tolist()),
                (32, 32),
            )
            number = records[batch.index[i]].id
            rows += TASK.entries(what, number, INFO.category_ids)
    return json.dumps(rows)


@pytest.mark.parametrize("devices", [1, 8])
def test_results_are_those_of_a_loop_in_its_order(records, devices, monkeypatch):
    """Whatever threads do, on several devices that the batches do not divide among."""
    random.seed(0)

    def slowly(*image):
        time.sleep(random.random() / 100)
        return restore(*image)

    monkeypatch.setattr(answers, "host_threads", lambda: 5)
    task = TASK._replace(restore=slowly)
    expected = one_by_one(records)
    assert len(json.loads(expected)) == 2 * COUNT
    for _ in range(2):
        assert written(*found(records, task, devices)) == expected


def ended():
    """Whether no thread of a pool is left."""
    names = [thread.name for thread in threading.enumerate()]
    return not any(n.startswith(("rows", "ThreadPool")) for n in names)


def test_what_goes_wrong_ends_an_evaluation_and_its_threads(records):
    def broken(answer, affine, size, network_size):
        raise OSError("no memory of it")

    with pytest.raises(OSError, match="no memory of it"):
        found(records, TASK._replace(restore=broken))
    assert ended()

    seen = []

    def stop():
        seen.append(1)
        return len(seen) > 3

    with pytest.raises(Interrupted):
        found(records, stop=stop)
    assert ended() and len(seen) == 4

    def failing():
        yield from list(batches(records))[:2]
        raise ValueError("a record is broken")

    with pytest.raises(ValueError, match="a record is broken"):
        found(records, loader=failing())
    assert ended()


def test_few_batches_are_under_way_at_a_time(records):
    """Also where bringing answers back takes longest."""
    under_way, most = [0], []

    def counted():
        for batch in batches(records, 1):
            under_way[0] += 1
            yield batch

    def slowly(*image):
        time.sleep(0.005)
        most.append(under_way[0])
        return restore(*image)

    class Counting:
        def add(self, place, what):
            under_way[0] -= 1

        parts = ()

    evaluate.predict_all(
        MODEL,
        TASK._replace(restore=slowly),
        jnp.float32(1),
        {},
        counted(),
        Counting(),
        layout=sharding.make(devices=jax.devices()[:1]),
        progress=False,
    )
    assert len(most) == COUNT
    limit = answers.AHEAD + 1 + answers.host_threads() + 1
    assert max(most) <= limit


def test_the_next_batches_are_sent_before_one_is_waited_for():
    order = []

    class Layout:
        local_shares = 1

        def put_inputs(self, inputs):
            return inputs

        def fetched(self, answers):
            return lambda: order.append(f"wait {answers}")

    def call(inputs):
        order.append(f"send {int(inputs.images[0])}")
        return int(inputs.images[0])

    things = [(i, Inputs(np.array([i]))) for i in range(4)]
    list(answers.answered(call, things, Layout()))
    assert order[:4] == ["send 0", "send 1", "send 2", "wait 0"]
    assert order[4:] == ["send 3", "wait 1", "wait 2", "wait 3"]


def test_behind_and_filled_up():
    made = []

    def things():
        for i in range(5):
            made.append(i)
            yield i

    late = answers.behind(things(), 2)
    assert next(late) == 0 and made == [0, 1, 2]
    assert [*late] == [1, 2, 3, 4] and [*answers.behind([], 2)] == []
    rows = np.arange(6).reshape(3, 2)
    assert answers.filled_up(rows, 4, 3).tolist() == [[0, 1], [2, 3], [4, 5], [4, 5]]
    assert answers.filled_up(rows, 3, 3) is rows


def test_serial_work_takes_as_many_threads_as_it_is_told():
    seen = set()

    def work(i):
        seen.add(threading.current_thread().name)
        time.sleep(0.002)
        return 2 * i

    assert [*crew.serial(work, range(20), 3)] == [*range(0, 40, 2)]
    assert len(seen) <= 3
    assert ended()
