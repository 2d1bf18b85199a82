"""Overlaps against loops, conversions and codecs against their inverses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from detjax.ops import boxes
from tests import reference

OVERLAPS = [boxes.iou, boxes.iou_crowd, boxes.giou, boxes.diou, boxes.ciou]


def random_boxes(n, seed=0, span=60.0):
    rng = np.random.default_rng(seed)
    low, size = rng.uniform(0, span, (n, 2)), rng.uniform(1, 50, (n, 2))
    return np.concatenate([low, low + size], 1).astype(np.float32)


def test_iou_is_the_textbooks():
    a, b = random_boxes(9), random_boxes(7, seed=1)
    np.testing.assert_allclose(boxes.iou(a, b), reference.iou(a, b), rtol=1e-5)
    np.testing.assert_allclose(np.diag(boxes.iou(a, a)), 1, rtol=1e-6)


def test_iou_of_a_hand_computed_pair():
    a = np.array([[0, 0, 4, 4]], np.float32)
    b = np.array([[2, 0, 6, 4], [4, 0, 8, 4], [1, 1, 1, 3], [3, 3, 1, 1]], np.float32)
    np.testing.assert_allclose(boxes.iou(a, b), [[1 / 3, 0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(boxes.iou_crowd(a, b), [[0.5, 0, 0, 0]])
    np.testing.assert_allclose(boxes.iou_crowd(b, a)[:, 0], [0.5, 0, 0, 0])
    np.testing.assert_allclose(boxes.area(b), [16, 16, 0, 0])


def test_variants_are_their_equations():
    a, b = random_boxes(8), random_boxes(6, seed=1)
    expected = np.array([[reference.variants(x, y) for y in b] for x in a])
    for i, function in enumerate([boxes.giou, boxes.diou, boxes.ciou]):
        np.testing.assert_allclose(function(a, b), expected[..., i], atol=1e-5)


def test_alpha_of_ciou_carries_no_gradient():
    a, b = random_boxes(1), random_boxes(1, seed=1)

    def with_fixed_alpha(x, alpha):
        size = x[0, 2:] - x[0, :2]
        target = b[0, 2:] - b[0, :2]
        angle = jnp.arctan(size[0] / size[1]) - jnp.arctan(target[0] / target[1])
        v = 4 / jnp.pi**2 * angle**2
        return boxes.diou(x, b)[0, 0] - alpha * v, v

    (_, v) = with_fixed_alpha(a, 0.0)
    alpha = v / (1 - boxes.iou(a, b)[0, 0] + v)
    expected = jax.grad(lambda x: with_fixed_alpha(x, alpha)[0])(jnp.asarray(a))
    got = jax.grad(lambda x: boxes.ciou(x, b)[0, 0])(jnp.asarray(a))
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("function", OVERLAPS)
def test_degenerate_boxes_are_finite(function):
    point = [5.0, 5, 5, 5]
    a = jnp.array([point, [5, 5, 9, 5], [9, 9, 2, 2], [0, 0, 10, 10], [0, 0, 0, 0]])
    value, gradient = jax.value_and_grad(lambda x, y: function(x, y).sum(), (0, 1))(
        a, a
    )
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradient)


@pytest.mark.parametrize("function", OVERLAPS)
def test_jit_and_vmap_change_nothing(function):
    a, b = random_boxes(6).reshape(2, 3, 4), random_boxes(8, seed=1).reshape(2, 4, 4)
    batched = jax.jit(jax.vmap(function))(a, b)
    looped = np.stack([function(x, y) for x, y in zip(a, b, strict=True)])
    np.testing.assert_allclose(batched, looped, atol=1e-6)


@pytest.mark.parametrize("function", OVERLAPS)
def test_no_boxes(function):
    assert function(np.zeros((0, 4), np.float32), random_boxes(3)).shape == (0, 3)


def test_padding_is_inert():
    a, b = random_boxes(4), random_boxes(4, seed=1)
    valid = np.array([True, True, False, True])

    def loss(x, y):
        overlap = jax.vmap(lambda u, v: boxes.ciou(u[None], v[None])[0, 0])(x, y)
        return jnp.sum(jnp.where(valid, 1 - overlap, 0))

    junk = b.copy()
    junk[2] = [1e6, -1e6, -3, 1e6]
    clean = jax.value_and_grad(loss)(jnp.asarray(a), b)
    dirty = jax.value_and_grad(loss)(jnp.asarray(a), junk)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)


@pytest.mark.parametrize(
    "there, back",
    [
        (boxes.xyxy_to_cxcywh, boxes.cxcywh_to_xyxy),
        (boxes.xyxy_to_xywh, boxes.xywh_to_xyxy),
    ],
)
def test_conversions_invert(there, back):
    x = random_boxes(6).reshape(2, 3, 4)
    np.testing.assert_allclose(back(there(x)), x, atol=1e-5)
    assert there(x[0, 0]).shape == (4,)


def test_conversions_by_hand():
    box = np.array([1, 2, 4, 8], np.float32)
    np.testing.assert_array_equal(boxes.xyxy_to_cxcywh(box), [2.5, 5, 3, 6])
    np.testing.assert_array_equal(boxes.xyxy_to_xywh(box), [1, 2, 3, 6])


def test_clip():
    box = np.array([[-1, -2, 30, 40], [3, 4, 5, 6]], np.float32)
    whole = boxes.full_window((10, 20))
    np.testing.assert_array_equal(
        boxes.clip(box, whole), [[0, 0, 20, 10], [3, 4, 5, 6]]
    )
    window = np.array([2, 1, 4, 20], np.float32)
    np.testing.assert_array_equal(
        boxes.clip(box, window), [[2, 1, 4, 20], [3, 4, 4, 6]]
    )


def test_window_is_where_the_picture_lies():
    affine = np.array([[2, 0, 5], [0, 0.5, 0]], np.float32)
    size = np.array([40, 10], np.int32)
    np.testing.assert_allclose(boxes.window(affine, size, (64, 64)), [5, 0, 25, 20])
    # A picture turned over and larger than the input.
    affine = np.array([[-3, 0, 60], [0, 2, 0]], np.float32)
    np.testing.assert_allclose(boxes.window(affine, size, (64, 50)), [30, 0, 50, 64])


@pytest.mark.parametrize(
    "encode, decode, setting",
    [
        (boxes.encode, boxes.decode, (0.1, 0.2)),
        (boxes.encode, boxes.decode, (1.0, 1.0)),
        (boxes.encode_rcnn, boxes.decode_rcnn, (1.0, 1.0, 1.0, 1.0)),
        (boxes.encode_rcnn, boxes.decode_rcnn, (10.0, 10.0, 5.0, 5.0)),
    ],
)
def test_decode_inverts_encode(encode, decode, setting):
    x, priors = random_boxes(20), random_boxes(20, seed=1)
    deltas = encode(x, priors, setting)
    np.testing.assert_allclose(decode(deltas, priors, setting), x, atol=1e-3)
    np.testing.assert_allclose(encode(priors, priors, setting), 0, atol=1e-6)


def test_deltas_by_hand():
    prior = np.array([[0, 0, 10, 20]], np.float32)
    box = np.array([[5, 0, 25, 10]], np.float32)  # centre (15, 5), size (20, 10)
    log2 = np.log(2)
    expected = [[10 / 10 / 0.1, -5 / 20 / 0.1, log2 / 0.2, -log2 / 0.2]]
    np.testing.assert_allclose(boxes.encode(box, prior), expected, rtol=1e-5)
    expected = [[10.0, -2.5, 5 * log2, -5 * log2]]
    got = boxes.encode_rcnn(box, prior, (10.0, 10.0, 5.0, 5.0))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_decode_rcnn_limits_growth():
    prior = np.array([[0, 0, 16, 16]], np.float32)
    deltas = np.array([[0, 0, 50, 50]], np.float32)
    box = boxes.decode_rcnn(deltas, prior)
    np.testing.assert_allclose(boxes.xyxy_to_xywh(box)[0, 2:], 1000, rtol=1e-4)


@pytest.mark.parametrize("encode", [boxes.encode, boxes.encode_rcnn])
def test_encoding_empty_boxes_is_finite(encode):
    x = jnp.array([[3.0, 3, 3, 3], [0, 0, 8, 8], [9, 9, 1, 1]])
    priors = jnp.array([[0.0, 0, 8, 8], [4, 4, 4, 4], [0, 0, 8, 8]])
    gradient = jax.grad(lambda x: encode(x, priors).sum())(x)
    assert np.isfinite(encode(x, priors)).all() and np.isfinite(gradient).all()


def test_signatures_are_checked():
    with pytest.raises(TypeCheckError):
        boxes.area(np.zeros((3, 5), np.float32))
    with pytest.raises(TypeCheckError):
        jax.jit(boxes.area)(np.zeros((3, 5), np.float32))


def test_decoded_boxes_are_finite_whatever_the_deltas():
    priors = np.float32([[10, 10, 20, 30]])
    for decode in (boxes.decode, boxes.decode_rcnn):
        found = np.asarray(decode(np.float32([[0, 0, 1e4, 1e4]]), priors))[0]
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found[2:] - found[:2], [625, 1250], rtol=1e-5)


def test_ratios_of_nothing_are_nothing():
    found = boxes.ratio(jnp.array([3.0, 3, 0]), jnp.array([2.0, 0, 0]))
    assert found.tolist() == [1.5, 0, 0]


def test_pairs_are_the_diagonal_of_every_pair():
    rng = np.random.default_rng(4)
    a, b = (
        np.sort(rng.uniform(0, 9, (20, 2, 2)).astype("f"), 1).reshape(20, 4)
        for _ in "ab"
    )
    every = np.asarray(boxes.iou(a, b))
    np.testing.assert_allclose(boxes.paired_iou(a, b), every.diagonal(), rtol=1e-6)
    np.testing.assert_allclose(boxes.paired_iou(a, b[:1]), every[:, 0], rtol=1e-6)
