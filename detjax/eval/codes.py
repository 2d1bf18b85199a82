"""Run-length masks of a split, packed: a few bytes each beside their codes."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


class Codes(Sequence):
    """Masks in COCO's form {"size": [h, w], "counts": bytes}, made when asked for.

    text   [t] uint8: the codes, one after the other
    ends   [n] where each one's end lies there
    sizes  [n 2] h, w of their images
    """

    def __init__(
        self,
        text: np.ndarray,
        ends: np.ndarray,
        sizes: np.ndarray,
        begins: np.ndarray | None = None,
    ):
        self._text, self._ends, self._sizes = text, ends, sizes
        self._begins = np.append(0, ends[:-1]) if begins is None else begins

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice):
            index = range(len(self))[index]
            return self[index : index + 1][0]
        rows = zip(
            self._begins[index].tolist(),
            self._ends[index].tolist(),
            self._sizes[index].tolist(),
            strict=True,
        )
        text = self._text.data
        return [{"size": size, "counts": bytes(text[i:j])} for i, j, size in rows]

    def take(self, order: np.ndarray) -> "Codes":
        """The masks at the indices `order`; the codes stay where they are."""
        return Codes(
            self._text, self._ends[order], self._sizes[order], self._begins[order]
        )


def packed(masks: Iterable[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """The text [t] uint8 of masks in COCO's form, and the length [n] of each."""
    counts = [mask["counts"] for mask in masks]
    codes = [code.encode("ascii") if isinstance(code, str) else code for code in counts]
    lengths = np.array([len(code) for code in codes], np.int32)
    return np.frombuffer(b"".join(codes), np.uint8), lengths
