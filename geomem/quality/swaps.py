"""Swap experiments as a table: which denoisers are put into which windows, and how each row copies and how good it is.

The rows are compared in pairs by seed; see ``geomem.memorization.swap`` for what they tell.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from geomem.data import DataSet
from geomem.devices import resolve_device
from geomem.errors import InputError
from geomem.generation import generate
from geomem.memorization import Leaning, MemorizationRate
from geomem.memorization.heldout import distinct_sets
from geomem.memorization.leaning import leaning_against, leaning_of_heldout
from geomem.memorization.ratio import RATIO, apply_ratio_rule, distinct_training
from geomem.memorization.swap import control_windows, steps_to_swap, swapped_samples
from geomem.memorization.views import Views
from geomem.models import PUBLISHED_WINDOWS, EmpiricalDenoiser, GaussianDenoiser, Window
from geomem.noise import read_zone
from geomem.noise.danger_zone import danger_zone
from geomem.noise.gaps import parse_range
from geomem.points import as_rows
from geomem.quality.frechet import frechet_with_stderr
from geomem.quality.report import quality_report
from geomem.statistics import PairedShareDifference, normal_interval, paired_share_difference

SKIP = "skip"
SHOWN = 12  # samples of each row that are kept for a picture
_LOG = logging.getLogger("geomem")


@dataclass(frozen=True)
class SwapRow:
    """The denoiser ``inside`` in the window and ``outside`` elsewhere, or, without a window, one alone.

    steps: the first and the last step of the sampler in the window, counted from 0. control_of: the window that this
    one is compared with.
    """

    outside: str
    inside: str | None = None
    window: Window | None = None
    steps: tuple[int, int] | None = None
    control_of: str | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for rows with the same samples."""
        return self.outside, self.inside, self.steps

    @property
    def caption(self) -> str:
        """What was done, in words."""
        if self.window is None:
            return self.outside
        return f"{self.outside}, {self.window.name} " + ("skipped" if self.inside == SKIP else f"from {self.inside}")

    def to_dict(self, sigmas: np.ndarray) -> dict[str, Any]:
        """For JSON; an end at infinity is None, and ``sigma`` are the largest and smallest level swapped."""
        window = None
        if self.window is not None and self.steps is not None:
            high = self.window.high
            window = {"name": self.window.name, "low": self.window.low, "high": high if math.isfinite(high) else None,
                      "steps": list(self.steps), "sigma": sigmas[list(self.steps)].tolist(),
                      "control_of": self.control_of}
        return {"outside": self.outside, "inside": self.inside, "window": window}


@dataclass(frozen=True, eq=False)
class SwapResult:
    """The samples of a row: memorized share, leaning (None where too few test points are left), Frechet distance to
    held-out points with its standard error, and the first of them; ``difference`` of the memorized share from the
    denoiser outside alone, None for A alone.
    """

    row: SwapRow
    memorization: MemorizationRate
    leaning: Leaning | None
    frechet: float
    frechet_stderr: float
    shown: np.ndarray
    difference: PairedShareDifference | None = None

    def to_dict(self, sigmas: np.ndarray) -> dict[str, Any]:
        """For JSON; the Frechet distance with its normal 95% interval."""
        low, high = normal_interval(self.frechet, self.frechet_stderr, 0.0)
        return {**self.row.to_dict(sigmas), "memorization": self.memorization.to_dict(),
                "leaning": self.leaning and self.leaning.to_dict(),
                "difference": self.difference and self.difference.to_dict(),
                "quality": {"frechet": self.frechet, "frechet_low": low, "frechet_high": high,
                            "frechet_stderr": self.frechet_stderr}}


