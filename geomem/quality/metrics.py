"""Every measure of quality under one roof, each with its n, features, reference and floor.

A figure alone says little: it depends on the data, their scale and the number of points. So each comes beside
the *floor*, the same figure for as many held-out points as there are samples (or half of them, if there are fewer
than twice as many) against the other held-out points: what perfect samples would reach. The sizes of the two
differ from those of the figure itself, and most figures are biased at small sizes, so each also comes at the sizes
of its floor. The reference is held-out, never the training points, against which copies would look best.

    frechet            Frechet distance of fitted Gaussians               pixels or principal components
    mmd                squared MMD with the kernel of KID                 pixels or principal components
    pr                 improved precision and recall                      pixels or principal components
    components         Wasserstein-1 and Jensen-Shannon distance (Vu et al. 2026)    first two principal components
    values             Jensen-Shannon distance of all values (Vu et al. 2026)        pixels
    mean-distance      mean distance to all training points (Vu et al. 2026)         pixels
    fid                Frechet distance                                   Inception
    kid                squared MMD with the kernel of KID                 Inception
    inception-pr       improved precision and recall                      Inception

Principal components are those of the training points.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from geomem.errors import InputError, counted
from geomem.features import PIXELS, InceptionFeatures, feature_space
from geomem.features.inception import require_images
from geomem.geometry import principal_components
from geomem.points import Array, as_rows
from geomem.quality.distributions import COMPONENTS, bin_edges, jensen_shannon, mean_training_distance, wasserstein_1
from geomem.quality.frechet import frechet_with_stderr
from geomem.quality.kernel import kernel_distance
from geomem.quality.manifold import precision_recall
from geomem.quality.report import samples_at_floor_size, split_heldout
from geomem.statistics import normal_interval, standard_error

_STANDARD_INCEPTION, _OTHER_INCEPTION = "Inception", "Inception with other weights"
LIMITS = {"memorized": (0.0, 1.0), "leaning": (0.0, 1.0), "precision": (0.0, 1.0), "recall": (0.0, 1.0),
          "Jensen-Shannon": (0.0, 1.0), "kernel distance": (-math.inf, math.inf),
          "KID": (-math.inf, math.inf)}  # others are 0 or more


@dataclass(frozen=True)
class Measurement:
    """One figure for one set of samples.

    name, features: what was measured and on what (``pixels``, ``pca:20``, ``component 1``, ``Inception``).
    value, low, high, stderr: with its 95% interval, cut to what is possible, and its standard error over the sampling
        of the samples, the reference held fixed; of recall over the sampling of the reference. Biases of small n are
        not removed.
    n, reference, reference_n: samples, and what they were held against: ``held-out`` or ``training`` points.
    floor, floor_n: the same figure for ``floor_n[0]`` held-out points against ``floor_n[1]`` reference points.
    at_floor_size: the same figure for as many of the samples, random ones, against the same reference points; this is
        what to compare with the floor.
    better: ``lower`` or ``higher``; ``near the floor`` for the distance to the training points.
    """

    name: str
    features: str
    value: float
    low: float
    high: float
    stderr: float
    n: int
    reference: str
    reference_n: int
    floor: float
    floor_n: tuple[int, int]
    at_floor_size: float
    better: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fields."""
        return asdict(self)


