"""From records and results entries to flat metrics: keypoints beside boxes."""

import jax.numpy as jnp
import numpy as np
import pytest

from detjax import compilation, evaluate, sharding
from detjax.data import example
from detjax.data.records import Annotation, Record
from detjax.errors import UserError
from detjax.eval import coco
from detjax.ops import masks
from detjax.types import Detections, Model

SIGMAS = (0.05, 0.1)
POINTS = np.float32([[10, 10, 2], [50, 50, 1]])


def records(*keypoints):
    """One image; an object of 60 x 60 pixels for each of `keypoints`."""
    record = Record(3, "a.png", 100, 200)
    for i, points in enumerate(keypoints):
        box = (70.0 * i, 0.0, 70.0 * i + 60, 60.0)
        record.annotations.append(Annotation(i, box, 0, 3600.0, keypoints=points))
    return [record]


def row(shift=0.0, **more):
    points = POINTS + np.float32([shift, 0, 0])
    return {
        "image_id": 3,
        "category_id": 7,
        "bbox": [0.0, 0.0, 60.0, 60.0],
        "score": 0.9,
        "keypoints": points.ravel().tolist(),
        **more,
    }


def metrics(rows, truth, **kwargs):
    """Metrics of entries of the first of the records `truth`."""
    found = evaluate.Found([0] * len(rows), rows)
    given = {"sigmas": SIGMAS, **kwargs}
    return evaluate.evaluate(
        found, evaluate.truth_of(truth), classes=("a",), category_ids=(7,), **given
    )


def test_keypoints_are_evaluated_where_both_sides_have_them():
    both = metrics([row()], records(POINTS))
    assert both["keypoints/AP"] == both["keypoints/ARm"] == both["bbox/AP"] == 1
    bare = row()
    del bare["keypoints"]
    for rows, truth in (([bare], records(POINTS)), ([row()], records(None))):
        assert not any(name.startswith("keypoints") for name in metrics(rows, truth))


def test_nothing_detected_has_the_metrics_that_detections_would_have():
    found = metrics([], records(POINTS))
    assert found.keys() == metrics([row()], records(POINTS)).keys()
    assert found["keypoints/AP"] == found["bbox/AP"] == 0


def test_keypoints_have_a_limit_and_a_similarity_of_their_own():
    # Twenty wrong poses in front of the right one: it counts for the box alone.
    rows = [row(500.0, score=0.95)] * 20 + [row()]
    found = metrics(rows, records(POINTS), max_detections=(1, 100))
    assert found["bbox/AP"] == 1
    assert found["keypoints/AP"] == 0


def test_an_object_without_keypoints_is_not_missed():
    found = metrics([row()], records(POINTS, None))
    assert found["keypoints/AP"] == 1
    assert found["bbox/AR100"] == 0.5


def test_sigmas_must_fit():
    with pytest.raises(ValueError, match=r"2 keypoints, .* 17 sigmas"):
        metrics([row()], records(POINTS), sigmas=coco.COCO_SIGMAS)


def whole_image(params, state, images, windows, proposals):
    """A prediction for tests: each image is one object, as sure as a parameter says."""
    count, h, w, _ = images.shape
    return Detections(
        boxes=jnp.tile(jnp.array([0.0, 0.0, w, h]), (count, 1, 1)),
        scores=jnp.full((count, 1), params),
        labels=jnp.zeros((count, 1), jnp.int32),
        valid=jnp.ones((count, 1), bool),
    )


def filled(size, count=3):
    batch = example.empty(count, size, 1, None)
    batch.images[:], batch.valid[:], batch.sizes[:] = 0, True, size
    return batch


def test_only_the_first_evaluation_compiles():
    """Also where its layout is made anew, as for a run that goes on."""
    model = Model(init=None, loss=None, predict=whole_image, net=None)
    batches = [filled((32, 48)), filled((48, 32)), filled((32, 48), 2)]

    def detect(score):
        before = compilation.count()
        rows = evaluate.detect_all(
            model,
            jnp.float32(score),
            {},
            batches,
            image_ids=["a"],
            category_ids=(7,),
            layout=sharding.make(),
            progress=False,
        )
        assert [row["score"] for row in rows.rows] == [score] * 8
        assert {row["image_id"] for row in rows.rows} == {"a"}
        return compilation.count() - before

    assert detect(0.5) >= 2  # one a bucket
    assert detect(0.25) == 0


def masked_record(number, *, without=0):
    """An image of two square objects, of which the last `without` have no mask."""
    record = Record(number, f"{number}.png", 40, 60)
    for i, box in enumerate([(2.0, 3.0, 22.0, 23.0), (30.0, 5.0, 50.0, 35.0)]):
        mask = np.zeros((40, 60), bool)
        x1, y1, x2, y2 = map(int, box)
        mask[y1:y2, x1:x2] = True
        code = masks.encode_rle(mask)["counts"].encode() if i < 2 - without else None
        record.annotations.append(Annotation(i, box, 0, float(mask.sum()), rle=code))
    return record


def drawn(record, i, score):
    """The entry of a results file that finds the object i of `record` exactly."""
    x1, y1, x2, y2 = record.annotations[i].box
    mask = np.zeros((40, 60), bool)
    mask[int(y1) : int(y2), int(x1) : int(x2)] = True
    return {
        "image_id": record.id,
        "category_id": 7,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "score": score,
        "segmentation": masks.encode_rle(mask),
    }


def test_an_object_without_a_mask_counts_neither_way_where_masks_are_judged(capsys):
    whole, part = masked_record(1), masked_record(2, without=1)
    rows = [drawn(whole, 0, 0.9), drawn(part, 0, 0.8), drawn(part, 1, 0.95)]

    def judged(records):
        found = evaluate.Found([0, 1, 1], rows)
        truth = evaluate.truth_of(records)
        return evaluate.evaluate(found, truth, classes=("a",), category_ids=(7,))

    known = judged([whole, part])
    assert "1 of 4 annotations have no mask" in capsys.readouterr().err
    # Two of three objects with a mask are found, and the third detection is excused.
    assert known["segm/AR100"] == pytest.approx(2 / 3)
    assert known["segm/AP"] == pytest.approx(67 / 101)
    assert known["bbox/AR100"] == 3 / 4


def test_ids_are_only_names_to_the_metric():
    """Of fourteen digits, beyond a double's whole numbers, or words."""
    records = [masked_record(i) for i in range(3)]
    for ids in (
        (20240131123456, 20240131123457, 20240131123458),
        (2**53, 2**53 + 1, 2**53 + 2),
        ("b", "a", "42"),
    ):
        for record, number in zip(records, ids, strict=True):
            record.id = number
        rows = [drawn(r, i, 0.9) for r in records for i in (0, 1)]
        found = evaluate.Found([0, 0, 1, 1, 2, 2], rows)
        truth = evaluate.truth_of(records)
        assert sorted(ids) == [ids[i] for i in np.argsort(truth.ranks)]
        got = evaluate.evaluate(found, truth, classes=("a",), category_ids=(7,))
        assert got["bbox/AP"] == got["segm/AP"] == 1


def test_a_broken_mask_is_a_sentence_or_leaves_the_boxes():
    broken = masked_record(1)
    broken.annotations[0].rle = b"\x7f\x7f"
    with pytest.raises(UserError, match=r"record 0 \(1\.png, image 1\): an annot"):
        evaluate.truth_of([broken, masked_record(2)])
    truth = evaluate.truth_of([broken, masked_record(2)], skip=True)
    assert truth.masked.tolist() == [False, False, True, True]
