"""From records and results entries to flat metrics: keypoints beside boxes."""

from typing import NamedTuple

import numpy as np
import pytest
from infos import info

from detjax.data.records import Annotation, Record
from detjax.errors import UserError
from detjax.eval import coco
from detjax.tasks.detection import compared, meter, restore
from detjax.tasks.detection.restore import Found
from tests import reference
from tests.eval_cases import collected

SIGMAS = (0.05, 0.1)
INFO = info(("a",), category_ids=(7,), keypoints=("nose", "tail"))
POINTS = np.float32([[10, 10, 2], [50, 50, 1]])


def records(*keypoints):
    """One image; an object of 60 x 60 pixels for each of `keypoints`."""
    record = Record(3, "a.png", 100, 200)
    for i, points in enumerate(keypoints):
        box = (70.0 * i, 0.0, 70.0 * i + 60, 60.0)
        record.truth.append(Annotation(i, box, 0, 3600.0, keypoints=points))
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
    return judged([0] * len(rows), rows, truth, **{"sigmas": SIGMAS, **kwargs})


def judged(places, rows, records, **settings):
    """The metrics of `rows`, entries of the records at `places`."""
    made = meter.meter(records, INFO, [r.id for r in records], **settings)
    return made.result(collected(made, places, rows, INFO.category_ids))


def test_keypoints_are_evaluated_where_both_sides_have_them():
    both = metrics([row()], records(POINTS))
    assert both["keypoints/AP"] == both["keypoints/ARm"] == both["bbox/AP"] == 1
    bare = row()
    del bare["keypoints"]
    for rows, truth in (([bare], records(POINTS)), ([row()], records(None))):
        assert not any(name.startswith("keypoints") for name in metrics(rows, truth))


def test_keypoints_are_counted_that_are_near():
    """The shift of 13 pixels is more than a fifth of 60, and less than half of 57."""
    found = metrics([row(13.0)], records(POINTS))
    assert found["keypoints/PCK"] == found["keypoints/PCK/nose"] == 0
    how = {"pck_reach": 0.5, "pck_of": ("nose", "tail")}
    assert metrics([row(13.0)], records(POINTS), **how)["keypoints/PCK"] == 1
    with pytest.raises(UserError, match="pck_of"):
        metrics([], records(POINTS), pck_of=("nose", "ear"))


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


def masked_record(number, *, without=0):
    """An image of two square objects, of which the last `without` have no mask."""
    record = Record(number, f"{number}.png", 40, 60)
    for i, box in enumerate([(2.0, 3.0, 22.0, 23.0), (30.0, 5.0, 50.0, 35.0)]):
        mask = np.zeros((40, 60), bool)
        x1, y1, x2, y2 = map(int, box)
        mask[y1:y2, x1:x2] = True
        code = reference.rle(mask)["counts"].encode() if i < 2 - without else None
        record.truth.append(Annotation(i, box, 0, float(mask.sum()), rle=code))
    return record


def drawn(record, i, score):
    """The entry of a results file that finds the object i of `record` exactly."""
    x1, y1, x2, y2 = record.truth[i].box
    mask = np.zeros((40, 60), bool)
    mask[int(y1) : int(y2), int(x1) : int(x2)] = True
    return {
        "image_id": record.id,
        "category_id": 7,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "score": score,
        "segmentation": reference.rle(mask),
    }


def test_an_object_without_a_mask_counts_neither_way_where_masks_are_judged(capsys):
    whole, part = masked_record(1), masked_record(2, without=1)
    rows = [drawn(whole, 0, 0.9), drawn(part, 0, 0.8), drawn(part, 1, 0.95)]

    known = judged([0, 1, 1], rows, [whole, part])
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
        truth = compared.truth_of(records)
        assert sorted(ids) == [ids[i] for i in np.argsort(truth.ranks)]
        got = judged([0, 0, 1, 1, 2, 2], rows, records)
        assert got["bbox/AP"] == got["segm/AP"] == 1


def test_a_broken_mask_is_a_sentence_or_leaves_the_boxes():
    broken = masked_record(1)
    broken.truth[0].rle = b"\x7f\x7f"
    with pytest.raises(UserError, match=r"record 0 \(1\.png, image 1\): an annot"):
        compared.truth_of([broken, masked_record(2)])
    truth = compared.truth_of([broken, masked_record(2)], skip=True)
    assert truth.masked.tolist() == [False, False, True, True]


def scored(record, i, score, category=7):
    """As `drawn`, of a class."""
    return {**drawn(record, i, score), "category_id": category}


class Two(NamedTuple):
    """Two classes."""

    classes: tuple[str, ...] = ("a", "b")
    category_ids: tuple[int, ...] = (7, 9)
    keypoints: tuple[str, ...] = ()


def two_classes():
    """Two images of two objects each, the second of each of class b."""
    held = [masked_record(1), masked_record(2)]
    for record in held:
        record.truth[1].label = 1
    first, second = held
    rows = [
        scored(first, 0, 0.9),
        scored(first, 1, 0.8),  # taken for an a
        scored(second, 1, 0.7, 9),
        scored(second, 0, 0.2),
    ]
    made = meter.meter(held, Two(), [1, 2])
    return made, collected(made, [0, 0, 1, 1], rows, (7, 9))


