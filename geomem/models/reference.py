"""Denoisers known in closed form: what perfect memorization and the calmest generalization would do.

With the training set ``D = {x_1..x_N}``, mean ``mu`` and covariance ``Sigma``:

    empirical optimal   m(x, sigma) = sum_i softmax_i(-|x - x_i|^2 / (2 sigma^2)) x_i   Eq. 2, 3
    Gaussian linear     m_lin(x, sigma) = mu + Sigma (Sigma + sigma^2 I)^-1 (x - mu)    Eq. 7 of Dodson et al. 2026
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from geomem.geometry.posterior import posterior_weights
from geomem.models.denoiser import ClosedForm, expand_sigma


class EmpiricalDenoiser(ClosedForm):
    """Empirical optimal denoiser of a training set (Dodson et al. 2026, Eq. 2, 3): the minimizer of the training loss.

    ``train`` has shape (N, ...). Distances are formed in float64 on centred points, so the weights hold down to
    sigma far below the spacing of the points.
    """

    points: Tensor

    def __init__(self, train: Tensor) -> None:
        super().__init__()
        points = torch.as_tensor(train).double().flatten(1)
        mean = points.mean(0)
        self.register_buffer("mean", mean)
        self.register_buffer("points", points - mean)

    def forward(self, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None, **conditioning: Any) -> Tensor:
        """Clean estimate; the denoiser contract of ``geomem.models.denoiser``."""
        home, x = x.device, x.to(self.mean.device)
        query = x.double().flatten(1) - self.mean
        s = expand_sigma(sigma, x).double().flatten(1)
        squared = self.points.square().sum(1) - 2 * query @ self.points.T  # without |x|^2, which drops out
        return (posterior_weights(squared, None, s) @ self.points + self.mean).reshape(x.shape).float().to(home)


class GaussianDenoiser(ClosedForm):
    """Optimal linear denoiser (Dodson et al. 2026, Eq. 7), through the SVD of the centred data: rank x d, never d x d.

    ``train`` has shape (N, ...); Sigma is the covariance with 1/N, that of the uniform law on the training set.
    """

    variances: Tensor
    directions: Tensor

    def __init__(self, train: Tensor) -> None:
        super().__init__()
        points = torch.as_tensor(train).double().flatten(1)
        mean = points.mean(0)
        _, singular, directions = torch.linalg.svd(points - mean, full_matrices=False)
        kept = singular > singular[0] * 1e-12
        self.register_buffer("mean", mean)
        self.register_buffer("variances", singular[kept] ** 2 / len(points))
        self.register_buffer("directions", directions[kept])

    def forward(self, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None, **conditioning: Any) -> Tensor:
        """Clean estimate; the denoiser contract of ``geomem.models.denoiser``."""
        home, x = x.device, x.to(self.mean.device)
        s = expand_sigma(sigma, x).double().flatten(1)
        scores = (x.double().flatten(1) - self.mean) @ self.directions.T
        shrunk = scores * self.variances / (self.variances + s**2)
        return (shrunk @ self.directions + self.mean).reshape(x.shape).float().to(home)