class Judge:
    """Measures samples against one data set; what belongs to the data alone is computed once.

    train: (N, ...), heldout: (M, ...), M >= 8, numpy or torch, in the scale and shape of the samples to come.
    metrics: names from the table of the module docstring.
    features: ``pixels``, ``pca:K`` for the first K principal components of the training points, or a network or another
        callable from pictures (n, C, H, W) to (n, F), of the metrics that take either.
    inception: the network, for the metrics on Inception features.
    seed: of the held-out halves and the resampling.

    Raises InputError for an unknown metric or kind of features, a network that is missing, or points that do not fit.
    """

    def __init__(self, train: Array, heldout: Array, metrics: Sequence[str], *,
                 features: str | Callable[..., Any] = PIXELS,
                 inception: InceptionFeatures | None = None, seed: int = 0,
                 device: str | torch.device = "auto") -> None:
        unknown = set(metrics) - set(METRICS)
        if unknown:
            raise InputError(f"unknown metric {sorted(unknown)[0]!r}; choose among {', '.join(METRICS)}")
        match = re.fullmatch(r"pca:([0-9]{1,6})", features) if isinstance(features, str) else None
        if isinstance(features, str) and features != PIXELS and match is None:
            raise InputError(f"features {features!r}: give pixels, or pca:K for the first K principal components")
        if inception is None and set(metrics) & set(INCEPTION_METRICS):
            raise InputError(f"{', '.join(name for name in metrics if name in INCEPTION_METRICS)}: give the Inception "
                             "network that they are measured with")
        if len(heldout) < 8:
            raise InputError(f"{counted(len(heldout), 'held-out point')}; halves with neighbours of their own need "
                             "at least 8")
        self.metrics, self.seed, self.device = tuple(dict.fromkeys(metrics)), seed, device
        self.train, self._heldout = train, heldout
        self._inception = _STANDARD_INCEPTION if inception is None or inception.standard else _OTHER_INCEPTION
        self._maps: dict[str, Callable[[Array], np.ndarray]] = {PIXELS: as_rows}
        space = None if isinstance(features, str) else feature_space(features)
        self._chosen = str(features) if space is None else space.name
        if space is not None:
            self._maps[self._chosen] = space
        if match is not None and set(metrics) & {"frechet", "mmd", "pr"}:
            self._maps[self._chosen] = principal_components(train, int(match[1]))
        if "components" in metrics:
            most = min(train.shape[0] - 1, int(np.prod(train.shape[1:])))
            self._maps["components"] = principal_components(train, min(COMPONENTS, most))
        if inception is not None:
            require_images(heldout, "held-out points")
            self._maps[self._inception] = inception
        self._reference: dict[str, np.ndarray] = {}
        self._floors: dict[tuple[str, int], list[Figure]] = {}  # by metric and number of points

    def measure(self, samples: Array) -> list[Measurement]:
        """All metrics of samples (n, ...), n >= 4. Raises InputError if they are of another shape or not finite."""
        if tuple(samples.shape[1:]) != tuple(self._heldout.shape[1:]):
            raise InputError(f"samples have shape {tuple(samples.shape[1:])} each, held-out points "
                             f"{tuple(self._heldout.shape[1:])}; bring both to one")
        if len(samples) < 4:
            raise InputError(f"{counted(len(samples), 'sample')}; a third neighbour and an error need at least 4")
        measurements = []
        for metric in self.metrics:
            space = self._space(metric)
            heldout, points = self.reference(space), self._maps[space](samples)
            part, rest = split_heldout(len(heldout), len(samples), self.seed)
            if (metric, len(part)) not in self._floors:
                self._floors[metric, len(part)] = self._figures(metric, heldout[part], heldout[rest])
            kind, total, others = (("training", self.train.shape[0], self.train.shape[0]) if metric == "mean-distance"
                                   else ("held-out", len(heldout), len(rest)))
            subset = samples_at_floor_size(len(points), len(part), self.seed)
            rows = zip(self._figures(metric, points, heldout), self._figures(metric, points[subset], heldout[rest]),
                       self._floors[metric, len(part)], strict=True)
            measurements += [Measurement(**figure, n=len(points), reference=kind, reference_n=total,
                                         floor=floor["value"], floor_n=(len(part), others),
                                         at_floor_size=smaller["value"]) for figure, smaller, floor in rows]
        return measurements

    def reference(self, space: str) -> np.ndarray:
        """Features of the held-out points, (M, d)."""
        if space not in self._reference:
            self._reference[space] = self._maps[space](self._heldout)
        return self._reference[space]

    def _space(self, metric: str) -> str:
        """Name of the features that a metric is measured on."""
        space = _REGISTRY[metric][0]
        return self._inception if space == "Inception" else space or self._chosen

    def _figures(self, metric: str, points: np.ndarray, reference: np.ndarray) -> list[Figure]:
        """What a metric gives for features (n, d) against reference features (m, d)."""
        return _REGISTRY[metric][1](self, self._space(metric), points, reference)


Figure = dict[str, Any]  # the fields of a Measurement that are of its value: name, features, value, ..., better


def _figure(name: str, features: str, value: float, stderr: float, better: str = "lower") -> Figure:
    low, high = normal_interval(value, stderr, *LIMITS.get(name, (0.0, math.inf)))
    return {"name": name, "features": features, "value": value, "low": low, "high": high, "stderr": stderr,
            "better": better}


def _frechet(judge: Judge, space: str, points: np.ndarray, reference: np.ndarray) -> list[Figure]:
    return [_figure("FID" if space == _STANDARD_INCEPTION else "Frechet distance", space,
                    *frechet_with_stderr(points, reference))]


def _kernel(judge: Judge, space: str, points: np.ndarray, reference: np.ndarray) -> list[Figure]:
    return [_figure("KID" if space == _STANDARD_INCEPTION else "kernel distance", space,
                    *kernel_distance(points, reference))]


def _precision_recall(judge: Judge, space: str, points: np.ndarray, reference: np.ndarray) -> list[Figure]:
    both = vars(precision_recall(points, reference, device=judge.device))
    return [{"name": name, "features": space, "value": both[name], "low": both[f"{name}_low"],
             "high": both[f"{name}_high"], "stderr": both[f"{name}_stderr"], "better": "higher"}
            for name in ("precision", "recall")]


def _components(judge: Judge, space: str, points: np.ndarray, reference: np.ndarray) -> list[Figure]:
    """Both distances of Vu et al. (2026) along each principal component, from the scores (n, K) and (m, K)."""
    figures = []
    for k, (a, b, all_heldout) in enumerate(zip(points.T, reference.T, judge.reference(space).T, strict=True), start=1):
        figures += [_figure("Wasserstein-1", f"component {k}", *wasserstein_1(a, b, seed=judge.seed)),
                    _figure("Jensen-Shannon", f"component {k}",
                            *jensen_shannon(a, b, bin_edges(all_heldout), seed=judge.seed))]
    return figures


def _values(judge: Judge, space: str, points: np.ndarray, reference: np.ndarray) -> list[Figure]:
    edges = bin_edges(judge.reference(space))
    return [_figure("Jensen-Shannon", space, *jensen_shannon(points, reference, edges, seed=judge.seed))]


def _mean_distance(judge: Judge, space: str, points: np.ndarray, reference: np.ndarray) -> list[Figure]:
    distance = mean_training_distance(points, judge.train)
    return [_figure("mean distance", space, float(distance.mean()), standard_error(distance), "near the floor")]


# The features that a metric is measured on, "" for those the caller chose, and how.
_REGISTRY: dict[str, tuple[str, Callable[[Judge, str, np.ndarray, np.ndarray], list[Figure]]]] = {
    "frechet": ("", _frechet), "mmd": ("", _kernel), "pr": ("", _precision_recall),
    "components": ("components", _components), "values": ("pixels", _values),
    "mean-distance": ("pixels", _mean_distance),
    "fid": ("Inception", _frechet), "kid": ("Inception", _kernel), "inception-pr": ("Inception", _precision_recall)}
METRICS = tuple(_REGISTRY)
INCEPTION_METRICS = tuple(name for name, (space, _) in _REGISTRY.items() if space == "Inception")
