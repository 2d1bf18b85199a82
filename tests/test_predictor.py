"""Pictures of any size in batches: the answers of one at a time, in few programs."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from detjax import compilation, draw, predict_files, predictor
from detjax.predictor import Predictor, grouped, in_order, known, prepared
from detjax.tasks import detection
from detjax.types import Detections

TASK = detection.TASK
SIZES = [(20, 30), (30, 20), (20, 30), (25, 25), (22, 33), (31, 20), (20, 30), (9, 9)]
DECLARED = {"buckets": ((16, 24), (24, 16)), "letterbox": True}


def brightest(params, state, inputs):
    """A box that begins where the picture says."""
    count = len(inputs.images)
    mean = inputs.images.astype(jnp.float32).mean(axis=(1, 2)) / 64
    boxes = jnp.concatenate([mean[:, :2], mean[:, :2] + 9], axis=1)
    return Detections(
        boxes=boxes[:, None],
        scores=jnp.full((count, 1), params),
        labels=jnp.zeros((count, 1), jnp.int32),
        valid=jnp.ones((count, 1), bool),
    )


def made(predict=brightest, **options):
    def prepare(image, proposals=None):
        return prepared(image, proposals, None, False, **DECLARED)

    return Predictor(predict, TASK, jnp.float32(0.9), {}, prepare, **options)


def pictures(sizes=SIZES):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in sizes]


def answers(predict, images):
    given = ((i, predict.prepare(image)) for i, image in enumerate(images))
    return in_order((i, known(answer)) for i, _, answer in predict.answers(given))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_batches_find_what_one_by_one_is_found(batch_size):
    """Over as many devices as there are, which the batches may not divide among."""
    images, alone = pictures(), made()
    predict = made(batch_size=batch_size)
    before = compilation.count()
    found = [TASK.restore(*answer) for answer in answers(predict, images)]
    # One program an input size, the last and partly filled batches included.
    assert compilation.count() - before <= 2
    assert len(found) == len(images)
    for image, one in zip(images, found, strict=True):
        expected = alone(image)
        np.testing.assert_allclose(one.boxes, expected.boxes, atol=1e-5)
        assert one.size == image.shape[:2]
    assert not len(made()(images[0], min_score=0.95).boxes)


def test_a_cpu_takes_one_picture_at_a_time():
    assert made(batch_size=None).batch_size == 1


def test_groups_are_of_one_size_and_no_picture_waits_for_long():
    predict = made()
    sizes = [(20, 30)] * 3 + [(30, 20)] + [(20, 30)] * 40
    things = [(i, predict.prepare(x)) for i, x in enumerate(pictures(sizes))]
    things.insert(2, ("broken", ValueError("broken")))
    groups = [[thing for thing, _ in group] for group in grouped(iter(things), 4)]
    assert groups[:2] == [["broken"], [0, 1, 2, 4]]
    assert sorted(i for g in groups if g != ["broken"] for i in g) == [*range(44)]
    # The upright one goes when twelve wait, or else with the last.
    assert [3] in groups
    sizes = [(30, 20)] + [(20, 30)] * 40
    things = [(i, predict.prepare(x)) for i, x in enumerate(pictures(sizes))]
    groups = [[thing for thing, _ in group] for group in grouped(iter(things), 15)]
    assert groups == [[*range(1, 16)], [*range(16, 31)], [0], [*range(31, 41)]]


def test_pictures_that_wait_take_no_more_memory_than_is_said(monkeypatch):
    monkeypatch.setattr(predictor, "MOST_BYTES", 20_000)
    predict = made()
    taken = []

    def things():
        for i, image in enumerate(pictures([(20, 30)] * 50)):
            taken.append(i)
            yield i, predict.prepare(image)

    for group in grouped(things(), 30):
        assert len(group) <= 8 and taken[-1] - group[0][0] < 8


def test_an_order_is_kept_as_soon_as_it_can_be():
    seen = []

    def things():
        for number in (1, 0, 3, 4, 2):
            seen.append(number)
            yield number, f"thing {number}"

    found = in_order(things())
    assert next(found) == "thing 0" and seen == [1, 0]
    assert [*found] == [f"thing {i}" for i in (1, 2, 3, 4)]


def test_pictures_too_large_together_are_answered_alone(monkeypatch):
    """And one that is too large alone is told of, with those beside it answered."""
    one = jax.local_devices()[:1]
    monkeypatch.setattr(predictor.jax, "local_devices", lambda: one)
    predict = made(batch_size=4)
    call, batches = predict._call, []

    def failing(inputs):
        batches.append(len(inputs.images))
        too_large = np.asarray(inputs.images).max(axis=(1, 2, 3)) == 0
        if too_large.any() or batches == [4]:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return call(inputs)

    predict._call = failing
    images = pictures([(20, 30)] * 4)
    images[2][:] = 0
    given = [(i, predict.prepare(image)) for i, image in enumerate(images)]
    found = {i: answer for i, _, answer in predict.answers(given)}
    assert batches == [4, 1, 1, 1, 1]
    assert [isinstance(found[i], Exception) for i in range(4)] == [0, 0, 1, 0]
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        known(found[2])

    def broken(inputs):
        raise jax.errors.JaxRuntimeError("INTERNAL: a defect")

    predict._call = broken
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        list(predict.answers(given))


class Run:
    """What `predict_files` reads of a trained model."""

    classes, category_ids, task = ("thing",), (7,), TASK

    def predictor(self, batch_size, **_):
        return made(batch_size=batch_size)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(predict_files.prediction, "load", lambda *_, **__: Run())
    (tmp_path / "in").mkdir()
    for i, image in enumerate(pictures(SIZES * 2)):
        draw.save(tmp_path / "in" / f"{i:02d}.jpg", image)
    (tmp_path / "in" / "05.jpg").write_text("no picture")
    (tmp_path / "in" / "13.jpg").write_text("no picture either")
    return tmp_path


def test_files_are_alike_and_in_order_whatever_the_batches(folder):
    """predictions.json byte for byte, every drawing, and what cannot be read."""
    contents = []
    for size in (1, 3, 16):
        out = folder / f"out-{size}"
        said = predict_files.predict("run", out, [folder / "in"], batch_size=size)
        assert [line.split()[0][-6:] for line in said] == ["05.jpg", "13.jpg"]
        contents.append({p.name: p.read_bytes() for p in sorted(out.iterdir())})
        assert len(contents[-1]) == 15
    assert contents[0] == contents[1] == contents[2]
    text = contents[0]["predictions.json"].decode()
    numbers = [int(part.split(",")[0]) for part in text.split('"image_id": ')[1:]]
    assert numbers == [i + 1 for i in range(16) if i not in (5, 13)]


def test_a_drawing_that_cannot_be_written_ends_it_with_its_name(folder, monkeypatch):
    save = draw.save

    def full(path, image):
        if path.name == "11.png":
            raise OSError(f"{path} could not be written (No space left on device)")
        save(path, image)

    monkeypatch.setattr(draw, "save", full)
    with pytest.raises(OSError, match=r"11\.png could not be written"):
        predict_files.predict("run", folder / "out", [folder / "in"], batch_size=2)
    left = {p.name for p in (folder / "out").iterdir()}
    assert "predictions.json" not in left and not any(n.endswith("tmp") for n in left)


def test_memory_does_not_grow_with_the_folder(folder):
    """40 photographs of 1.9 MB each, of which a dozen are held at a time."""
    (folder / "large").mkdir()
    image = np.full((800, 800, 3), 90, np.uint8)
    for i in range(40):
        draw.save(folder / "large" / f"{i}.jpg", image)
    tracemalloc.start()
    predict_files.predict("run", folder / "out", [folder / "large"], batch_size=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 45e6
