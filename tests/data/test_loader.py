"""Batches: padding, cutting, masks, determinism, positions, workers."""

import cv2
import jax
import numpy as np
import pytest

from detjax import experiment
from detjax.data import loader
from detjax.data.records import Annotation, Record
from detjax.tasks import detection
from detjax.tasks.detection import targets
from tests import reference

SIZE = (32, 48)


def record(i=1, objects=3, size=(60, 90), crowd=False):
    h, w = size
    rng = np.random.default_rng(i)
    image = rng.integers(0, 255, (h, w, 3)).astype(np.uint8)
    annotations = []
    for j in range(objects):
        x, y = 5 + 12 * j, 8 + 6 * j
        box = (x, y, x + 10 + j, y + 12)
        mask = np.zeros(size, bool)
        mask[y : y + 12, x : x + 10 + j] = True
        rle = reference.rle(mask)["counts"].encode()
        annotations.append(
            Annotation(j, box, j % 3, float(mask.sum()), crowd=crowd, rle=rle)
        )
    png = cv2.imencode(".png", image)[1].tobytes()
    return Record(i, f"{i}.png", h, w, image=png, truth=annotations)


OF_TARGETS = ("max_objects", "mask_stride", "mask_size", "min_size", "keypoints")


def prepare(**settings):
    settings = {"size": SIZE, "max_objects": 4, "mask_stride": 2, **settings}
    padding = {k: settings.pop(k) for k in OF_TARGETS if k in settings}
    return loader.Prepare(targets=targets.Targets(**padding), **settings)


def test_an_example_is_the_record_resized():
    got = prepare()(record())
    assert got.inputs.images.shape == (32, 48, 3)
    assert got.inputs.images.dtype == np.uint8
    expected = np.array(record().truth[0].box) * [
        48 / 90,
        32 / 60,
        48 / 90,
        32 / 60,
    ]
    np.testing.assert_allclose(got.target.boxes[0], expected, rtol=1e-5)
    assert got.target.valid.tolist() == [True, True, True, False]
    assert got.target.masks.shape == (4, 16, 24)
    y, x = np.nonzero(got.target.masks[0])
    np.testing.assert_allclose(
        [2 * x.min(), 2 * y.min(), 2 * x.max() + 2, 2 * y.max() + 2],
        got.target.boxes[0],
        atol=2.01,
    )
    assert not got.target.masks[3].any()


def test_what_does_not_fit_is_counted_and_the_smallest_go():
    got = prepare(max_objects=2)(record())
    assert got.counts["objects cut"] == 1
    assert got.target.valid.all()
    assert got.target.labels.tolist() == [1, 2]
    assert prepare()(record()).counts["objects cut"] == 0


def test_an_image_without_objects_is_an_example():
    got = prepare()(record(objects=0))
    assert not got.target.valid.any()
    assert np.isfinite(got.target.boxes).all()


def test_crowds_and_difficult_objects_are_marked():
    assert prepare()(record(crowd=True)).target.crowd[:3].all()
    some = record()
    some.truth[1].difficult = True
    some.truth[2].rle = None
    assert prepare()(some).target.crowd.tolist() == [False, True, True, False]
    boxes = prepare(mask_stride=None)(some).target
    assert boxes.crowd.tolist() == [False, True, False, False]
    assert boxes.masks is None


def test_an_undecodable_image_is_named():
    broken = record()
    broken.image = broken.image[:20]
    with pytest.raises(ValueError, match=r"decoded.*1\.png|1\.png.*decoded"):
        prepare()(broken)


def stream(seed=0, count=8, **kwargs):
    records = [record(i) for i in range(1, count + 1)]
    steps = prepare(augment={"mirror": True, "colour": True, "scale": (0.5, 2)})
    return loader.train_loader(records, steps, batch_size=4, seed=seed, **kwargs)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_stream_is_a_function_of_its_seed():
    one, two, other = iter(stream()), iter(stream(threads=1)), iter(stream(seed=1))
    for _ in range(3):
        batch = next(one)
        equal(batch, next(two))
        assert (batch.inputs.images != next(other).inputs.images).any()


def test_each_epoch_shows_each_image_once():
    batches = iter(stream())
    for _ in range(3):
        ids = np.concatenate([next(batches).index, next(batches).index])
        assert sorted(ids) == list(range(8))


def test_a_stream_goes_on_where_it_was():
    batches = iter(stream())
    for _ in range(3):
        next(batches)
    position = batches.get_state()
    expected = [next(batches) for _ in range(3)]
    again = iter(stream())
    again.set_state(position)
    for batch in expected:
        equal(batch, next(again))


def test_the_shape_of_a_batch_is_known_before_it_is_read():
    batches = iter(stream(threads=1))
    shape = batches.images()
    assert batches._batches is None  # no thread is started
    images = next(batches).inputs.images
    assert (shape.shape, shape.dtype) == (images.shape, images.dtype)


def test_worker_processes_change_nothing():
    inside, outside = iter(stream()), iter(stream(workers=2))
    for _ in range(4):
        equal(next(inside), next(outside))


def test_evaluation_shows_each_image_once_and_fills_up():
    records = [record(i) for i in range(1, 6)]
    batches = list(loader.eval_loader(records, prepare(), batch_size=2))
    assert [b.index.tolist() for b in batches] == [[0, 1], [2, 3], [4, 4]]
    assert [b.inputs.view.valid.tolist() for b in batches] == [[True] * 2] * 2 + [
        [True, False]
    ]


NAMES = ("left_end", "right_end")


def with_points(**kwargs):
    """A record of which the first two objects have keypoints at their corners."""
    some = record(**kwargs)
    for annotation in some.truth[:2]:
        x1, y1, x2, y2 = annotation.box
        annotation.keypoints = np.float32([[x1, y1, 2], [x2, y2, 1]])
    return some