@dataclass(frozen=True, eq=False)
class SwapTable:
    """What ``swap_experiment`` measured: the rows, and the same of held-out points (``floor_n`` as in
    ``QualityReport``). sigmas: levels of the sampler.
    """

    sigmas: np.ndarray
    results: list[SwapResult]
    heldout: MemorizationRate
    frechet_floor: float
    floor_n: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the rows and the held-out points."""
        rows = [result.to_dict(self.sigmas) for result in self.results]
        return {"rows": rows, "heldout": {"memorization": self.heldout.to_dict(), "frechet": self.frechet_floor,
                                          "floor_n": list(self.floor_n)}}


def named_window(word: str, dataset: DataSet, *, device: str | torch.device = "auto") -> Window:
    """The noise levels that ``word`` names: a window of the paper's table, ``zone`` for the danger zone of the data,
    ``LO:HI`` in sigma, or a danger-zone.json. Raises InputError for anything else.
    """
    if word in PUBLISHED_WINDOWS:
        return PUBLISHED_WINDOWS[word]
    if word == "zone":
        zone = danger_zone(dataset.train, dataset.heldout, device=device).zone
        if zone is None:
            raise InputError(f"--window zone: {dataset.name} has no danger zone; give LO:HI")
        return Window(zone.sigma_low, zone.sigma_high, word)
    if os.path.exists(word):
        return Window(*read_zone(word), word)
    try:
        return Window(*parse_range(word), word)
    except ValueError as error:
        raise InputError(f"--window {error}; give {', '.join(PUBLISHED_WINDOWS)}, zone, LO:HI in sigma or an "
                         "existing danger-zone.json") from None


def swap_rows(others: Sequence[str], windows: Sequence[Window], sigmas: np.ndarray, *, controls: int = 1,
              direction: str = "both") -> Iterator[SwapRow]:
    """The rows in order: A and each other denoiser alone, then each pair with every window and its controls.

    others: names of denoisers; ``skip`` for none, where the sampler steps over the window. controls: windows of as many
    steps, up to so many above and below each. direction: ``a`` for A outside only, ``b`` for the others outside only.

    Raises InputError for a window without a step, and for skip with nothing outside it.
    """
    if direction == "b" and SKIP in others:
        raise InputError("skip puts no model inside, so nothing can be outside but RUN_A; use --direction a or both")
    ranges: list[tuple[Window, str | None]] = []
    for window in windows:
        beside = control_windows(window, sigmas, controls)
        if controls and not beside:
            _LOG.info(f"note: {window.name} leaves no room for a control window of as many steps")
        ranges += [(window, None), *((control, window.name) for control in beside)]
    yield SwapRow("A")
    yield from (SwapRow(other) for other in others if other != SKIP)
    for other in others:
        for outside, inside in (("A", other), (other, "A")):
            if (direction == "a" and outside != "A") or (direction == "b" and inside != "A") or outside == SKIP:
                continue
            for window, control_of in ranges:
                yield SwapRow(outside, inside, window, steps_to_swap(window, sigmas, skipped=inside == SKIP),
                              control_of)


def swap_experiment(models: Mapping[str, nn.Module], rows: Sequence[SwapRow], dataset: DataSet, sigmas: np.ndarray, *,
                    n: int = 1000, method: str = "heun", batch: int = 256, classes: int = 0,
                    tolerance: float | None = None, mirrored: bool = False, device: str | torch.device = "auto",
                    progress: Callable[[int, int], None] | None = None) -> SwapTable:
    """Sample and measure each of ``rows`` (of ``swap_rows``), all from the seeds 0..n-1.

    models: the trained denoisers by name; ``gaussian`` and ``empirical`` in the rows are those of the training points.
    sigmas, method, batch: as in ``geomem.generation.generate``. classes: of the denoisers, which take turns by seed; 0
    for denoisers without any. tolerance, mirrored: as in ``memorization_rate``. progress: called with (done, total)
    rows.
    """
    on = resolve_device(device)
    named = {name for row in rows for name in (row.outside, row.inside)}
    points = torch.from_numpy(np.array(dataset.train))
    of_data = {"gaussian": GaussianDenoiser, "empirical": EmpiricalDenoiser}
    denoisers = {name: net.to(on) for name, net in (
        *models.items(), *((name, of_data[name](points)) for name in of_data if name in named))}
    seeds, shape = range(n), tuple(dataset.train.shape[1:])
    options: dict[str, Any] = {"sigmas": sigmas, "method": method, "batch": batch,
                               "labels": np.arange(n) % classes if classes else None}

    def samples_of(row: SwapRow) -> np.ndarray:
        if row.window is None:
            return generate(denoisers[row.outside], seeds, shape, **options)
        inside = None if row.inside == SKIP else denoisers[str(row.inside)]
        return swapped_samples(denoisers[row.outside], inside, row.window, seeds, shape, **options)

    training = distinct_training(dataset.train, tolerance, Views.of(dataset.train, mirrored=mirrored), device=device)
    heldout = apply_ratio_rule(as_rows(dataset.test), training, RATIO, device=device)
    unswapped = samples_of(rows[0])
    report = quality_report(unswapped, dataset.train, dataset.test, device=device)
    compared, floor = None, None
    try:
        compared = distinct_sets(dataset.train, dataset.test, tolerance, training.views, device=device)
        floor = leaning_of_heldout(compared, device=device)
    except InputError as error:
        _LOG.warning(f"warning: whether samples lean on the training points cannot be said: {error}")
    results: list[SwapResult] = []
    first_of: dict[tuple[Any, ...], SwapResult] = {}  # windows that hold the same steps share their samples
    for row in rows:
        if row.key not in first_of:
            samples = unswapped if row is rows[0] else samples_of(row)
            rate = apply_ratio_rule(as_rows(samples, "samples"), training, RATIO, device=device)
            leans = None if compared is None else leaning_against(as_rows(samples), compared, floor=floor,
                                                                  device=device)
            first_of[row.key] = SwapResult(row, rate, leans, *frechet_with_stderr(samples, dataset.test),
                                           samples[:SHOWN])
        result = replace(first_of[row.key], row=row)
        if row is not rows[0]:
            before = first_of[(rows[0] if row.window is None else SwapRow(row.outside)).key].memorization
            result = replace(result, difference=paired_share_difference(before.memorized,
                                                                        result.memorization.memorized))
        results.append(result)
        if progress:
            progress(len(results), len(rows))
    return SwapTable(sigmas, results, heldout, report.frechet_floor, report.floor_n)
