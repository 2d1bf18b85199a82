"""What makes up for rare classes: repeat-factor sampling, and balanced weights.

Images of rare classes are shown more often (Gupta et al. 2019, LVIS, appendix B), or
count more in the loss.
"""

from collections.abc import Sequence

import numpy as np

from detjax.data.listings import Classes


def factors(classes: Classes, threshold: float) -> np.ndarray:
    """How often each of n images is to be shown an epoch, [n] float32 of at least 1.

    With f(c) the share of images that have class c, r(c) = max(1, sqrt(threshold /
    f(c))), and an image is shown as often as the rarest of its classes asks for; one
    without any once.
    """
    labels, ends = classes
    found = np.ones(len(ends), np.float32)
    if not len(labels):
        return found
    shares = np.bincount(labels) / len(ends)
    wanted = np.sqrt(threshold / np.where(shares > 0, shares, 1))
    by_class = np.maximum(wanted, 1).astype(np.float32)
    begins = np.append(0, ends[:-1])
    some = ends > begins
    found[some] = np.maximum.reduceat(by_class[labels], begins[some])
    return found


def epoch(rng: np.random.Generator, repeats: np.ndarray) -> np.ndarray:
    """The images of an epoch in random order, int32, of their factors [n].

    A factor is rounded up with the probability of its fraction, else down, anew each
    epoch.
    """
    whole = np.floor(repeats)
    counts = whole + (rng.random(len(repeats)) < repeats - whole)
    each = np.repeat(np.arange(len(repeats), dtype=np.int32), counts.astype(np.int64))
    return rng.permutation(each)


def median_frequency(pixels: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """Weights of classes by which the pixels of rare ones count more.

    `pixels` [2 c]: those of each class, and all of the images that have it. With the
    quotient f(c) of the two, that is the median of f over f(c); 1 for classes without
    any. Eigen and Fergus 2015, section 6.3.2; SegNet (Badrinarayanan et al. 2017) is
    trained with it.
    """
    own, whole = np.asarray(pixels, np.float64)
    some = own > 0
    shares = own / np.maximum(whole, 1)
    middle = np.median(shares[some]) if some.any() else 1.0
    weights = np.where(some, middle / np.where(some, shares, 1), 1.0)
    return tuple(weights.tolist())


def balanced(classes: Classes, count: int) -> tuple[float, ...]:
    """`equal` weights of `count` classes by the images that have them."""
    return equal(np.bincount(classes[0], minlength=count))


def equal(counts: Sequence[int] | np.ndarray) -> tuple[float, ...]:
    """Weights [c] of classes by which all count the same, 1 in the mean of examples.

    `counts` [c] are the examples of each class, n together: the weight of class c is
    n / (classes that occur * n(c)), and 1 for classes without any.
    """
    found = np.asarray(counts)
    weights = found.sum() / (max((found > 0).sum(), 1) * np.maximum(found, 1))
    return tuple(np.where(found > 0, weights, 1.0).tolist())
