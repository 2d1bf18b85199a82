"""Linear functions of features, and rows of features that may lie on disk.

On the host, in numpy. Features come in any array that can be indexed by rows, such as
one on disk, and are read a block at a time.

    n        examples
    f        features of each
"""

from typing import Any, NamedTuple

import numpy as np

BLOCK = 1 << 14  # rows read at once: 64 MiB of float32 at 1,024 features


class Affine(NamedTuple):
    """x -> x @ kernel + bias."""

    kernel: np.ndarray  # [f] or [f k]
    bias: Any  # [] or [k]

    def __call__(self, features) -> np.ndarray:
        """Values [n] or [n k] of features [n f]."""
        blocks = range(0, max(len(features), 1), BLOCK)
        return np.concatenate(
            [
                np.asarray(features[i : i + BLOCK], np.float32) @ self.kernel
                + self.bias
                for i in blocks
            ]
        )


class Rows:
    """Some rows of an array, times a number, read when they are indexed."""

    def __init__(self, source: np.ndarray, index: np.ndarray, scale: float = 1.0):
        self._source, self._index, self._scale = source, index, scale
        self.shape = len(index), source.shape[1]

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, key) -> np.ndarray:
        rows = self._source[self._index[key]]
        return np.asarray(rows, np.float32) * np.float32(self._scale)


def scale(features: np.ndarray, norm: float = 20.0) -> float:
    """What brings the mean norm of features [n f] to `norm`; 1 where all are 0.

    20 is what the constants of R-CNN's code are made for.
    """
    total = sum(
        float(
            np.linalg.norm(
                np.asarray(features[i : i + BLOCK], np.float32), axis=1
            ).sum()
        )
        for i in range(0, len(features), BLOCK)
    )
    return norm * len(features) / total if total else 1.0
