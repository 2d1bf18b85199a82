"""The log's files on a disk that is full."""

import json
import resource

import pytest
from test_bad_input import SERVER

from detjax import log

ROOM = 4000


def fill(workdir, said):
    """The target of a forked process: writes a log until a file takes no more."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))
    try:
        with log.Log(workdir, float, 1, 1000, {}, progress=False) as lines:
            for step in range(2, 1000):
                lines.put({"step": step, "loss": 0.5, "lr": 0.1})
    except OSError as error:
        said.write_text(str(error))


@pytest.mark.parametrize("first", ["tensorboard/events", "metrics.jsonl"])
def test_a_full_disk_is_one_sentence_and_never_waits(tmp_path, first):
    """Events take more room than lines, but where there are old lines already."""
    workdir, said = tmp_path / "run", tmp_path / "said.txt"
    workdir.mkdir()
    old = {"step": 1, "loss": "0" * (0 if "events" in first else ROOM - 100)}
    (workdir / "metrics.jsonl").write_text(json.dumps(old) + "\n")
    process = SERVER.Process(target=fill, args=(workdir, said))
    process.start()
    process.join(60)
    hangs = process.is_alive()
    process.kill()
    assert not hangs
    assert process.exitcode == 0
    assert said.read_text().startswith(f"{workdir}/{first}")
    assert "free some space there and start the same command again" in said.read_text()


def test_a_log_goes_on_in_a_file_of_its_own(tmp_path):
    for step in (1, 2):
        with log.Log(tmp_path, float, step - 1, 9, {}, progress=False) as lines:
            lines.put({"step": step, "loss": 0.5})
    assert [row["step"] for row in log.truncate(tmp_path / "metrics.jsonl", 9)] == [
        1,
        2,
    ]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
