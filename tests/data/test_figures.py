"""Synthetic figures: joints, what is drawn of them, and that they stay the same."""

import cv2
import numpy as np
import pytest

from detjax.data import frames
from detjax.data.formats import figures
from detjax.errors import UserError

NAMES = figures.KEYPOINTS


def read(**arguments):
    return figures.read_splits(num_train=20, num_val=2, **arguments)


def pixels(record):
    return cv2.imdecode(np.frombuffer(record.image, np.uint8), 1)


def test_every_picture_has_one_figure_whose_joints_lie_in_it():
    held = read()["train"]
    assert held.keypoints == NAMES and len(NAMES) == 14
    for record in held.records:
        [figure] = record.truth
        points = figure.keypoints
        shown = points[points[:, 2] > 0]
        assert len(shown) >= 12
        assert (shown[:, :2] >= 0).all() and (shown[:, :2] <= 127).all()
        # Joints are on what is drawn, up to the width of a limb.
        x1, y1, x2, y2 = figure.box
        assert (shown[:, 0] > x1 - 4).all() and (shown[:, 0] < x2 + 4).all()
        assert (shown[:, 1] > y1 - 4).all() and (shown[:, 1] < y2 + 4).all()


def test_joints_hang_together():
    """Limbs have the lengths of a person's, whatever their directions."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        places, height = figures.joints(rng, 128)
        at = dict(zip(NAMES, places / height, strict=True))

        def length(one, other, at=at):
            return np.linalg.norm(at[one] - at[other])

        assert length("head_top", "upper_neck") == pytest.approx(0.16)
        for side in ("left", "right"):
            assert length(f"{side}_shoulder", f"{side}_elbow") == pytest.approx(0.16)
            assert length(f"{side}_elbow", f"{side}_wrist") == pytest.approx(0.15)
            assert length(f"{side}_hip", f"{side}_knee") == pytest.approx(0.25)
            assert length(f"{side}_knee", f"{side}_ankle") == pytest.approx(0.24)


def test_left_limbs_are_darker_and_have_opposites():
    turned = frames.opposites(NAMES)
    assert [NAMES[i] for i in turned][2:5] == [
        "right_shoulder",
        "right_elbow",
        "right_wrist",
    ]
    brighter = 0
    for record in read()["train"].records:
        image = cv2.GaussianBlur(pixels(record).astype(np.float32), (3, 3), 0)
        at = dict(zip(NAMES, record.truth[0].keypoints, strict=True))
        light = {}
        for side in ("left", "right"):
            (x, y, seen), (u, v, other) = at[f"{side}_knee"], at[f"{side}_ankle"]
            if seen == 2 and other == 2:
                light[side] = image[round((y + v) / 2), round((x + u) / 2)].sum()
        if len(light) == 2:
            brighter += light["right"] > light["left"]
    assert brighter >= 14


def test_pictures_depend_on_their_number_alone():
    first, again = read()["train"], read()["train"]
    assert [r.image for r in first.records] == [r.image for r in again.records]
    other = read(seed=1)["train"]
    assert first.records[0].image != other.records[0].image
    told = figures.digests(num_train=20, num_val=2)
    assert told["train"].startswith("figures: 20 images of 128")
    with pytest.raises(UserError, match="num_train"):
        figures.catalogues(num_train=0)
