"""A trained denoiser per noise level, beside two that are known exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from geomem.data import DataSet
from geomem.devices import resolve_device
from geomem.geometry.options import as_sigmas
from geomem.memorization import PerNoiseLevel, memorization_per_noise_level
from geomem.memorization.ratio import distinct_training
from geomem.memorization.views import AS_THEY_ARE, Views
from geomem.models import EmpiricalDenoiser, GaussianDenoiser
from geomem.training.pretrained import Pretrained


def levels_beside_references(model: Pretrained, data: DataSet, sigmas: int | Sequence[float] = 20, *, n: int = 512,
                             tolerance: float | None = None, views: Views = AS_THEY_ARE, seed: int = 0,
                             device: str = "auto",
                             progress: Callable[[int, int], None] | None = None) -> dict[str, PerNoiseLevel]:
    """Memorization and errors per noise level of ``model``, ``empirical_optimal`` (which memorizes perfectly) and
    ``gaussian_linear`` (which knows only mean and covariance), on the test points.

    sigmas: the levels, or a number of them from 0.01 to 80. views: how points are compared by the ratio rule; others as
    in ``memorization_per_noise_level``.
    progress: called as ``progress(done, total)``, in denoisers. Raises InputError where the classes do not fit.
    """
    levels = np.geomspace(0.01, 80, sigmas) if isinstance(sigmas, int) else as_sigmas(sigmas)
    train = torch.from_numpy(np.array(data.train))
    labels = model.classes_of(data)
    training = distinct_training(data.train, tolerance, views, device=device)
    results = {}
    for name, denoiser in (("model", model.denoiser), ("empirical_optimal", EmpiricalDenoiser(train)),
                           ("gaussian_linear", GaussianDenoiser(train))):
        results[name] = memorization_per_noise_level(
            denoiser.to(resolve_device(device)), data.train, data.test, levels, n=n, seed=seed,
            labels=labels if name == "model" else None, training=training, device=device)
        if progress is not None:
            progress(len(results), 3)
    return results
