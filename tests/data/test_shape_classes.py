"""Pictures of one shape each: classes, sizes, and that they are what they were."""

import numpy as np
import pytest

from detjax.data.example import decode
from detjax.data.formats import shape_classes, shapes
from detjax.errors import UserError


def test_every_picture_has_one_class_and_all_occur():
    splits = shape_classes.read_splits(num_train=70, num_val=7, size=32)
    records = splits["train"].records
    assert {len(record.truth) for record in records} == {1}
    assert {record.truth[0] for record in records} == set(range(7))
    assert splits["val"].classes == shape_classes.CLASSES
    assert decode(records[0].image).shape == (32, 32, 3)
    assert records[0].image != splits["val"].records[0].image


def test_pictures_depend_on_their_settings_alone():
    one, same, other = (shape_classes.record(3, "train", 32, s) for s in (0, 0, 1))
    assert one.image == same.image != other.image
    assert shape_classes.digests(num_train=2) != shape_classes.digests(num_train=3)
    assert shape_classes.digests(size=128) == shape_classes.digests()
    with pytest.raises(UserError, match="size"):
        shape_classes.catalogues(size=2)


def test_a_single_shape_of_detection_is_large_and_alone():
    records = shapes.read_splits(num_train=20, num_val=1, size=64, single=True)
    truths = [record.truth for record in records["train"].records]
    assert {len(truth) for truth in truths} == {1}
    sides = [np.subtract(t[0].box[2:], t[0].box[:2]).max() for t in truths]
    assert min(sides) > 0.2 * 64 and max(sides) <= 64
    plain = shapes.digests(num_train=20, size=64)
    assert shapes.digests(num_train=20, size=64, single=True) != plain
