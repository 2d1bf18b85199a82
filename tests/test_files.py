"""Files that are written as a stream, and what is near a name that is not there."""

import errno
import itertools
import json
import os

import pytest

from detjax import files


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 30])
def test_a_stream_of_rows_is_the_text_of_their_list(count, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOT", 8)
    rows = [{"a": i, "b": [i / 3, None, "é"]} for i in range(count)]
    files.write_rows(tmp_path / "a.json", iter(rows))
    assert (tmp_path / "a.json").read_text() == json.dumps(rows)
    assert "".join(files.json_pieces(rows)) == json.dumps(rows)
    assert os.listdir(tmp_path) == ["a.json"]


class Row(dict):
    """A row that counts how many are held."""

    held = most = 0

    def __init__(self, **given):
        super().__init__(given)
        Row.held += 1
        Row.most = max(Row.most, Row.held)

    def __del__(self):
        Row.held -= 1


def test_no_more_than_a_part_of_a_stream_is_held(tmp_path):
    files.write_rows(tmp_path / "a.json", (Row(number=i) for i in range(20_000)))
    assert len(json.loads((tmp_path / "a.json").read_text())) == 20_000
    assert files.LOT <= Row.most <= 2 * files.LOT < 10_000


class Full:
    """A file on a disk that is full after some bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)

    def close(self):
        self.file.close()


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("old")
    opened = type(path).open
    monkeypatch.setattr(
        type(path), "open", lambda self, mode: Full(opened(self, mode), 40_000)
    )
    drawn = []

    def rows():
        for i in itertools.count():
            drawn.append(i)
            yield {"number": i}

    with pytest.raises(OSError, match=r"a\.json could not be written \(No space left"):
        files.write_rows(path, rows())
    monkeypatch.undo()
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]
    assert len(drawn) < 10_000


def test_an_error_of_the_rows_is_their_own(tmp_path):
    def rows():
        yield {}
        raise OSError("another file")

    with pytest.raises(OSError, match=r"^another file$"):
        files.write_rows(tmp_path / "a.json", rows())
    assert os.listdir(tmp_path) == []


def test_two_that_write_one_file_do_not_meet(tmp_path):
    with files.replacing(tmp_path / "a") as one, files.replacing(tmp_path / "a") as two:
        one(b"1")
        two(b"2")
    assert (tmp_path / "a").read_bytes() == b"1"
    assert os.listdir(tmp_path) == ["a"]


def test_what_is_near_a_path(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "new").mkdir()
    near = tmp_path / "photos" / "new"
    assert files.near(near.with_name("nwe")) == f"; did you mean {near}?"
    assert files.near(near.with_name("NEW")) == f"; did you mean {near}?"
    assert files.near(tmp_path / "phtos" / "x") == f"; did you mean {near.parent}?"
    assert files.near(tmp_path / "zzz" / "x") == f"; {tmp_path} has no 'zzz'"
    assert files.near(tmp_path / "zzz") == ""
    assert files.near(tmp_path / "quikstart", ["quickstart"]).endswith("quickstart?")
