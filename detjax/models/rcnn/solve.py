"""The second half of R-CNN's training: from features of regions to linear models.

    b images of a batch, q candidates of each: its proposals, then its objects
    c classes
    f, g     features that are classified, and that boxes are regressed from

On the host. Girshick et al. 2014 (R-CNN), section 2.3 and appendix C.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from detjax.errors import UserError
from detjax.models.rcnn import linear
from detjax.models.rcnn.ridge import Ridge
from detjax.models.rcnn.sample import Overlaps
from detjax.models.rcnn.svm import SVM
from detjax.types import Array, Batch


class Examples(NamedTuple):
    """The candidates of all training images, e of them; features lie on disk."""

    pooled: np.ndarray  # [e f] float16
    overlap: np.ndarray  # [e c], see `Overlaps`
    truth: np.ndarray  # [e]
    # Proposals that lie near an object, r of them, with its class and the deltas to it.
    spatial: np.ndarray  # [r g] float16
    labels: np.ndarray  # [r]
    deltas: np.ndarray  # [r 4]


def gathered(
    extract: Callable[[Batch], tuple[Overlaps, Array, Array]],
    batches: Iterable[Batch],
    files: Any,
    near: float,
) -> Examples:
    """What `solve` learns from; features go to the two `files`, as they may be many.

    `extract` gives the candidates of a batch and their features, pooled [b q f] and
    spatial [b q g]. Proposals of an IoU above `near` serve regression.
    """
    overlaps, truths, labels, deltas, widths = [], [], [], [], (0, 0)
    for batch in batches:
        known, pooled, spatial = jax.device_get(extract(batch))
        widths = pooled.shape[-1], spatial.shape[-1]
        some = known.valid & np.asarray(batch.inputs.view.valid)[:, None]
        close = some & (known.iou > near) & (known.truth < 0)
        pooled[some].astype(np.float16).tofile(files[0])
        spatial[close].astype(np.float16).tofile(files[1])
        overlaps.append(known.overlap[some])
        truths.append(known.truth[some])
        labels.append(known.labels[close])
        deltas.append(known.deltas[close])
    if not sum(len(x) for x in truths):
        raise UserError("there is no proposal and no object to fit R-CNN's SVMs to")
    truth, label = np.concatenate(truths), np.concatenate(labels)
    return Examples(
        _stored(files[0], len(truth), widths[0]),
        np.concatenate(overlaps),
        truth,
        _stored(files[1], len(label), widths[1]),
        label,
        np.concatenate(deltas),
    )


def _stored(file: Any, count: int, width: int) -> np.ndarray:
    """What was written to `file`, as an array [count width] that stays on disk."""
    file.flush()
    if not count:
        return np.zeros((0, width), np.float16)
    return np.memmap(file, np.float16, "r", shape=(count, width))


def solve(
    examples: Examples, *, num_classes: int, svm: SVM, ridge: Ridge
) -> dict[str, dict[str, np.ndarray]]:
    """Parameters: svm {kernel [f c], bias [c]}, ridge {kernel [c g 4], bias [c 4]}.

    A class's positives are its objects, its negatives all candidates that overlap them
    by less than `svm.negative`. Both solvers get features whose mean norm is 20, as the
    constants of the authors' code want them; the kernels are scaled back.
    """
    machines, regressions = [], []
    scale, size = linear.scale(examples.pooled), linear.scale(examples.spatial)
    for c in range(num_classes):
        own = np.flatnonzero(examples.truth == c)
        far = np.flatnonzero(examples.overlap[:, c] < svm.negative)
        positives, negatives = (
            linear.Rows(examples.pooled, index, scale) for index in (own, far)
        )
        machines.append(svm.fit(positives, negatives))
        near = np.flatnonzero(examples.labels == c)
        rows = linear.Rows(examples.spatial, near, size)
        regressions.append(ridge.fit(rows, examples.deltas[near]))
    return {
        "svm": {
            "kernel": np.stack([x.kernel for x in machines], axis=1) * scale,
            "bias": np.stack([x.bias for x in machines]),
        },
        "ridge": {
            "kernel": np.stack([x.kernel for x in regressions]) * size,
            "bias": np.stack([x.bias for x in regressions]),
        },
    }
