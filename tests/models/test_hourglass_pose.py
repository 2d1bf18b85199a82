"""The pose network's targets, loss and answers, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import batch, key, model, variables, with_target

from detjax.errors import UserError
from detjax.models import hourglass_pose
from detjax.types import Objects


def objects(boxes, crowd=()):
    n = len(boxes)
    return Objects(
        np.float32(boxes),
        np.zeros(n, np.int32),
        np.arange(n) < n - 1,
        np.isin(np.arange(n), crowd),
    )


def test_the_main_object_is_the_largest_that_is_real():
    boxes = [[0, 0, 4, 4], [0, 0, 9, 9], [2, 2, 8, 9], [0, 0, 64, 64]]
    assert [int(x) for x in hourglass_pose.main(objects(boxes))] == [1, 1]
    assert int(hourglass_pose.main(objects(boxes, crowd=[1]))[0]) == 2
    assert not hourglass_pose.main(objects(boxes[:1]))[1]


def test_targets_lie_in_the_cells_of_their_keypoints():
    points = np.float32([[3.9, 2.0, 2], [7.0, 4.0, 1], [1, 1, 0], [20, 1, 2]])
    found = np.asarray(hourglass_pose.targets(points, (5, 8), 1))
    assert found.shape == (5, 8, 4)
    assert found[2, 3, 0] == found[4, 7, 1] == 1
    assert found[2, 4, 0] == pytest.approx(np.exp(-2))
    assert found[..., 2].max() == 0
    # Beyond the map, where augmentation leaves none.
    assert found[1, 7, 3] == 1


def test_a_keypoint_is_a_quarter_of_a_cell_towards_its_higher_side():
    maps = np.zeros((4, 6, 3), np.float32)
    maps[1, 2, 0], maps[1, 3, 0], maps[0, 2, 0] = 0.9, 0.5, 0.2
    maps[0, 0, 1] = 1.5
    maps[..., 2] = -1
    found = np.asarray(hourglass_pose.highest(maps))
    np.testing.assert_allclose(found[0], [2.75, 1.25, 0.9])
    # The border goes on beyond itself: the lower side is inside.
    np.testing.assert_allclose(found[1], [0.25, 0.25, 1.0])
    np.testing.assert_allclose(found[2], [0.5, 0.5, 0.0])


def test_the_loss_is_that_of_squares():
    """Of both hourglasses, over cells, and of the keypoints that are labelled."""
    made, (params, state) = model("hourglass_pose"), variables("hourglass_pose")
    data = batch()
    points = data.target.keypoints.copy()
    points[0, :, 1, 2] = 0
    data = with_target(data, keypoints=points)
    _, (_, parts) = jax.jit(made.loss)(params, state, data, key())
    outputs, _ = made.net.apply(
        {"params": params, **state}, data.inputs.images, train=True, mutable=[*state]
    )
    each = []
    for i in range(2):
        box = data.target.boxes[i]
        sides = (box[:, 2:] - box[:, :2]).prod(axis=1)
        place = np.where(data.target.valid[i], sides, -1).argmax()
        errors = []
        for k, (x, y, seen) in enumerate(points[i, place]):
            if not seen:
                continue
            column, row = np.mgrid[:16, :16][::-1]
            far = (column - int(x / 4)) ** 2 + (row - int(y / 4)) ** 2
            inside = np.maximum(np.abs(column - int(x / 4)), np.abs(row - int(y / 4)))
            wanted = np.where(inside <= 3, np.exp(-far / (2 * (7 / 6) ** 2)), 0)
            errors.append(
                np.mean([((m[i, ..., k] - wanted) ** 2).sum() for m in outputs[0]])
            )
        each.append(np.mean(errors))
    assert float(parts["heatmap"]) == pytest.approx(np.mean(each), rel=1e-4)


def test_answers_are_in_pixels_and_in_the_picture():
    made, (params, state) = model("hourglass_pose"), variables("hourglass_pose")
    data = batch()
    found = jax.jit(made.predict)(params, state, data.inputs)
    assert found.keypoints.shape == (2, 1, 2, 3)
    low = found.keypoints[..., :2].min(axis=2)
    np.testing.assert_allclose(found.boxes[..., :2], jnp.clip(low, 0, 64), rtol=1e-6)
    assert found.valid.all()


def test_keypoints_that_are_missing_are_said_so():
    made, (params, state) = model("hourglass_pose"), variables("hourglass_pose")
    for points, said in ((None, "none"), (np.zeros((2, 6, 5, 3)), "5 an object")):
        with pytest.raises(UserError, match=f"learns 2 keypoints.*{said}"):
            made.loss(params, state, with_target(batch(), keypoints=points), key())
