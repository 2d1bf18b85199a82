"""Outlines: masks in windows, turned shapes, unions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from detjax.data.formats import outlines
from detjax.errors import UserError


def pixels(outline, size):
    return coco_mask.decode({"size": list(size), "counts": outline.rle})


@given(st.data())
def test_a_mask_in_a_window_is_the_mask(data):
    h, w = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    y, x = data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    mh, mw = data.draw(st.integers(1, h - y)), data.draw(st.integers(1, w - x))
    bits = data.draw(st.lists(st.booleans(), min_size=mh * mw, max_size=mh * mw))
    mask = np.array(bits).reshape(mh, mw)
    if not mask.any():
        with pytest.raises(UserError, match="without a pixel"):
            outlines.of_mask(mask, (x, y), (h, w))
        return
    found = outlines.of_mask(mask, (x, y), (h, w))
    whole = np.zeros((h, w), np.uint8)
    whole[y : y + mh, x : x + mw] = mask
    np.testing.assert_array_equal(pixels(found, (h, w)), whole)
    # The one code that pycocotools would write too.
    assert found.rle == coco_mask.encode(np.asfortranarray(whole))["counts"]
    rows, columns = np.nonzero(whole)
    box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert found.box == box
    assert found.area == whole.sum()


def test_masks_that_leave_the_image():
    with pytest.raises(UserError, match="outside the 8 x 6 image"):
        outlines.of_mask(np.ones((3, 3), bool), (6, 0), (6, 8))


def test_unions_of_boxes_and_masks():
    size = (20, 30)
    box = outlines.of_box(5, 1, 1, 4)
    assert (box.box, box.area) == ((1, 1, 5, 4), 12)
    both = outlines.union([box, outlines.of_box(8, 8, 10, 10)], size)
    assert (both.box, both.rle) == ((1, 1, 10, 10), None)
    mask = outlines.of_mask(np.ones((2, 2), bool), (20, 10), size)
    assert outlines.union([mask], size) is mask
    whole = outlines.union([box, mask], size)
    assert (whole.box, whole.area) == ((1, 1, 22, 12), 16)
    assert pixels(whole, size)[1:4, 1:5].all()


def test_clipped_polygons_and_turned_boxes():
    corners = outlines.turned_box(-10, 0, 10, 10)
    found = outlines.of_polygons([corners], (20, 30), clip=True)
    assert (found.box, found.area) == ((0, 0, 10, 10), 100)
    open_ = outlines.of_polygons([corners], (20, 30))
    assert open_.box == (-10, 0, 10, 10)
    quarter = np.reshape(outlines.turned_box(0, 0, 4, 2, 90), (-1, 2))
    np.testing.assert_allclose(quarter.min(axis=0), (1, -1), atol=1e-9)
    np.testing.assert_allclose(quarter[0], (3, -1), atol=1e-9)  # top left is top right
    around = np.reshape(outlines.ellipse(5, 6, 3, 3, 40), (-1, 2)) - (5, 6)
    np.testing.assert_allclose(np.hypot(*around.T), 3)
