"""Masks that are packed, and columns that grow."""

import tracemalloc

import numpy as np
import pytest

from detjax.eval.codes import Codes, packed
from detjax.eval.collected import Collected
from detjax.eval.columns import Results, take
from tests import reference

MASKS = [
    reference.rle(np.random.default_rng(i).random((4 + i, 6)) < 0.5) for i in range(5)
]


def codes():
    text, lengths = packed(MASKS)
    sizes = np.array([mask["size"] for mask in MASKS])
    return Codes(text, np.cumsum(lengths), sizes)


def as_text(masks):
    return [{**mask, "counts": mask["counts"].decode()} for mask in masks]


def test_packed_masks_are_the_masks():
    held = codes()
    assert len(held) == 5 and as_text(held[:]) == MASKS
    assert as_text([held[3], held[-1]]) == [MASKS[3], MASKS[4]]
    assert as_text(held[1:4:2]) == MASKS[1:4:2] and held[5:] == []
    with pytest.raises(IndexError):
        held[5]
    order = np.array([4, 0, 0, 2])
    chosen = held.take(order)
    assert as_text(chosen) == [MASKS[i] for i in order]
    assert as_text(chosen.take(np.array([1, 3]))[:]) == [MASKS[0], MASKS[2]]
    text, lengths = packed([])
    assert not len(text) and not Codes(text, np.cumsum(lengths), np.zeros((0, 2)))
    binary = [{**mask, "counts": mask["counts"].encode()} for mask in MASKS]
    np.testing.assert_array_equal(packed(binary)[0], packed(MASKS)[0])


def test_they_are_taken_as_a_list_of_masks_is():
    columns = np.arange(5), np.zeros(5, int), np.ones(5), np.zeros((5, 4))
    order = np.array([3, 1])
    one = take(Results(*columns, codes()), order)
    other = take(Results(*columns, MASKS), order)
    assert as_text(one.rles) == other.rles
    assert one.image_ids.tolist() == [3, 1]


def test_columns_grow_and_what_was_there_stays():
    rng, held, added = np.random.default_rng(0), Collected(), []
    assert held.parts == {}
    before = None
    for count in (3, 0, 700, 1, 2000, 5):
        rows = {"a": rng.random((count, 2)), "b": np.full(count, count, np.int32)}
        held.add(rows)
        added.append(rows)
        parts = held.parts
        assert held.parts is parts  # until there is more
        for name in rows:
            whole = np.concatenate([one[name] for one in added])
            np.testing.assert_array_equal(parts[name], whole)
            assert parts[name].dtype == rows[name].dtype
        if before is not None:
            np.testing.assert_array_equal(before["a"], parts["a"][: len(before["a"])])
        before = parts


def test_columns_take_half_as_much_room_again_at_most():
    held, rows = Collected(), np.zeros((50, 4))
    tracemalloc.start()
    for _ in range(2000):
        held.add({"boxes": rows})
    now, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held.parts["boxes"].nbytes <= now < 1.6 * held.parts["boxes"].nbytes