def test_keypoints_move_with_their_boxes():
    assert prepare()(with_points()).target.keypoints is None
    got = prepare(keypoints=NAMES)(with_points()).target
    assert got.keypoints.shape == (4, 2, 3)
    assert got.keypoints.dtype == np.float32
    corners = got.boxes[:2].reshape(2, 2, 2)
    np.testing.assert_allclose(got.keypoints[:2, :, :2], corners, rtol=1e-6)
    assert got.keypoints[..., 2].tolist() == [[2, 1], [2, 1], [0, 0], [0, 0]]
    # They stay with their objects where others are cut.
    got = prepare(keypoints=NAMES, max_objects=2)(with_points()).target
    assert got.keypoints[..., 2].tolist() == [[2, 1], [0, 0]]


def test_mirrored_keypoints_have_the_names_of_the_other_side():
    steps = prepare(keypoints=NAMES, augment={"mirror": True}, mask_stride=None)
    mirrored = 0
    for seed in range(8):
        got = steps(with_points(), np.random.default_rng(seed))
        flipped = got.inputs.view.affine[0, 0] < 0
        mirrored += flipped
        x1, y1, x2, y2 = got.target.boxes[0]
        first, second = ([x2, y1], [x1, y2]) if flipped else ([x1, y1], [x2, y2])
        pair = [second, first] if flipped else [first, second]
        np.testing.assert_allclose(got.target.keypoints[0, :, :2], pair, atol=1e-3)
        assert got.target.keypoints[0, :, 2].tolist() == ([1, 2] if flipped else [2, 1])
    assert 0 < mirrored < 8


def proposed(*boxes, **kwargs):
    some = record(**kwargs)
    some.proposals = np.float32(boxes).reshape(-1, 4)
    return some


def test_proposals_move_as_objects_do_and_keep_their_order():
    assert prepare()(proposed([0, 0, 9, 9])).inputs.proposals is None
    boxes = [[5, 8, 15, 20], [-30, 10, 45, 70], [-9, 0, 0, 9], [0, 0, 90, 60]]
    got = prepare(max_proposals=5)(proposed(*boxes)).inputs.proposals
    assert got.valid.tolist() == [True, True, True, False, False]
    h, w = SIZE
    scale = np.array([w / 90, h / 60] * 2)
    expected = np.float32([[5, 8, 15, 20], [0, 10, 45, 60], [0, 0, 90, 60]]) * scale
    np.testing.assert_allclose(got.boxes[:3], expected, rtol=1e-5)
    # What cannot be seen takes no place of what can.
    got = prepare(max_proposals=2)(proposed(*boxes[2:], *boxes)).inputs.proposals
    np.testing.assert_allclose(got.boxes, expected[[2, 0]], rtol=1e-5)
    for nothing in (proposed(), record()):
        assert not prepare(max_proposals=2)(nothing).inputs.proposals.valid.any()


def test_proposals_and_objects_see_the_same_augmentation():
    steps = prepare(
        augment={"turn": True, "crop": True, "expand_to": 2}, max_proposals=3
    )
    some = record()
    some.proposals = np.float32([a.box for a in some.truth])
    for seed in range(10):
        got = steps(some, np.random.default_rng(seed))
        real = got.target.boxes[got.target.valid]
        seen = got.inputs.proposals.boxes[got.inputs.proposals.valid]
        near = np.abs(real[:, None] - seen).max(axis=-1).min(axis=1)
        assert (near < 1e-4).all()


def test_proposals_and_keypoints_are_stacked_into_batches():
    records = [proposed([0, 0, 9, 9], i=i) for i in range(1, 4)]
    steps = prepare(max_proposals=2, keypoints=NAMES)
    first, last = loader.eval_loader(records, steps, batch_size=2)
    assert first.inputs.proposals.boxes.shape == (2, 2, 4)
    assert last.target.keypoints.shape == (2, 4, 2, 3)
    assert first.inputs.proposals.valid.tolist() == [[True, False]] * 2


def test_the_papers_recipe_reads_coco(data_dir, tmp_path):
    """Real photographs through the COCO config's own section, at its full size."""
    from configs import yolact_r101_coco
    from detjax.data import dataset

    folder = data_dir / "coco_cc"
    section = experiment.plain(yolact_r101_coco.get_config().data)
    labels = folder / "annotations" / "instances_train2017.json"
    section |= {
        "name": "coco_cc",
        "data_dir": str(tmp_path),
        "batch_size": 4,
        "workers": 0,
        "prepare": {
            "format": "coco",
            "splits": {"train": str(labels), "val": str(labels)},
            "images": str(folder / "images"),
        },
    }
    data = dataset.make(detection.TASK, **section)
    assert data.info.has_masks
    assert len(data.truth) == 26
    stream = iter(data.train)
    for _ in range(3):
        batch = next(stream)
        assert batch.inputs.images.shape == (4, 550, 550, 3)
        assert batch.target.masks.shape == (4, 100, 138, 138)
        real = batch.target.valid
        assert real.any()
        boxes = batch.target.boxes[real]
        assert (boxes >= 0).all()
        assert (boxes <= 550).all()
        # Visible masks lie in their boxes, but for a cell of the coarser grid.
        for mask, (x1, y1, x2, y2) in zip(
            batch.target.masks[real], boxes * 138 / 550, strict=True
        ):
            y, x = np.nonzero(mask)
            if len(x):
                assert x1 - 1.5 <= x.min() <= x.max() <= x2 + 1.5
                assert y1 - 1.5 <= y.min() <= y.max() <= y2 + 1.5
    assert sum(int(b.inputs.view.valid.sum()) for b in data.evaluation()) == 26
