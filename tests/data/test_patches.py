"""Parts of pictures: encoded without the picture, and as the picture would be."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detjax.data import paste, patches, rle
from detjax.data.patches import Patch
from tests import reference


@st.composite
def some_patches(draw):
    """Patches of every size in pictures up to 9 x 9, often at their edges."""
    sides, windows = [], []
    for _ in range(2):
        side = draw(st.integers(1, 9))
        start = draw(st.integers(0, side))
        sides.append(side)
        windows.append((start, draw(st.integers(0, side - start))))
    (y, wh), (x, ww) = windows
    kind = draw(st.sampled_from(["noise", "empty", "full"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    share = {"noise": draw(st.floats(0.1, 0.9)), "empty": 0, "full": 1}[kind]
    return Patch(x, y, rng.random((wh, ww)) < share, tuple(sides))


@given(some_patches())
@settings(max_examples=600, deadline=None)
def test_the_encoding_is_that_of_the_whole_picture(patch):
    assert patches.encode_rle(patch) == reference.rle(patches.full_mask(patch))


@pytest.mark.parametrize("fill", [False, True])
def test_windows_at_every_edge(fill):
    """Also one as high as the picture, whose runs go on in the next column."""
    for window in (
        (0, 0, 7, 5),
        (0, 0, 7, 2),
        (0, 3, 7, 5),
        (0, 0, 2, 5),
        (5, 0, 7, 5),
    ):
        x1, y1, x2, y2 = window
        pixels = np.full((y2 - y1, x2 - x1), fill)
        patch = Patch(x1, y1, pixels, (5, 7))
        code = patches.encode_rle(patch)
        assert code == reference.rle(patches.full_mask(patch)), window
        decoded = rle.decode(code)
        assert decoded[y1:y2, x1:x2].all() == fill
        assert decoded.sum() == (pixels.size if fill else 0)


@pytest.mark.parametrize("kind", ["paste", "paste_boxes"])
def test_memory_is_that_of_one_mask_and_not_of_the_picture(kind):
    """40 masks at 2000 x 3000 are 240 MB as pictures; here boxes are 300 x 300."""
    n, size, network = 40, (2000, 3000), (500, 750)
    corners = np.random.default_rng(0).uniform(0, [675, 425], (n, 2))
    boxes = np.concatenate([corners, corners + 75], axis=1).astype(np.float32)
    affine = np.float32([[0.25, 0, 0], [0, 0.25, 0]])
    tracemalloc.start()
    if kind == "paste":
        drawn = paste.paste(np.ones((n, 60, 90), "f"), boxes, affine, size, network)
    else:
        drawn = paste.paste_boxes(np.ones((n, 28, 28), "f"), boxes, affine, size)
    codes = [patches.encode_rle(patch) for patch in drawn]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6
    areas = [rle.decode(code).sum() for code in codes]
    assert 295 * 295 < min(areas) <= max(areas) < 380 * 380
