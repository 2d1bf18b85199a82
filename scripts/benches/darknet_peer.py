"""Darknet's own program, as a peer that times itself.

It is plain C and builds in a minute, outside of this repository:

    git clone https://github.com/pjreddie/darknet && cd darknet
    sed -i 's/^OPENMP=0/OPENMP=1/' Makefile && make
    export DETJAX_DARKNET_BINARY=$PWD/darknet
"""

import os
import pathlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

BINARY = "DETJAX_DARKNET_BINARY"
_SAID = re.compile(rb"Predicted in ([\d.]+) seconds")


class Detector:
    """A running `darknet detector test`, which asks for the paths of pictures."""

    def __init__(self, program: subprocess.Popen, picture: pathlib.Path):
        self._program, self._picture = program, picture

    def milliseconds(self) -> float:
        """Of the network on one more picture, as darknet prints them.

        Reading the picture and drawing what is found are not among them. Raises
        RuntimeError where darknet has ended.
        """
        assert self._program.stdin and self._program.stdout
        self._program.stdin.write(f"{self._picture}\n".encode())
        self._program.stdin.flush()
        for line in iter(self._program.stdout.readline, b""):
            said = _SAID.search(line)
            if said:
                return 1e3 * float(said[1])
        raise RuntimeError(f"darknet ended with status {self._program.wait()}")


@contextmanager
def detector(cfg: str) -> Iterator[Detector | None]:
    """Darknet with the network `cfg` of its own, such as "yolov3", at random weights.

    None where the environment names no binary. It sees one picture at a time, on all
    cores if it was built with OPENMP=1.
    """
    binary = os.environ.get(BINARY)
    if not binary:
        yield None
        return
    root = pathlib.Path(binary).resolve().parent
    # The training options that a cfg may have on ask for the memory of a batch.
    text = (root / "cfg" / f"{cfg}.cfg").read_text()
    text = re.sub(r"(?m)^(batch|subdivisions)\s*=.*", r"\1=1", text)
    text = re.sub(r"(?m)^(width|height)\s*=.*", r"\1=416", text)
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as file:
        file.write(text)
        file.flush()
        # Without a threshold that nothing reaches all boxes of noise would be drawn.
        arguments = ["detector", "test", "cfg/coco.data", file.name, "-thresh", "1.1"]
        program = subprocess.Popen(
            [binary, *arguments],
            cwd=root,
            env={**os.environ, "OMP_NUM_THREADS": str(os.cpu_count())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Detector(program, root / "data" / "dog.jpg")
        finally:
            program.kill()
            program.wait()
