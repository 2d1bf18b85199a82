"""Matching and mining against loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detjax.ops import assign, columns
from tests import reference


def rows_of(overlaps):
    return lambda index: jnp.asarray(overlaps)[index]


@functools.partial(jax.jit, static_argnames=("force", "low_quality"))
def match(iou, valid, *limits, crowd_iou=None, crowd_valid=None, **options):
    """The match of overlaps that are all given at once."""
    if crowd_iou is not None:
        options["crowd_rows"] = rows_of(crowd_iou)
        whole = jnp.ones(len(crowd_iou), bool)
        options["crowd_valid"] = whole if crowd_valid is None else crowd_valid
    return assign.match(rows_of(iou), jnp.asarray(valid), *limits, **options)


@jax.jit
def bipartite(iou, valid):
    return assign.bipartite(rows_of(iou), valid)


hard_negatives = jax.jit(assign.hard_negatives)


def random_iou(m, p, seed, tied=False):
    rng = np.random.default_rng(seed)
    if tied:
        return rng.integers(0, 5, (m, p)).astype(np.float32) / 4
    return rng.random((m, p), np.float32) ** 2


def states(found):
    return np.where(found.positive, 1, np.where(found.negative, 0, -1))


def check_bipartite(iou, valid):
    prior, matched = bipartite(iou, valid)
    expected = reference.bipartite(iou, valid)
    got = {i: int(prior[i]) for i in range(len(valid)) if matched[i]}
    assert got == expected


@settings(max_examples=40, derandomize=True, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([(6, 40), (9, 5)]))
def test_bipartite_is_greedy(seed, tied, shape):
    valid = np.random.default_rng(seed).random(shape[0]) < 0.8
    check_bipartite(random_iou(*shape, seed, tied), valid)


def test_bipartite_where_all_want_the_same_prior():
    iou = np.zeros((8, 20), np.float32)
    iou[:, 3] = np.linspace(0.9, 0.2, 8)
    check_bipartite(iou, np.ones(8, bool))
    check_bipartite(np.zeros((8, 20), np.float32), np.ones(8, bool))


def test_bipartite_of_nothing():
    none = np.zeros((0, 5), np.float32), np.zeros(0, bool)
    assert bipartite(*none)[1].shape == (0,)
    assert not bipartite(np.zeros((3, 0), np.float32), np.ones(3, bool))[1].any()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("force, low_quality", [(1, 0), (0, 0), (0, 1)])
def test_match_is_the_loops(force, low_quality, tied):
    options = {"force": bool(force), "low_quality": bool(low_quality)}
    for seed in range(12):
        rng = np.random.default_rng(seed)
        iou, crowd = random_iou(6, 50, seed, tied), random_iou(2, 50, seed + 99, tied)
        valid, crowd_valid = rng.random(6) < 0.7, rng.random(2) < 0.7
        arguments = (iou, valid, 0.5, 0.4)
        extra = {"crowd_iou": crowd, "crowd_valid": crowd_valid, "crowd_threshold": 0.5}
        found = match(*arguments, **extra, **options)
        index, state = reference.match(*arguments, **extra, **options)
        np.testing.assert_array_equal(states(found), state)
        np.testing.assert_array_equal(found.index[state == 1], index[state == 1])


def test_many_objects_are_matched_by_blocks():
    """More than a block has of them, valid ones among others."""
    for seed, options in enumerate([{}, {"force": False, "low_quality": True}] * 2):
        rng = np.random.default_rng(seed)
        iou, crowd = random_iou(90, 60, seed, seed > 1), random_iou(40, 60, 9, seed > 1)
        valid, crowd_valid = rng.random(90) < 0.5, rng.random(40) < 0.6
        extra = {"crowd_iou": crowd, "crowd_valid": crowd_valid, "crowd_threshold": 0.8}
        found = match(iou, valid, 0.9, 0.8, **extra, **options)
        index, state = reference.match(iou, valid, 0.9, 0.8, **extra, **options)
        np.testing.assert_array_equal(states(found), state)
        np.testing.assert_array_equal(found.index[state == 1], index[state == 1])


@pytest.mark.parametrize("options", [{}, {"force": False, "low_quality": True}])
def test_memory_of_a_match_does_not_grow_with_the_objects(options):
    def temporary(objects, priors=20_000):
        def call(truth, valid, priors):
            return assign.match(
                columns.iou_rows(truth, priors),
                valid,
                0.5,
                0.4,
                crowd_rows=columns.iou_crowd_rows(priors, truth),
                crowd_valid=valid,
                **options,
            )

        shapes = [((objects, 4), "f4"), ((objects,), "?"), ((priors, 4), "f4")]
        lowered = jax.jit(call).lower(*(jax.ShapeDtypeStruct(*s) for s in shapes))
        return lowered.compile().memory_analysis().temp_size_in_bytes

    few, many = temporary(16), temporary(400)
    assert many < 1.1 * few
    assert many < 0.2 * 400 * 20_000 * 4


def test_match_boundaries():
    iou = np.array([[0.5, 0.4, 0.3, 0.9]], np.float32)
    found = match(iou, np.ones(1, bool), 0.5, 0.4, force=False)
    assert states(found).tolist() == [1, -1, 0, 1]


def test_match_forces_whatever_the_iou():
    iou = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.0, 0.0, 0.0]], np.float32)
    found = match(iou, np.ones(3, bool), 0.5, 0.4)
    assert found.index.tolist() == [0, 1, 2]
    assert found.positive.all() and not found.negative.any()


@pytest.mark.parametrize("m", [0, 3])
def test_match_without_objects(m):
    iou = np.full((m, 4), 0.9, np.float32)
    crowd = np.array([[0.9, 0.7, 0.0, 0.0]], np.float32)
    for options in ({}, {"force": False, "low_quality": True}):
        found = match(iou, np.zeros(m, bool), 0.5, 0.4, crowd_iou=crowd, **options)
        assert states(found).tolist() == [-1, 0, 0, 0]
        assert found.index.shape == (4,)


def test_match_ignores_padding():
    iou, crowd = random_iou(6, 50, 0), random_iou(3, 50, 1)
    valid, crowd_valid = np.arange(6) < 4, np.arange(3) < 1
    clean = match(iou[:4], valid[:4], 0.5, 0.4, crowd_iou=crowd[:1])
    for junk in (0.0, 1e30, -1e30):
        iou[4:], crowd[1:] = junk, junk
        options = {"crowd_iou": crowd, "crowd_valid": crowd_valid}
        dirty = match(iou, valid, 0.5, 0.4, **options)
        jax.tree.map(np.testing.assert_array_equal, clean, dirty)


def test_order_of_objects_is_irrelevant():
    iou, valid = random_iou(6, 50, 3), np.ones(6, bool)
    order = np.array([3, 1, 5, 0, 2, 4])
    first, second = match(iou, valid, 0.5, 0.4), match(iou[order], valid, 0.5, 0.4)
    np.testing.assert_array_equal(order[second.index], first.index)
    np.testing.assert_array_equal(states(second), states(first))


def test_match_under_vmap_and_eagerly():
    iou = np.stack([random_iou(6, 30, seed) for seed in range(3)])
    valid = np.array([[True] * 6, [True] * 2 + [False] * 4, [False] * 6])

    def one(iou, valid):
        return assign.match(rows_of(iou), valid, 0.5, 0.4)

    batched = jax.vmap(one)(iou, valid)
    alone = [one(*pair) for pair in zip(iou, valid, strict=True)]
    looped = jax.tree.map(lambda *x: np.stack(x), *alone)
    jax.tree.map(np.testing.assert_array_equal, batched, looped)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([0, 1, 3, 100]))
def test_hard_negatives_are_the_loops(seed, tied, ratio):
    rng = np.random.default_rng(seed)
    loss = random_iou(1, 40, seed, tied)[0]
    state = rng.choice([-1, 0, 1], 40, p=[0.2, 0.65, 0.15])
    expected = reference.hard_negatives(loss, state == 1, state == 0, ratio)
    got = hard_negatives(loss, state == 1, state == 0, ratio)
    np.testing.assert_array_equal(got, expected)


def test_hard_negatives_ignore_other_losses():
    loss = np.array([9.0, 1, 2, 3, 8, 4], np.float32)
    positive = np.array([1, 0, 0, 0, 0, 0], bool)
    negative = np.array([0, 1, 1, 1, 0, 1], bool)
    for junk in (0.0, 1e30):
        loss[4] = junk
        picked = hard_negatives(loss, positive, negative, 2)
        assert picked.tolist() == [False, False, False, True, False, True]
    none = np.zeros(6, bool)
    assert not hard_negatives(loss, none, negative, 3).any()


def test_hard_negatives_leave_the_gradient_to_the_loss():
    loss = jnp.array([0.3, 0.1, 0.2])
    positive, negative = np.array([1, 0, 0], bool), np.array([0, 1, 1], bool)

    def total(loss):
        return jnp.where(hard_negatives(loss, positive, negative, 1), loss, 0).sum()

    np.testing.assert_array_equal(jax.grad(total)(loss), [0, 0, 1])


def sampled(positive, negative, count, fraction, seed=0):
    call = jax.jit(assign.sample, static_argnums=(2, 3))
    found = call(positive, negative, count, fraction, jax.random.key(seed))
    index, chosen = np.asarray(found.index), np.asarray(found.chosen)
    assert (found.positive <= chosen).all()
    return index[np.asarray(found.positive)], index[chosen & ~found.positive], found


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [(40, 60, (5, 15)), (3, 60, (3, 17)), (40, 4, (5, 4)), (0, 0, (0, 0))],
)
def test_sample_has_its_counts(positives, negatives, expected):
    order = np.random.default_rng(0).permutation(110)
    positive = order < positives
    negative = (order >= 40) & (order < 40 + negatives)
    first, second, found = sampled(positive, negative, 20, 0.25)
    assert (len(first), len(second)) == expected
    assert positive[first].all()
    assert negative[second].all()
    assert len(set(first)) + len(set(second)) == sum(expected)
    assert found.index.shape == (20,)


def test_a_large_sample_takes_all():
    positive = np.arange(10) < 4
    first, second, found = sampled(positive, ~positive, 1_000_000, 0.25)
    assert sorted(first) == [0, 1, 2, 3]
    assert sorted(second) == [4, 5, 6, 7, 8, 9]
    assert found.index.shape == (10,)


def test_every_prior_is_drawn_as_often():
    positive = np.arange(30) < 10
    drawn = np.zeros(30)
    for seed in range(60):
        first, second, _ = sampled(positive, ~positive, 10, 0.5, seed)
        drawn[first] += 1
        drawn[second] += 1
    assert (drawn[:10] > 15).all()
    assert (drawn[10:] > 4).all()


def test_an_object_that_no_prior_overlaps_makes_none_of_them_positive():
    iou = np.array([[0.0, 0.0, 0.0, 0.0], [0.2, 0.6, 0.0, 0.1]], np.float32)
    found = match(iou, np.ones(2, bool), 0.7, 0.3, force=False, low_quality=True)
    assert states(found).tolist() == [0, 1, 0, 0]
    # Priors that may not be used count as overlapping nothing either.
    unusable = np.where([True, False, True, True], -1.0, iou).astype(np.float32)
    found = match(unusable, np.ones(2, bool), 0.7, 0.3, force=False, low_quality=True)
    assert found.positive.tolist() == [False, True, False, False]
