"""Measured times as rows of a table."""

import dataclasses
import functools
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "numpy", "torch", "torchvision", "pycocotools")


@dataclasses.dataclass(frozen=True)
class Row:
    """A measurement: milliseconds of ours and of a peer, where there is one.

    images: of a call, where images a second say something.
    roof_ms: the least that the layers could take here, see `roofline`.
    memory_mb: of arguments, results and temporaries.
    """

    name: str
    size: str
    ours_ms: float
    peer: str | None = None
    peer_ms: float | None = None
    images: int | None = None
    roof_ms: float | None = None
    memory_mb: float | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.peer_ms is None else self.peer_ms / self.ours_ms

    @property
    def rate(self) -> float | None:
        """Images a second."""
        return None if self.images is None else 1e3 * self.images / self.ours_ms

    @property
    def share(self) -> float | None:
        """The part of the time that the layers need at the least."""
        return None if self.roof_ms is None else self.roof_ms / self.ours_ms

    def json(self) -> dict[str, Any]:
        device = jax.devices()[0]
        numbers = dataclasses.asdict(self) | {
            "ratio": self.ratio,
            "images_per_s": self.rate,
            "roof_share": self.share,
        }
        return {
            k: round(v, 3) if isinstance(v, float) else v for k, v in numbers.items()
        } | {
            "device": f"{device.device_kind}, {os.cpu_count()} cores "
            f"{platform.machine()}",
            "versions": {p: version(p) for p in PACKAGES if version(p)},
        }

    def __str__(self) -> str:
        peer = self.peer or ""
        if self.peer and self.peer_ms is None:
            peer += " (not measured)"
        return (
            f"{self.name:24} {self.size:28} {self.ours_ms:10.2f} "
            f"{_shown(self.rate, '.1f')} {_shown(self.share, '.2f')} "
            f"{_shown(self.memory_mb, ',.0f')} {_shown(self.peer_ms, '.2f')} "
            f"{_shown(self.ratio, '.2f')}  {peer}"
        ).rstrip()


HEADER = (
    f"{'name':24} {'size':28} {'ours ms':>10} {'images/s':>9} {'of roof':>9} "
    f"{'MB':>9} {'peer ms':>9} {'ratio':>9}  peer"
)


def _shown(number: float | None, form: str) -> str:
    return f"{'' if number is None else format(number, form):>9}"


@functools.cache
def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def in_turn(
    ours: Callable[[], Any], peer: Callable[[], Any] | None = None, runs: int = 9
) -> tuple[float, float | None]:
    """Median milliseconds of each, run alternately after two warm-ups."""
    functions = [f for f in (ours, peer) if f]
    times: list[list[float]] = [[] for _ in functions]
    for i in range(runs + 2):
        for function, seen in zip(functions, times, strict=True):
            taken = 1e3 * seconds(function)
            if i >= 2:
                seen.append(taken)
    found = [statistics.median(seen) for seen in times]
    return found[0], found[1] if peer else None


def ready(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """A call of `function` that waits for its results."""
    return lambda: jax.block_until_ready(function(*args))


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
