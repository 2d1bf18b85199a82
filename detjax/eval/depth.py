"""Metrics of maps of numbers, such as depth, from sums over pixels.

Eigen et al., NeurIPS 2014, section 4: y is found, t is true.

    AbsRel    mean |y - t| / t
    SqRel     mean (y - t)^2 / t
    RMSE      sqrt(mean (y - t)^2)
    log RMSE  sqrt(mean (ln y - ln t)^2)
    log10     mean |log10 y - log10 t|
    delta k   the share of pixels with max(y / t, t / y) < 1.25^k
    SILog     sqrt(mean d^2 - (mean d)^2), d = ln y - ln t: the scale-invariant error
    MAE       mean |y - t|

Relative errors are of pixels whose truth is above 0, logarithms and ratios of those
where both numbers are; pixels with a true number above 0 of which none above 0 is found
count as outside of delta.
"""

import numpy as np

# What is summed over pixels, in this order.
SUMS = (
    *("pixels", "absolute", "squares"),
    *("positive", "relative", "square_relative", "delta1", "delta2", "delta3"),
    *("logs", "log", "log_squares", "log10"),
)
DELTA = 1.25
PIECE = 1 << 18  # pixels at a time


def sums(truth: np.ndarray, found: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The sums [len(SUMS)] float64 of the pixels that are `valid`, of maps [h w].

    Those of several maps add up. Pixels where nothing finite is found are errors of
    their whole number: they count as if 0 was found.
    """
    total = np.zeros(len(SUMS))
    truth, found, valid = (np.ravel(x) for x in (truth, found, valid))
    for start in range(0, len(truth), PIECE):
        part = slice(start, start + PIECE)
        some = valid[part]
        total += _sums(
            np.asarray(truth[part][some], np.float64),
            np.nan_to_num(
                np.asarray(found[part][some], np.float64), posinf=0.0, neginf=0.0
            ),
        )
    return total


def _sums(t: np.ndarray, y: np.ndarray) -> np.ndarray:
    error = np.abs(y - t)
    real = t > 0
    both = real & (y > 0)
    relative = error[real] / t[real]
    ratio = y[both] / t[both]
    log = np.log(ratio)
    within = [(np.abs(log) < k * np.log(DELTA)).sum() for k in (1, 2, 3)]
    return np.array(
        [
            *(len(t), error.sum(), np.square(error).sum()),
            *(real.sum(), relative.sum(), (relative * error[real]).sum(), *within),
            *(both.sum(), log.sum(), np.square(log).sum()),
            np.abs(log).sum() / np.log(10),
        ]
    )


def metrics(total: np.ndarray) -> dict[str, float]:
    """The metrics of `sums`; NaN of no pixel."""
    of = dict(zip(SUMS, np.asarray(total, np.float64).tolist(), strict=True))

    def mean(name: str, count: str) -> float:
        return of[name] / of[count] if of[count] else float("nan")

    log, squares = mean("log", "logs"), mean("log_squares", "logs")
    return {
        "abs_rel": mean("relative", "positive"),
        "sq_rel": mean("square_relative", "positive"),
        "rmse": float(np.sqrt(mean("squares", "pixels"))),
        "log_rmse": float(np.sqrt(squares)),
        "log10": mean("log10", "logs"),
        "delta1": mean("delta1", "positive"),
        "delta2": mean("delta2", "positive"),
        "delta3": mean("delta3", "positive"),
        "mae": mean("absolute", "pixels"),
        # Rounding may leave less than nothing of equal logarithms.
        "silog": float(np.sqrt(max(squares - log * log, 0.0)) if of["logs"] else log),
    }
