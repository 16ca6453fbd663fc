"""Measures of copying that other tools report, by their definitions, so that figures can be compared.

Each compares the distance from a sample to its nearest training point with another distance: AuthPct with that of the
training point to its own nearest neighbour (Alaa et al. 2022), C_T with that of held-out points to their nearest
training points, in cells of the data space (Meehan et al. 2020). The DCR share of SDMetrics is the share of
``geomem.memorization.leaning`` for equally many training and held-out points.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import mannwhitneyu

from geomem.errors import InputError
from geomem.geometry.neighbours import nearest
from geomem.points import Array, as_rows

CELLS = 3
SMALLEST_CELL = 20  # samples; cells with no more are left out
_COMPONENTS = 64  # principal components of the training points at most, where points have more values


def auth_pct(samples: Array, train: Array, *, device: str | torch.device = "auto") -> float:
    """Percentage of ``samples`` (n, ...) that are *authentic*: farther from their nearest point of ``train`` (N, ...),
    N >= 2, than that point is from its own nearest neighbour. 50 or more where nothing is copied; Alaa et al. 2022,
    section 4. Raises InputError for shapes that differ or values that are not finite.
    """
    rows, known = as_rows(samples, "samples"), as_rows(train, "train")
    distance, index = (part[:, 0] for part in nearest(rows, known, 1, device=device))
    chosen, back = np.unique(index, return_inverse=True)
    between = nearest(known[chosen], known, 2, device=device)[0][:, 1]
    return float(100 * (between[back] < distance).mean())


def c_t(samples: Array, train: Array, heldout: Array, *, seed: int = 0, device: str | torch.device = "auto") -> float:
    """Meehan et al. 2020: the z score of a Mann-Whitney test in each of three cells, whether the distances of
    ``samples`` (n, ...) to their nearest point of ``train`` (N, ...) are larger than those of ``heldout`` (M, ...),
    averaged with the shares of held-out points as weights. Far below 0 where samples copy, far above where they
    underfit.

    The cells are those of k-means on the training points, seeded by ``seed``; points of more than 64 values are reduced
    to the first 64 principal components. Raises InputError where a cell holds no training or held-out points, or all
    cells hold too few samples, and as ``auth_pct`` does.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    parts = [as_rows(part, name) for part, name in ((train, "train"), (heldout, "heldout"), (samples, "samples"))]
    if parts[0].shape[1] > _COMPONENTS:
        reduced = PCA(min(_COMPONENTS, len(parts[0])), svd_solver="full").fit(parts[0])
        parts = [reduced.transform(part) for part in parts]
    clusters = KMeans(CELLS, n_init=10, random_state=seed).fit(parts[0])
    known, unseen, generated = ([part[clusters.predict(part) == cell] for cell in range(CELLS)] for part in parts)
    scores, weights = [], []
    for cell in range(CELLS):
        n, m = len(generated[cell]), len(unseen[cell])
        if not len(known[cell]) or not m:
            raise InputError(f"one of {CELLS} cells of the data holds no training or no held-out points for C_T")
        if n > SMALLEST_CELL:
            distances = [nearest(part, known[cell], 1, device=device)[0][:, 0] for part in (generated[cell],
                                                                                        unseen[cell])]
            u = mannwhitneyu(*distances, alternative="less").statistic
            scores.append((u - (n * m - 1) / 2) / np.sqrt(n * m * (n + m + 1) / 12))
            weights.append(m)
    if not scores:
        raise InputError(f"no cell of the data holds more than {SMALLEST_CELL} samples; C_T needs more of them")
    return float(np.average(scores, weights=weights))
