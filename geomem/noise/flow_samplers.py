"""Laws of flow matching: distributions of the flow time s that are ones of sigma = s / (1 - s).

s is the noise fraction of ``x_s = (1 - s) x + s Z`` (``flow_schedule``), and r = s / (1 - s) its odds. Each law is that
of the odds before the time shift a, and sigma = a r:

    logit-normal   log r ~ N(mean, std^2)                                     Esser et al. 2024, Eq. 19
    uniform        CDF r / (1 + r)
    mode           s = w + m (w - sin^2(pi w / 2)), w uniform                 Eq. 20, with w = 1 - u
    cosmap         CDF (2 / pi) atan(r)                                       Eq. 21
    U-shaped       density of s proportional to cosh(k (s - 1/2))             Lee et al. 2024

All but the logit-normal law are symmetric, s and 1 - s equally likely. diffusers' scripts draw u, the place in a table
that falls from noise to data: their ``logit_mean`` is -mean here.

Esser et al. 2024 is arXiv 2403.03206, Lee et al. 2024 2405.20320. Rao and Moyer (2026, 2603.13421) propose a U-shaped
law against memorization; their own formula was not available to us.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from geomem.errors import InputError
from geomem.noise.gaps import number
from geomem.noise.samplers import LogNormalSampler, NoiseLevelSampler

MODE_SCALES = -1.0, 2 / (np.pi - 2)
"""Ends of the scales for which the mode law has a density (Esser et al. 2024, section 3.1)."""


class FlowSampler(NoiseLevelSampler):
    """A law of flow times after the shift a > 0, ``sigma = a r``; the module docstring has the laws of the odds r."""

    kind: str
    parameters: tuple[str, ...] = ()
    """Names of the law's own numbers, beside the shift."""

    def __init__(self, shift: float = 1.0) -> None:
        self.shift = number(shift, "the shift of flow times")
        if not 0 < self.shift < 1e6:
            raise InputError(f"the shift of flow times must be positive, not {shift}")

    @abstractmethod
    def _odds(self, u: np.ndarray) -> np.ndarray:
        """Inverse CDF of r."""

    @abstractmethod
    def _cdf(self, r: np.ndarray) -> np.ndarray:
        """CDF of r >= 0, infinity included."""

    @abstractmethod
    def _log_density(self, r: np.ndarray) -> np.ndarray:
        """Log density of r > 0."""

    def icdf(self, u: np.ndarray) -> np.ndarray:
        return self.shift * self._odds(np.asarray(u, dtype=np.float64))

    def cdf(self, sigma: np.ndarray | float, *, inclusive: bool = True) -> np.ndarray:
        return self._cdf(np.maximum(np.asarray(sigma, dtype=np.float64), 0) / self.shift)

    def log_prob(self, sigma: np.ndarray | float) -> np.ndarray:
        sigma = np.asarray(sigma, dtype=np.float64)
        density = self._log_density(np.where(sigma > 0, sigma, 1.0) / self.shift) - np.log(self.shift)
        return np.where(sigma > 0, density, -np.inf)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **{name: getattr(self, name) for name in self.parameters}, "shift": self.shift}


class LogitNormalSampler(FlowSampler):
    """``logit(s) ~ N(mean, std^2)`` before the shift: SD3's law (Esser et al. 2024, Eq. 19). A lognormal law of sigma.

    ``mean`` is that of s: of diffusers' ``--logit_mean`` with the other sign.
    """

    kind, parameters = "logit-normal", ("mean", "std")

    def __init__(self, mean: float = 0.0, std: float = 1.0, shift: float = 1.0) -> None:
        super().__init__(shift)
        law = LogNormalSampler(mean, std)
        self.mean, self.std, self._law = law.mean, law.std, law

    def _odds(self, u: np.ndarray) -> np.ndarray:
        return self._law.icdf(u)

    def _cdf(self, r: np.ndarray) -> np.ndarray:
        return self._law.cdf(r)

    def _log_density(self, r: np.ndarray) -> np.ndarray:
        return self._law.log_prob(r)


class UniformFlowSampler(FlowSampler):
    """Every flow time equally likely before the shift: the logistic law of log sigma, density ``1 / (1 + sigma)^2``."""

    kind = "uniform-flow"

    def _odds(self, u: np.ndarray) -> np.ndarray:
        return u / (1 - u)

    def _cdf(self, r: np.ndarray) -> np.ndarray:
        return 1 - 1 / (1 + r)

    def _log_density(self, r: np.ndarray) -> np.ndarray:
        return -2 * np.log1p(r)


class CosMapSampler(FlowSampler):
    """Flow times with the noise levels of the cosine schedule (Esser et al. 2024, Eq. 21): half-Cauchy odds."""

    kind = "cosmap"

    def _odds(self, u: np.ndarray) -> np.ndarray:
        return np.tan(np.pi / 2 * u)

    def _cdf(self, r: np.ndarray) -> np.ndarray:
        return 2 / np.pi * np.arctan(r)

    def _log_density(self, r: np.ndarray) -> np.ndarray:
        return np.log(2 / np.pi) - np.log1p(r * r)


