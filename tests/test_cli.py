"""What scripts say of errors: a sentence of what users can mend, a trace of defects."""

import io
import os

import pytest

from detjax import cli
from detjax.errors import UserError


def ended(capsys, error):
    """(exit status, what was said) of a script that raises `error`."""
    with pytest.raises(SystemExit) as caught, cli.reported():
        raise error
    return caught.value.code, capsys.readouterr().err


def test_what_users_can_mend_is_one_sentence(capsys):
    for error in (UserError("a.json is no JSON"), FileNotFoundError(2, "gone", "b")):
        status, said = ended(capsys, error)
        assert status == 1
        assert said.startswith("error: ")
        assert said.count("\n") == 1


@pytest.mark.parametrize("kind", [ValueError, TypeError, KeyError, ZeroDivisionError])
def test_a_defect_shows_where_it_came_from(capsys, kind):
    """Of the kinds that were sentences once, too."""
    status, said = ended(capsys, kind("shapes differ"))
    assert status == 1
    assert "Traceback (most recent call last)" in said
    assert "test_cli.py" in said
    last = said.splitlines()[-1]
    assert last.startswith(f"error: {kind.__name__}: ")
    assert "shapes differ" in last
    assert "please report it" in last


@pytest.mark.parametrize(
    "error",
    [MemoryError("no room"), RuntimeError("RESOURCE_EXHAUSTED: Out of memory")],
)
def test_too_little_memory_is_no_defect(capsys, error):
    _, said = ended(capsys, error)
    assert said.startswith("error: there is not enough memory (")
    assert "data.batch_size" in said
    assert said.count("\n") == 1


def test_ctrl_c_leaves_with_its_status(capsys, monkeypatch):
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    with cli.reported():
        raise KeyboardInterrupt
    assert left == [130]
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_reader_that_goes_away_stops_nothing():
    read, write = os.pipe()
    os.close(read)
    with io.TextIOWrapper(os.fdopen(write, "wb", buffering=0)) as broken:
        patient = cli.Patient(broken)
        assert patient.write("50 %") == 4
        patient.flush()
        assert patient.fileno() == write


def test_a_stream_that_is_closed_is_none_to_write_to(monkeypatch):
    """As of `2>&-`, of which Python makes None."""
    import sys

    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    cli.tolerate_odd_streams()
    print("50 %", file=sys.stderr)
    print("größe 猫")
    sys.stdout.flush()
    sys.stderr.close()
    assert sys.stdout.buffer.getvalue() == b"gr\\xf6\\xdfe \\u732b\n"


def test_a_config_that_returns_nothing_is_named_for_that():
    """A flag looks for its setting in it before anything else does."""
    error = TypeError("Attribute <class 'NoneType'>.data does not exist and the type")
    assert "get_config() returned None; return exp" in cli.sentence(error)
