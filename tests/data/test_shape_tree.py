"""Shapes of a tree, some of which have labels and no boxes."""

import pytest

from detjax.data.formats import shape_tree
from detjax.errors import UserError
from detjax.models.darknet import tree


@pytest.fixture(scope="module")
def splits():
    return shape_tree.read_splits(num_train=60, num_val=30, size=64)


def test_labelled_shapes_have_no_box_in_train(splits):
    alone = 0
    for record in splits["train"].records:
        labelled = [
            a
            for a in record.truth
            if shape_tree.CLASSES[a.label] in shape_tree.LABELLED
        ]
        if labelled:
            [only] = record.truth
            assert only.crowd
            assert only.box == (0, 0, 64, 64)
            assert only.rle is None
            alone += 1
        else:
            assert not any(a.crowd for a in record.truth)
    # Three of seven shapes are labelled only.
    assert 60 * 3 / 7 - 12 < alone < 60 * 3 / 7 + 12


def test_val_has_boxes_of_all_leaves_and_of_nothing_else(splits):
    found = {
        shape_tree.CLASSES[a.label] for r in splits["val"].records for a in r.truth
    }
    assert found == set(shape_tree.LEAVES)
    assert not any(a.crowd for r in splits["val"].records for a in r.truth)


def test_the_tree_has_the_data_sets_classes():
    known = tree.read(shape_tree.TREE)
    assert known.names == shape_tree.CLASSES
    inner = {parent for parent in known.parents if parent >= 0}
    leaves = [name for i, name in enumerate(known.names) if i not in inner]
    assert leaves == list(shape_tree.LEAVES)


def test_pictures_are_those_of_their_settings():
    def digest(**settings):
        return shape_tree.digests(num_train=2, num_val=1, **settings)

    one, same = (
        shape_tree.read_splits(num_train=2, num_val=1, size=32) for _ in range(2)
    )
    assert one["train"].records[1].image == same["train"].records[1].image
    assert digest() == digest()
    assert digest(labelled=("cross",)) != digest()
    for wrong in (shape_tree.LEAVES, ("square",)):
        with pytest.raises(UserError, match="must be some, and not all, of circle"):
            shape_tree.catalogues(labelled=wrong)
