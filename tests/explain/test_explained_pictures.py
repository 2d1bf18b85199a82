"""Heat maps on the pictures that they are of."""

import numpy as np
import pytest

from detjax.errors import UserError
from detjax.explain import pictures
from detjax.types import Inputs, View


def inputs(affine, size=(40, 60)):
    view = View(np.float32(affine)[None], np.int32([[20, 20]]), np.ones(1, bool))
    return Inputs(np.zeros((1, *size, 3), np.uint8), view)


def test_heat_goes_back_to_where_the_picture_lay():
    """A picture of 20 x 20, twice as large and 10 to the right in the input."""
    given = inputs([[2, 0, 10], [0, 2, 0]])
    heat = np.zeros((40, 60), np.float32)
    heat[8:10, 30:32] = 1  # the input's pixels of the picture's (x 10, y 4)
    found = pictures.moved(heat, (20, 20), given)
    assert np.unravel_index(found.argmax(), found.shape) == (4, 10)
    np.testing.assert_allclose(found[4, 10], 1)
    assert found.sum() == pytest.approx(1)


def test_coarse_heat_covers_the_whole_input():
    """The middle of four cells is the middle of the input."""
    given = inputs([[2, 0, 10], [0, 2, 0]])
    found = pictures.moved([[0.0, 1.0], [0.0, 1.0]], (20, 20), given)
    # The picture's column x lies at (2 (x + .5) + 10) / 60 of the input: cell
    # centres are at .25 and .75.
    place = (2 * (np.arange(20) + 0.5) + 10) / 60
    expected = np.clip((place - 0.25) / 0.5, 0, 1)
    np.testing.assert_allclose(found, np.tile(expected, (20, 1)), atol=2e-2)


def test_no_heat_leaves_signed_pictures_grey_and_heat_colours_them():
    image = np.full((20, 20, 3), 100, np.uint8)
    heat = np.zeros((40, 60), np.float32)
    heat[:20] = 1
    heat[-10:] = -1
    drawn = pictures.overlay(image, heat, inputs([[3, 0, 0], [0, 2, 0]]), signed=True)
    assert drawn.dtype == np.uint8
    assert drawn.shape == image.shape
    red, grey, blue = drawn[2, 5], drawn[12, 5], drawn[18, 5]
    assert red[0] > red[2]
    assert grey[0] == grey[1] == grey[2]
    assert blue[2] > blue[0]


def test_grids_have_room_for_captions_and_refuse_what_is_no_map():
    image = np.zeros((20, 30, 3), np.uint8)
    plain = pictures.grid([image, image])
    named = pictures.grid([image, image], ["one", "two"])
    assert named.shape[0] == plain.shape[0] + pictures.TITLE
    assert named.shape[1] == plain.shape[1]
    with pytest.raises(UserError, match=r"\[H W\]"):
        pictures.moved(np.zeros((2, 3, 4)), (20, 20), inputs(np.eye(3)[:2]))