def test_the_table_has_every_class():
    made, parts = two_classes()
    found = made.table(parts)
    assert found.columns[:4] == ("class", "objects", "box AP", "box AP50")
    rows = {row[0]: dict(zip(found.columns, row, strict=True)) for row in found.rows}
    metrics = made.result(parts)
    for name in ("a", "b"):
        assert rows[name]["objects"] == 2
        assert rows[name]["box AP"] == metrics[f"bbox/AP/{name}"]
        assert rows[name]["mask AP"] == metrics[f"segm/AP/{name}"]
    # Of a's three detections two are right; all are taken, else one of them is lost.
    assert rows["a"]["precision"] == pytest.approx(2 / 3)
    assert rows["a"]["recall"] == 1 and rows["a"]["F1"] == pytest.approx(0.8)
    assert rows["b"]["precision"] == 1 and rows["b"]["recall"] == 0.5
    assert rows["b"]["from score"] <= 0.7


def test_the_confusion_is_at_the_score_of_the_best_mean_f1():
    made, parts = two_classes()
    held = made.files(parts)["confusion.json"]
    # From .2 on F1 is .8 and 2/3; above it a's falls to 1/2.
    assert held["score"] <= 0.2 and held["classes"] == ["a", "b"]
    assert held["matrix"] == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]


def test_plots_are_made_of_every_kind_and_of_nothing():
    made, parts = two_classes()
    names = {
        *("precision_recall_bbox.png", "precision_recall_segm.png"),
        *("f1_bbox.png", "f1_segm.png", "confusion.png"),
    }
    plots = made.plots(parts)
    assert plots.keys() == names
    for make in plots.values():
        assert make().axes
    empty = made.plots({})
    assert empty.keys() == names and all(make() for make in empty.values())
    assert made.files({})["confusion.json"]["matrix"] == [
        [0, 0, 2],
        [0, 0, 2],
        [0, 0, 0],
    ]


def test_what_is_judged_once_is_not_judged_again(monkeypatch):
    made, parts = two_classes()
    made.result(parts)
    monkeypatch.setattr(meter, "judge", None)
    made.table(parts)
    assert made.plots(parts)
    with pytest.raises(TypeError):
        made.table(dict(parts))


def test_confident_detections_keep_all_that_is_theirs():
    found = Found(
        np.arange(12.0).reshape(3, 4),
        np.array([0.9, 0.5, 0.1]),
        np.array([2, 1, 0]),
        [{"size": [1, 1], "counts": str(i)} for i in range(3)],
        np.array([0.8, 0.7, 0.6]),
        np.arange(6.0).reshape(3, 1, 2),
        (5, 6),
    )
    kept = restore.confident(found, 0.5)
    assert kept.scores.tolist() == [0.9, 0.5] and kept.labels.tolist() == [2, 1]
    assert [code["counts"] for code in kept.rles] == ["0", "1"]
    assert kept.boxes.shape == (2, 4) and kept.keypoints.shape == (2, 1, 2)
    assert kept.mask_scores.tolist() == [0.8, 0.7] and kept.size == (5, 6)
    bare = Found(*found[:3], None)
    assert restore.confident(bare, 0.95).boxes.shape == (0, 4)


def test_pascals_metrics_stand_beside_cocos():
    first, second = records(None, None)[0], records(None)[0]
    second.id = 4
    row_ = {"image_id": 3, "category_id": 7, "bbox": [0.0, 0.0, 60.0, 60.0]}
    rows = [{**row_, "score": 0.9}, {**row_, "score": 0.8}]
    held = [first, second]

    def found(points):
        return judged([0, 1], rows, held, sigmas=SIGMAS, voc=points)

    # Two of three objects, both right: the precision is 1 up to a recall of 2/3.
    both = found("all")
    assert both["voc/mAP"] == both["voc/AP/a"] == both["voc/global_AP"]
    assert both["voc/mAP"] == pytest.approx(2 / 3)
    assert both["voc/AP_by_image"] == pytest.approx((0.5 + 1) / 2)
    assert found("11")["voc/mAP"] == pytest.approx(7 / 11)
    plain = judged([0, 1], rows, held, sigmas=SIGMAS)
    assert set(both) - set(plain) == {name for name in both if name.startswith("voc")}
    # Difficult objects count neither way.
    first.truth[1].difficult = True
    assert found("all")["voc/mAP"] == pytest.approx(1)


def test_pascals_metrics_have_their_names_before_anything_is_read():
    class Whole(NamedTuple):
        classes: tuple[str, ...] = ("a",)
        category_ids: tuple[int, ...] = (7,)
        has_masks: bool = False
        has_amodal: bool = False
        keypoints: tuple[str, ...] = ()

    made = meter.meter(records(None), Whole(), [3], voc="all")
    names = [name for name in made.names() if name.startswith("voc")]
    found = made.again().result({})
    assert names == [name for name in found if name.startswith("voc")]
    assert found["voc/mAP"] == 0


def test_names_of_lengths_are_checked():
    assert meter.pose_scale(0.5, ["b", "a"], ["a", "b"]).pair == (1, 0)
    assert meter.pose_scale(0.5, [], ["a", "b"]).pair is None
    for wrong in (["a", "c"], ["a"]):
        with pytest.raises(UserError, match="must name two of the data set's"):
            meter.pose_scale(0.5, wrong, ["a", "b"])
