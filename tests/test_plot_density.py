"""The picture of a noise-level law: areas are probabilities, C is the contribution, the zone is shaded."""

import io

import numpy as np
import pytest

from geomem import InputError
from geomem.geometry import DangerZone
from geomem.noise import (
    ConfidenceIntervalSampler,
    DDPMSchedule,
    GapSampler,
    LogNormalSampler,
    UniformTimestepSampler,
    contribution,
)
from geomem.plots import plot_density
from geomem.plots.style import BLUE, GREY

BASE = LogNormalSampler()
GAP = GapSampler(GapSampler(BASE, (0.3, 1.5)), (3, 4), keep=0.2)
CI = ConfidenceIntervalSampler(100, 300)


def test_curves_of_continuous_laws_have_area_one():
    figure = plot_density([("EDM's law", BASE), ("gap", GAP)], (0.3, 1.5))
    density, weight = figure.axes
    assert [line.get_label() for line in density.lines] == ["EDM's law", "gap"]
    assert [line.get_color() for line in density.lines] == [GREY, BLUE]
    for line, sampler in zip(density.lines, (BASE, GAP), strict=True):
        sigma, per_log = line.get_data()
        outside = sampler.cdf(sigma[0]) + 1 - sampler.cdf(sigma[-1])
        assert np.trapezoid(per_log, np.log(sigma)) == pytest.approx(1 - outside, abs=1e-4)
        assert outside <= 0.002 + 1e-9
    inside = (sigma > 0.3) & (sigma < 1.5)
    assert inside.any()
    assert np.all(per_log[inside] == 0)
    for line, sampler in zip(weight.lines, (BASE, GAP), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), DDPMSchedule().sigmas)
        values = contribution(sampler)
        np.testing.assert_array_equal(line.get_ydata(), np.where(values > 0, values, np.nan))
    assert (weight.get_xscale(), weight.get_yscale()) == ("log", "log")
    assert weight.get_xlabel() == r"noise level $\sigma$ (data units)"
    top, = density.child_axes
    timesteps = [int(text.get_text()) for text in top.get_xticklabels()]
    np.testing.assert_array_equal(top.get_xticks(), DDPMSchedule().sigmas[timesteps])
    assert {0, 999} <= set(timesteps)


def test_steps_of_discrete_laws_have_area_one():
    density, _ = plot_density([("uniform", UniformTimestepSampler()), ("ci", CI), ("gap", GapSampler(CI, (1, 2)))]).axes
    steps = [patch for patch in density.patches if patch.get_label() in ("uniform", "ci", "gap")]
    assert len(steps) == 3
    for patch in steps:
        heights, edges, _ = patch.get_data()
        assert np.sum(heights * np.diff(np.log(edges))) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("zone", [(0.4, 0.8), {"sigma_low": 0.4, "sigma_high": 0.8},
                                  DangerZone(0.4, 0.8, None, None, None, 0.8)])
def test_zone_is_shaded_in_both(zone):
    figure = plot_density(BASE, zone)
    for axes in figure.axes:
        shade, = [patch for patch in axes.patches if patch.get_label() == "danger zone"]
        assert (shade.get_x(), shade.get_width()) == (0.4, pytest.approx(0.4))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["training law", "danger zone"]
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.tell() > 10_000


def test_another_schedule_and_nothing_to_draw():
    short = DDPMSchedule(50)
    density, weight = plot_density(UniformTimestepSampler(short), schedule=short).axes
    assert len(weight.lines[0].get_xdata()) == 50
    assert [text.get_text() for text in density.child_axes[0].get_xticklabels()][-1] == "49"
    with pytest.raises(InputError, match="at least one"):
        plot_density([])
