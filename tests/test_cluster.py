"""What processes gather; with real ones in test_processes."""

import json

import numpy as np
import pytest

from detjax import cluster


def together(monkeypatch, columns):
    """What each of several processes gathers of its columns, one after the other."""
    count, found = len(columns), []
    heads = [
        [[name, x.dtype.str, list(x.shape)] for name, x in sorted(held.items())]
        for held in columns
    ]
    rows = [[process, head] for process, head in enumerate(heads)]
    monkeypatch.setattr(cluster, "gather", lambda _: json.loads(json.dumps(rows)))
    monkeypatch.setattr(cluster.jax, "process_count", lambda: count)
    monkeypatch.setattr(cluster, "PIECE", 50)
    pieces = [[] for _ in columns]

    def sends(process, record):
        """All that a process sends, in turn; or what all send, where it is known."""

        def allgather(piece):
            if record:
                pieces[process].append(piece.copy())
                return np.zeros((count, len(piece)), np.uint8)
            turn = next(turns)
            return np.stack([sent[turn] for sent in pieces])

        return allgather

    for record in (True, False):
        for process, held in enumerate(columns):
            turns = iter(range(1000))
            monkeypatch.setattr(cluster.jax, "process_index", lambda p=process: p)
            monkeypatch.setattr(
                cluster.multihost_utils, "process_allgather", sends(process, record)
            )
            gathered = cluster.gather_columns(held)
            if not record:
                found.append(gathered)
    return found


def test_columns_of_processes_are_put_one_after_the_other(monkeypatch):
    """Of different lengths, in several pieces; float64 is not rounded."""
    rng = np.random.default_rng(0)
    columns = [
        {"boxes": rng.random((n, 4)), "labels": rng.integers(0, 9, n, np.int32)}
        for n in (3, 0, 11)
    ]
    columns.append({})  # nothing was found there
    columns[2]["text"] = rng.integers(0, 255, 99, np.uint8)
    for found in together(monkeypatch, columns):
        for name in ("boxes", "labels", "text"):
            held = [one[name] for one in columns if name in one]
            np.testing.assert_array_equal(found[name], np.concatenate(held))
            assert found[name].dtype == held[0].dtype
    assert together(monkeypatch, [{}, {}]) == [{}, {}]
    with pytest.raises(ValueError, match="columns 'a' of"):
        together(monkeypatch, [{"a": np.zeros(1)}, {"a": np.zeros(1, np.float32)}])


def test_one_process_has_its_own():
    held = {"a": np.zeros(3)}
    assert cluster.gather_columns(held) is held
