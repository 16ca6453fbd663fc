"""Distances between one-dimensional distributions: the comparison of [C] on principal components and on signals.

*Components.* Principal components are fitted on the training points; samples and reference are projected on the
first two, and compared component by component: Wasserstein-1 distance in data units (scipy), and Jensen-Shannon
distance of histograms (scipy). *Values.* The Jensen-Shannon distance between the histograms of all values of all
points, which [C] gives for signals; it sees neither order nor correlation.

Histograms have 30 bins of equal width from the smallest to the largest reference value, the outer two open towards
what lies beyond, so that every set of samples is held against the same bins. (Bins of their own for what lies
beyond would make much of samples at -1.001 where all pixels of the data end at -1.) The Jensen-Shannon
distance is the square root of the divergence in bits, in [0, 1]. [C] publishes neither the points its components are
fitted on nor its bins. Both distances are biased upward at small n: the floor says by how much.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from geomem.errors import InputError
from geomem.geometry.neighbours import Array, as_rows
from geomem.rng import generator

BINS = 30
COMPONENTS = 2
RESAMPLES = 200


def bin_edges(reference: Array, bins: int = BINS) -> np.ndarray:
    """Edges (bins + 1,) from the smallest to the largest of the reference values, of any shape."""
    values = as_rows(reference, "reference")
    if bins < 1:
        raise InputError(f"{bins} bins; give 1 or more")
    low, high = float(values.min()), float(values.max())
    return np.linspace(low, high, bins + 1) if low < high else np.array([low, low])


def wasserstein_1(samples: np.ndarray, reference: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """Wasserstein-1 distance of two sets of numbers (n,) and (m,), in their units, and its standard error.

    The standard error is the spread over 200 bootstrap resamples of the samples, the reference held fixed.
    """
    value = wasserstein_distance(samples, reference)
    picks = generator(seed, "quality bootstrap").integers(0, len(samples), size=(RESAMPLES, len(samples)))
    return float(value), float(np.std([wasserstein_distance(samples[pick], reference) for pick in picks], ddof=1))


def jensen_shannon(samples: np.ndarray, reference: np.ndarray, edges: np.ndarray, *,
                   seed: int = 0) -> tuple[float, float]:
    """Jensen-Shannon distance of histograms over ``edges``, in [0, 1], and its standard error.

    samples: (n,) or (n, d), reference: (m,) or (m, d); all d values of a point are counted in one histogram. The
    error is the spread over 200 bootstrap resamples of the points of ``samples``, since values of one point belong
    together; the reference is held fixed.
    """
    counts, fixed = _counts(samples, edges), _counts(reference, edges).sum(axis=0)
    uses = generator(seed, "quality bootstrap").multinomial(len(counts), np.full(len(counts), 1 / len(counts)),
                                                            size=RESAMPLES)
    value, *resampled = jensenshannon(np.stack([counts.sum(axis=0), *(uses @ counts)]), fixed[None], base=2, axis=1)
    return float(value), float(np.std(resampled, ddof=1))


def _counts(points: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Histogram of each point, (n, bins)."""
    counts = np.zeros((len(points), len(edges) - 1))
    for histogram, values in zip(counts, np.asarray(points).reshape(len(points), -1), strict=True):
        histogram += np.bincount(np.searchsorted(edges[1:-1], values, side="right"), minlength=len(histogram))
    return counts