class SymmetricFlowSampler(FlowSampler):
    """A law under which s and 1 - s are equally likely, given by its lower half: neither end is rounded away."""

    @abstractmethod
    def _quantile(self, u: np.ndarray) -> np.ndarray:
        """s of u in (0, 1/2]."""

    @abstractmethod
    def _cdf_of(self, s: np.ndarray) -> np.ndarray:
        """CDF of s in [0, 1/2]."""

    @abstractmethod
    def _log_density_of(self, s: np.ndarray) -> np.ndarray:
        """Log density of s in (0, 1/2]."""

    def _odds(self, u: np.ndarray) -> np.ndarray:
        s = self._quantile(np.maximum(np.minimum(u, 1 - u), 1e-150))
        return np.where(u > 0.5, (1 - s) / s, s / (1 - s))

    def _cdf(self, r: np.ndarray) -> np.ndarray:
        below = self._cdf_of(_smaller(r))
        return np.where(r > 1, 1 - below, below)

    def _log_density(self, r: np.ndarray) -> np.ndarray:
        return self._log_density_of(_smaller(r)) - 2 * np.log1p(r)


class ModeSampler(SymmetricFlowSampler):
    """SD3's law with heavy tails, or a mode in the middle, by ``scale`` (Esser et al. 2024, Eq. 20; 1.29 in diffusers).

    Raises InputError for a scale outside [-1, 2/(pi - 2)], where s is no monotone function of the draw.
    """

    kind, parameters = "mode", ("scale",)

    def __init__(self, scale: float = 1.29, shift: float = 1.0) -> None:
        super().__init__(shift)
        self.scale = number(scale, "the mode law")
        if not MODE_SCALES[0] <= self.scale <= MODE_SCALES[1]:
            raise InputError(f"the scale of the mode law must lie in [-1, {MODE_SCALES[1]:.3f}], not {scale}")

    def _quantile(self, u: np.ndarray) -> np.ndarray:
        return (1 + self.scale) * u - self.scale * np.sin(np.pi / 2 * u) ** 2

    def _cdf_of(self, s: np.ndarray) -> np.ndarray:
        from scipy.optimize.elementwise import find_root  # slow to import

        ends = np.zeros_like(s), np.full_like(s, 0.5 + 1e-6)  # rounding must not put 1/2 outside
        return find_root(lambda w, s: self._quantile(w) - s, ends, args=(s,), tolerances={"xatol": 0, "fatol": 0}).x

    def _log_density_of(self, s: np.ndarray) -> np.ndarray:
        slope = 1 + self.scale * (1 - np.pi / 2 * np.sin(np.pi * self._cdf_of(s)))
        with np.errstate(divide="ignore"):  # at the largest scale the density has a pole
            return -np.log(np.maximum(slope, 0.0))


class UShapedFlowSampler(SymmetricFlowSampler):
    """Few flow times in the middle: density ``k cosh(k (s - 1/2)) / (2 sinh(k/2))`` before the shift (Lee et al. 2024,
    who take ``sharpness`` k = 4).
    """

    kind, parameters = "u-shaped", ("sharpness",)

    def __init__(self, sharpness: float = 4.0, shift: float = 1.0) -> None:
        super().__init__(shift)
        self.sharpness = number(sharpness, "the U-shaped law")
        if not 0 < self.sharpness <= 100:
            raise InputError(f"the sharpness of the U-shaped law must lie in (0, 100], not {sharpness}")

    def _quantile(self, u: np.ndarray) -> np.ndarray:
        # F = y (y + 2 + E) / (2 E (1 + y)) with y = exp(k s) - 1, E = exp(k) - 1, solved without cancellation.
        growth = np.expm1(self.sharpness)
        b = 2 + growth * (1 - 2 * u)
        return np.log1p(4 * u * growth / (b + np.sqrt(b * b + 8 * u * growth))) / self.sharpness

    def _cdf_of(self, s: np.ndarray) -> np.ndarray:
        k = self.sharpness
        return np.cosh(k * (1 - s) / 2) * np.sinh(k * s / 2) / np.sinh(k / 2)

    def _log_density_of(self, s: np.ndarray) -> np.ndarray:
        k = self.sharpness
        return np.log(k / (2 * np.sinh(k / 2)) * np.cosh(k * (s - 0.5)))


FLOW_SAMPLERS: dict[str, type[FlowSampler]] = {law.kind: law for law in (
    LogitNormalSampler, UniformFlowSampler, ModeSampler, CosMapSampler, UShapedFlowSampler)}
"""The laws of flow times by their names on the command line and in JSON."""


def _smaller(r: np.ndarray) -> np.ndarray:
    """The smaller of s and 1 - s, of the odds r."""
    with np.errstate(divide="ignore"):
        r = np.minimum(r, 1 / r)
    return r / (1 + r)
