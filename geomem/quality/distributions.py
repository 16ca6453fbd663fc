"""The measures of Vu et al. (2026): distances between one-dimensional distributions, and the mean distance to the
training points.

*Components.* Principal components are fitted on the training points; samples and reference are projected on the
first two, and compared component by component: Wasserstein-1 distance in data units (scipy), and Jensen-Shannon
distance of histograms (scipy). *Values.* The Jensen-Shannon distance between the histograms of all values of all
points, which Vu et al. (2026) give for signals; it sees neither order nor correlation.

Histograms have 30 bins of equal width from the smallest to the largest reference value, the outer two open towards
what lies beyond, so that every set of samples is held against the same bins. (Bins of their own for what lies
beyond would make much of samples at -1.001 where all pixels of the data end at -1.) The Jensen-Shannon
distance is the square root of the divergence in bits, in [0, 1]. Vu et al. (2026) publish neither the points its
components are fitted on nor its bins. Both distances are biased upward at small n: the floor says by how much.

*Mean distance* of the samples to all training points, the measure of memorization in Vu et al. (2026).
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import jensenshannon
from scipy.stats import bootstrap, wasserstein_distance
from sklearn.metrics import euclidean_distances

from geomem.errors import InputError, counted
from geomem.points import Array, as_points, as_rows, runs
from geomem.rng import generator

BINS = 30
COMPONENTS = 2
RESAMPLES = 200
BLOCK_ENTRIES = 2**22  # float64 values of points, or distances, held at a time


def bin_edges(reference: Array, bins: int = BINS) -> np.ndarray:
    """Edges (bins + 1,) from the smallest to the largest of the reference values, of any shape; where all are equal
    those of three bins, for what lies below, there and above.
    """
    values = as_rows(reference, "reference")
    if bins < 1:
        raise InputError(f"{bins} bins; give 1 or more")
    low, high = float(values.min()), float(values.max())
    if low == high:
        above = np.nextafter(low, np.inf)
        return np.array([low, low, above, above])
    return np.linspace(low, high, bins + 1)


def wasserstein_1(samples: Array, reference: Array, *, seed: int = 0) -> tuple[float, float]:
    """Wasserstein-1 distance of two sets of numbers (n,), n >= 2, and (m,), in their units, and its standard error.

    The standard error is the spread over 200 bootstrap resamples of the samples, the reference held fixed. Raises
    InputError for fewer samples, more than a number each, or values that are not finite.
    """
    samples, reference = _checked(samples, reference)
    if samples.shape[1] != 1 or reference.shape[1] != 1:
        raise InputError(f"samples of {samples.shape[1]} and reference points of "
                         f"{counted(reference.shape[1], 'value')}; Wasserstein-1 compares numbers, one for each point")
    samples, reference = samples[:, 0], reference[:, 0]
    value = wasserstein_distance(samples, reference)
    resampled = bootstrap((samples,), lambda drawn: wasserstein_distance(drawn, reference), vectorized=False,
                          n_resamples=RESAMPLES, method="percentile", rng=generator(seed, "quality bootstrap"))
    return float(value), float(resampled.standard_error)


def jensen_shannon(samples: Array, reference: Array, edges: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """Jensen-Shannon distance of histograms over ``edges``, in [0, 1], and its standard error.

    samples: (n,) or (n, d), n >= 2, reference: (m,) or (m, d); all d values of a point are counted in one histogram.
    The error is the spread over 200 bootstrap resamples of the points of ``samples``, since values of one point belong
    together; the reference is held fixed. Raises InputError for fewer samples or values that are not finite.
    """
    samples, reference = _checked(samples, reference)
    counts, fixed = _counts(samples, edges), _counts(reference, edges).sum(axis=0)
    uses = generator(seed, "quality bootstrap").multinomial(len(counts), np.full(len(counts), 1 / len(counts)),
                                                            size=RESAMPLES)
    value, *resampled = jensenshannon(np.stack([counts.sum(axis=0), *(uses @ counts)]), fixed[None], base=2, axis=1)
    return float(value), float(np.std(resampled, ddof=1))


def mean_training_distance(samples: Array, train: Array) -> np.ndarray:
    """For each of the samples (n, ...) the mean Euclidean distance to all training points (N, ...), (n,) float64.

    Vu et al. (2026) take the mean of these as the distance of a model from its training set, the smaller the more it
    memorizes. But it is a mean over all of the training set: samples that shrink towards its centre lower it too, and
    copies of the points do not. So hold it against the same figure of held-out points, and against the ratio rule.

    Training points are read in blocks. Raises InputError if the points differ in size or a value is not finite.
    """
    rows, source = as_rows(samples, "samples"), as_points("train", train)
    if rows.shape[1] != source.dim:
        raise InputError(f"samples have {counted(rows.shape[1], 'value')} each and training points {source.dim}; "
                         "they must agree")
    total = np.zeros(len(rows))
    centre = rows.mean(axis=0, dtype=np.float64)
    length = max(1, min(BLOCK_ENTRIES // rows.shape[1], int(BLOCK_ENTRIES**0.5)))
    for part in runs(0, source.shape[0], length):
        known = source.take(part) - centre
        for block in runs(0, len(rows), length):
            total[block] += euclidean_distances(rows[block] - centre, known).sum(axis=1)
    return total / source.shape[0]


def _checked(samples: Array, reference: Array) -> tuple[np.ndarray, np.ndarray]:
    """Both as rows of finite values. A single sample would seem to have no error: all its resamples are equal."""
    rows = as_rows(samples, "samples"), as_rows(reference, "reference")
    if len(rows[0]) < 2:
        raise InputError(f"{counted(len(rows[0]), 'sample')}; a distance with its error needs 2 or more")
    return rows


def _counts(points: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Histogram of each point (n, d), (n, bins)."""
    return np.array([np.bincount(np.searchsorted(edges[1:-1], values, side="right"), minlength=len(edges) - 1)
                     for values in points], dtype=np.float64)
