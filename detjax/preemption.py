"""Graceful shutdown on signals: save, report and exit.

SIGTERM is sent when a machine is preempted, SIGINT by Ctrl-C, SIGHUP when a terminal is
closed.
"""

import os
import signal
import sys
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils

from detjax import cluster

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Preempted(SystemExit):
    """A signal ended the process and the run is saved: exit status 128 + signal.

    Creating one prints a message.
    """

    def __init__(self, number: int, step: int):
        super().__init__(128 + number)
        self.step = step
        if cluster.primary():
            print(
                f"{signal.Signals(number).name}: saved at step {step}; the same "
                "command goes on from there",
                file=sys.stderr,
            )


class Interrupted(Exception):
    """Repeatable work was interrupted because the process has to end."""


class Watch:
    """Context manager that records signals to end the process.

    A signal does not end the process immediately, but `grace` seconds later the process
    ends, saved or not; a second Ctrl-C ends it at once. This also holds during
    compilation, when Python's own handlers do not run: a thread receives signals.

    With several processes JAX's coordinator listens instead and makes them all stop at
    the same step. Outside the main thread signals cannot be caught and none is
    recorded.
    """

    def __init__(self, grace: float):
        self._grace = grace
        self.signal: int = signal.SIGTERM  # the signal received, if any
        self._told = threading.Event()
        self._timer: threading.Timer | None = None
        self._before: dict[int, Any] = {}
        alone = jax.process_count() == 1
        main = threading.current_thread() is threading.main_thread()
        self._alone, self._listens = alone, alone and main

    def __enter__(self) -> "Watch":
        if self._listens:
            receive, self._send = os.pipe()
            os.set_blocking(self._send, False)
            self._fd_before = signal.set_wakeup_fd(
                self._send, warn_on_full_buffer=False
            )
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._note)
            threading.Thread(target=self._listen, args=(receive,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        if self._timer:
            self._timer.cancel()
        if self._listens:
            signal.set_wakeup_fd(self._fd_before)
            for number, before in self._before.items():
                signal.signal(number, before)
            os.close(self._send)  # which ends the thread

    def now(self) -> bool:
        """Whether a signal was received; several processes know only at a step."""
        return self._told.is_set()

    def at(self, step: int) -> bool:
        """Whether to stop after `step`; the same answer in every process."""
        if not self._alone and multihost_utils.reached_preemption_sync_point(step):
            self._tell(signal.SIGTERM)
        return self._told.is_set()

    def _listen(self, receive: int) -> None:
        """Reads signals, a byte each, until the other end of the pipe is closed."""
        with open(receive, "rb", buffering=0) as pipe:
            while numbers := pipe.read(1):
                if numbers[0] in SIGNALS:
                    self._tell(numbers[0])

    def _note(self, number: int, _: Any = None) -> None:
        """Records the first signal; called by the main thread between two steps."""
        if not self._told.is_set():
            self.signal = number
            self._told.set()

    def _tell(self, number: int) -> None:
        """Starts the grace period, or ends the process."""
        self._note(number)
        if self._timer is None:
            self._timer = threading.Timer(self._grace, self._give_up)
            self._timer.daemon = True
            self._timer.start()
        elif number == signal.SIGINT:
            self._leave("interrupted twice")

    def _give_up(self) -> None:
        self._leave(
            f"told to end, and not saved within train.grace_seconds={self._grace:g}"
        )

    def _leave(self, why: str) -> None:
        print(
            f"error: {why}; the newest complete checkpoint is what there is",
            file=sys.stderr,
            flush=True,
        )
        os._exit(128 + self.signal)
