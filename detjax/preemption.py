"""SIGTERM, as a machine that is taken away sends it: save, and go in good time."""

import os
import signal
import sys
import threading

import jax
from jax.experimental import multihost_utils

STATUS = 128 + signal.SIGTERM


class Preempted(SystemExit):
    """The process was told to end, and the run is saved: exit status 143."""

    def __init__(self, step: int):
        super().__init__(STATUS)
        self.step = step


class Interrupted(Exception):
    """Something that can be done again was left off, because the process has to end."""


class Watch:
    """Knows, while it is entered, whether the process has been told to end.

    SIGTERM does not end the process then, but `grace` seconds after it the process
    ends, saved or not. Among several processes JAX's coordinator listens instead, and
    has them all stop at the same step. Outside the main thread signals cannot be
    caught, and nothing is ever told.
    """

    def __init__(self, grace: float):
        self._grace = grace
        self._told = threading.Event()
        self._timer: threading.Timer | None = None
        alone = jax.process_count() == 1
        main = threading.current_thread() is threading.main_thread()
        self._alone, self._listens = alone, alone and main

    def __enter__(self):
        if self._listens:
            self._before = signal.signal(signal.SIGTERM, lambda *_: self._tell())
        return self

    def __exit__(self, *_):
        if self._timer:
            self._timer.cancel()
        if self._listens:
            signal.signal(signal.SIGTERM, self._before)

    def now(self) -> bool:
        """Whether this process was told; among several it knows only at a step."""
        return self._told.is_set()

    def at(self, step: int) -> bool:
        """Whether to stop after `step`; the same answer in every process."""
        if not self._alone and multihost_utils.reached_preemption_sync_point(step):
            self._tell()
        return self._told.is_set()

    def _tell(self) -> None:
        if not self._told.is_set():
            self._told.set()
            self._timer = threading.Timer(self._grace, self._give_up)
            self._timer.daemon = True
            self._timer.start()

    def _give_up(self) -> None:
        print(
            f"error: told to end, and not saved within train.grace_seconds="
            f"{self._grace:g}; the newest complete checkpoint is what there is",
            file=sys.stderr,
            flush=True,
        )
        os._exit(STATUS)
