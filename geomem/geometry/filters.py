"""Maps that lengthen no difference, by which most points are excluded as nearest neighbours.

With ``|F(q) - F(x)| <= |q - x|``, a point whose image is far from that of the query is far itself. A filter maps
queries and points, multiplies the images to compare them, and bounds the rounding of all that:

* projected: ``F(x) = (B y, rho)`` with ``y = x - c``, K orthonormal rows ``B`` and ``rho = |y - B^T B y|``, what
  they leave: ``|q - x|^2 >= |B(q - x)|^2 + (rho_q - rho_x)^2``, by the triangle inequality in the complement
  of ``B``. Images keep nearly all their variance in far fewer than d directions, so the products are far smaller.
* whole: ``F(x) = x - c``, where the bound is the distance.

Any centre c and any directions are right; they decide how much is excluded. They are those of a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from geomem.points import Points, runs, sampled
from geomem.rng import generator

CACHED_VALUES = 2**18  # values that fit in a processor's cache, for work that goes over them many times
_DIRECTIONS = 255  # of the projected filter, at most: beyond, products cost more than they exclude
_VALUES_PER_DIRECTION = 8  # of a point, and points of the sample, at least
_KEPT_VARIANCE = 0.9  # share of the variance below which the directions leave too much to exclude points

Precision: TypeAlias = type[np.float32] | type[np.float64]


class Products(Protocol):
    """Squared distances between queries and the points of one block, by the expansion in floating point."""

    precision: Precision

    def hold(self, points: np.ndarray) -> None:
        """Make these points (b, D), of ``precision``, the current block."""

    def smallest(self, queries: np.ndarray, size: int) -> tuple[Tensor, Tensor]:
        """Rough squared distances and places in the block of the ``size`` points nearest to each query (Q, D), of
        ``precision``; (Q, size) each. A place is negative where nothing was found."""


def filters_worth(queries: int, points: Points, k: int, on_cpu: bool,
                  products: Callable[[int], Products]) -> list[Whole]:
    """The filters to ask for the k nearest points of so many queries, the fastest first; none where a shortlist
    would be all points. products: makes them for images of so many coordinates.
    """
    n, d = len(points), points.dim
    if n <= k + Whole.extra:
        return []
    sample = sampled(points)
    centre = sample.mean(axis=0)
    filters = [Whole(centre, products(d))]
    directions = min(_DIRECTIONS, d // _VALUES_PER_DIRECTION, len(sample) // _VALUES_PER_DIRECTION)
    if (on_cpu and directions > 0 and n > k + Projected.extra
            and _projection_pays(queries, n, d, directions, len(sample))):
        basis = _principal_directions(sample - centre, directions)
        if basis is not None:
            filters.insert(0, Projected(centre, basis, products(directions + 1)))
    return filters


def _projection_pays(queries: int, n: int, d: int, directions: int, sampled: int) -> bool:
    """Whether finding the directions, projecting all and comparing them costs below half of comparing them whole.

    In products of two numbers in float32; those in float64 count twice, and the directions take four passes over
    the sample.
    """
    projecting = 2 * d * directions * (queries + n + 4 * sampled)
    return projecting + queries * n * directions < queries * n * d / 2


def _principal_directions(centred: np.ndarray, count: int) -> np.ndarray | None:
    """About the first principal components of centred points (m, d), orthonormal, (count, d); None if those
    keep too little of the variance. By one power iteration from random ones (Halko, Martinsson and Tropp 2011).
    """
    scale = np.abs(centred).max()
    if not 0 < scale < np.inf:
        return None
    rows = (centred / scale).astype(np.float32)  # any directions will do, if only they are orthonormal
    rough = np.linalg.qr(rows.T @ generator(0, "directions").standard_normal((len(rows), count), dtype=np.float32))[0]
    basis = np.linalg.qr((rows.T @ (rows @ rough)).astype(np.float64))[0]
    kept = ((rows @ basis.astype(np.float32)) ** 2).sum() / (rows**2).sum()
    return basis.T if kept >= _KEPT_VARIANCE else None


class Whole:
    """``F(x) = x - c``, compared by products.

    Squared distances by the expansion are three sums of D products, each with error at most
    ``gamma_n = n u / (1 - n u)`` times its sum of magnitudes, u the unit roundoff (Higham 2002, section 3.1):
    together ``gamma_n S^2``, ``S = |F(q)| + |F(x)|``. Rounding the coordinates and adding the three terms fits in
    n = D + 8; n is doubled for the rounding of the direct distances, which is never larger.
    """

    extra = 8
    """How much longer than k the shortlist is."""
    slack = 0.0
    """Bound on ``|F(q) - F(x)|^2 - |q - x|^2``, over ``S^2``, from errors in F other than rounding its result."""

    def __init__(self, centre: np.ndarray, products: Products) -> None:
        self.centre, self.products = centre, products
        self.dimension = len(centre)
        self.radius = 0.0  # the largest |F(x)| among the points held so far

    def coordinates(self, rows: np.ndarray) -> np.ndarray:
        """F of rows (b, d) in float64, (b, D)."""
        return rows - self.centre

    def prepare(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """F of rows (b, d), rounded, (b, D), and its norm, (b,)."""
        rounded, norms = np.empty((len(rows), self.dimension), dtype=self.products.precision), np.empty(len(rows))
        with np.errstate(over="ignore"):  # what overflows proves nothing
            for part in runs(0, len(rows), max(1, CACHED_VALUES // rows.shape[1])):
                mapped = self.coordinates(rows[part])
                rounded[part], norms[part] = mapped, np.linalg.norm(mapped, axis=1)
        return rounded, norms

    def hold(self, points: np.ndarray) -> None:
        rounded, norms = self.prepare(points)
        self.radius = float(np.maximum(self.radius, norms.max()))  # NaN, after an overflow, proves nothing
        self.products.hold(rounded)

    def lower(self, norms: np.ndarray, rough: np.ndarray) -> np.ndarray:
        """Lower bounds on the true squared distances, for queries with those norms, once all points were held."""
        sums = norms + self.radius
        error = _squared_error(sums, self.dimension, self.products.precision) + self.slack * sums**2
        return np.where(np.isfinite(rough), rough, -np.inf) - error[:, None]


class Projected(Whole):
    """``F(x) = (B y, rho)``, ``y = x - c``: K orthonormal directions and the norm of what they leave.

    Let ``e = |B B^T - I|``. Then ``|B v|^2 + |v - B^T B v|^2 <= (1 + e) |v|^2`` for ``v = q - x``, and
    ``rho^2`` is ``|y|^2 - |B y|^2`` but for ``e |B y|^2``. All is computed in float64: with u its unit roundoff, the
    entries of ``B B^T`` are wrong by ``gamma_d`` and the squares by ``(2 sqrt(K) + 3) gamma_{d+8} |y|^2``. For E
    the sum of e and all these, rho is wrong by ``sqrt(E) |y|`` and B y by ``E |y|`` at most, and so the computed
    ``|F(q) - F(x)|^2`` exceeds ``|q - x|^2`` by less than ``4 sqrt(E) S^2``, for E < 0.1.
    """

    extra = 254

    def __init__(self, centre: np.ndarray, basis: np.ndarray, products: Products) -> None:
        super().__init__(centre, products)
        self.basis = basis
        count, d = basis.shape
        self.dimension = count + 1
        defect = float(np.linalg.norm(basis @ basis.T - np.eye(count)))
        wrong = defect + (2 * count + 8) * (d + 8) * float(np.finfo(np.float64).eps)  # eps = 2 u
        self.slack = 4 * wrong**0.5 if wrong < 0.1 else np.inf

    def coordinates(self, rows: np.ndarray) -> np.ndarray:
        centred = rows - self.centre
        along = centred @ self.basis.T
        left = np.einsum("nd,nd->n", centred, centred) - np.einsum("nd,nd->n", along, along)
        return np.column_stack([along, np.sqrt(np.maximum(left, 0))])


def _squared_error(norms: np.ndarray, dimension: int, precision: Precision) -> np.ndarray:
    """Bound on the error of squared distances by the expansion; see ``Whole``.

    norms: (Q,), at least ``|F(q)| + |F(x)|`` for every point. The last term is for products that underflow.
    """
    terms = (dimension + 8) * float(np.finfo(precision).eps)  # eps = 2 u
    with np.errstate(over="ignore"):
        useless = (terms >= 0.5) | (norms**2 > float(np.finfo(precision).max) / 4)  # or sums may overflow
    return np.where(useless, np.inf, terms / (1 - terms) * norms**2 + 4 * dimension * float(np.finfo(precision).tiny))


class TorchProducts:
    """Matrix products in float64."""

    precision: Precision = np.float64

    def __init__(self, dimension: int, device: torch.device) -> None:
        self.device = device

    def hold(self, points: np.ndarray) -> None:
        self.points = torch.from_numpy(points).to(self.device)

    def smallest(self, queries: np.ndarray, size: int) -> tuple[Tensor, Tensor]:
        query = torch.from_numpy(queries).to(self.device)
        squared = query.square().sum(1, keepdim=True) + self.points.square().sum(1) - 2 * query @ self.points.T
        best, place = squared.topk(size, largest=False)
        return best.cpu(), place.cpu()
