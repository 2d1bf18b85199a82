"""Ridge regression of boxes, on the host.

    n        examples
    f        features of each

Girshick et al. 2014 (R-CNN), appendix C, equation 5.
"""

import dataclasses

import numpy as np

from detjax.models.rcnn import linear
from detjax.models.rcnn.linear import Affine, Rows
from detjax.settings import Fraction, NonNegative


@dataclasses.dataclass(frozen=True)
class Ridge:
    """Settings of the regression of one class.

    near: proposals of a larger IoU with an object are learnt from.
    penalty: the weight of the squared kernel.
    """

    near: Fraction = 0.6
    penalty: NonNegative = 1000.0

    def fit(self, features: np.ndarray | Rows, targets: np.ndarray) -> Affine:
        """Least squares of targets [n k] on features [n f], the weights penalised.

        The targets' mean is taken off first; `penalty` times the squares of the kernel,
        and of what the bias differs from that mean, is added. Without examples kernel
        and bias are 0.
        """
        f = features.shape[1]
        targets = np.asarray(targets, np.float64)
        if not len(targets):
            return Affine(
                np.zeros((f, targets.shape[1]), np.float32),
                np.zeros(targets.shape[1], np.float32),
            )
        mean, block = targets.mean(axis=0), linear.BLOCK
        squares = self.penalty * np.eye(f + 1)
        products = np.zeros((f + 1, len(mean)))
        for i in range(0, len(targets), block):
            rows = np.asarray(features[i : i + block], np.float64)
            rows = np.pad(rows, [(0, 0), (0, 1)], constant_values=1)
            squares += rows.T @ rows
            products += rows.T @ (targets[i : i + block] - mean)
        solved = np.linalg.solve(squares, products)
        return Affine(
            solved[:-1].astype(np.float32), (solved[-1] + mean).astype(np.float32)
        )
