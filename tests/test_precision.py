"""Draws raised to a tolerance: the variance parts, the prediction, what it stops at and what it says."""

import numpy as np
import pytest

from geomem.errors import InputError
from geomem.geometry import curves_to_tolerance, geometry_curves, max_posterior_weight, precision, shell_coverage
from geomem.statistics import Tally, interval


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(2)
    return rng.standard_normal((150, 5)), rng.standard_normal((300, 5))


def tallied(cells, groups):
    points, draws, levels = cells.shape
    tally = Tally(points, draws, groups, levels)
    for part in (slice(0, 5), slice(5, points)):  # not at a multiple of the groups
        tally.add(part.start, cells[part])
    return tally.estimate(np.arange(1.0, levels + 1), proportion=False)


def test_parts_are_those_of_the_definition_and_add_up():
    """Plain loops over the cells, 12 points in 4 groups of 3 vectors."""
    rng = np.random.default_rng(0)
    cells = 0.5 + 0.1 * (rng.standard_normal((12, 1, 2)) + np.tile(rng.standard_normal((4, 3, 2)), (3, 1, 1))
                         + rng.standard_normal((12, 3, 2)))
    estimate = tallied(cells, 4)
    for level in range(2):
        v = cells[:, :, level]
        within = sum((v[k, j] - v[k].mean())**2 for k in range(12) for j in range(3)) / (12 * 2) / 36
        v_point = sum((v[k] - v.mean()).sum()**2 for k in range(12)) / 36**2 * 12 / 11
        v_cell = ((v - v.mean())**2).sum() / 36**2 * 36 / 35
        v_noise = sum((v[g::4, j] - v.mean()).sum()**2 for g in range(4) for j in range(3)) / 36**2 * 12 / 11
        parts = [estimate.parts.between[level], estimate.parts.within[level], estimate.parts.shared[level]]
        np.testing.assert_allclose(parts, [v_point - within, within, v_noise - v_cell], rtol=1e-9)
        assert min(parts) > 0
    np.testing.assert_allclose(estimate.parts.variance(3), estimate.stderr**2, rtol=1e-12)
    assert (estimate.parts.draws, estimate.parts.vectors) == (3, 12)
    assert tallied(cells[:, :1], 4).parts is None


def test_the_pilot_foretells_the_error_at_more_draws(points):
    sigmas = np.geomspace(0.1, 3, 8)
    pilot = max_posterior_weight(points[0], sigmas, draws=8).max_posterior_weight
    later = max_posterior_weight(points[0], sigmas, draws=64).max_posterior_weight
    shows = pilot.stderr > 0.001
    np.testing.assert_allclose(np.sqrt(pilot.parts.variance(64))[shows], later.stderr[shows], rtol=0.15)
    assert (pilot.stderr[shows] > 1.3 * later.stderr[shows]).any()  # so that predicting no change would fail


def test_tolerance_is_reached_and_the_curves_are_those_of_a_plain_run(points):
    runs = []
    found = curves_to_tolerance(*points, 0.05, sigmas=12, posterior_draws=2, coverage_draws=2, seed=4,
                                progress=lambda done, total: runs.append(done) if done == total else None)
    assert found.notes == ()
    assert found.runs == len(runs) > 1
    curves = found.curves
    assert curves.max_posterior_weight.half_width.max() <= 0.05
    assert curves.coverage.half_width.max() <= 0.05
    draws = {name: curves.settings[name] for name in ("posterior_draws", "coverage_draws")}
    plain = geometry_curves(*points, sigmas=12, seed=4, **draws)
    np.testing.assert_array_equal(plain.max_posterior_weight.high, curves.max_posterior_weight.high)
    np.testing.assert_array_equal(plain.coverage_per_point, curves.coverage_per_point)
    least = next(n for n in range(2, 100)
                 if shell_coverage(*points, curves.sigma, draws=n, seed=4).half_width.max() <= 0.05)
    assert least > 2
    assert draws["coverage_draws"] <= 4 * least


def test_pilot_that_suffices_is_the_only_run(points):
    found = curves_to_tolerance(*points, 0.2, sigmas=5)
    assert (found.runs, found.curves.settings["posterior_draws"], found.curves.settings["coverage_draws"]) == (1, 4, 8)


def test_no_draws_are_spent_on_what_the_points_limit():
    """Every draw of a point says the same: half of the held-out points are always covered, half never."""
    rng = np.random.default_rng(0)
    train = rng.standard_normal((40, 3)) * 1e-3
    heldout = np.concatenate([train[:20], train[:20] + 100])
    found = curves_to_tolerance(train, heldout, 0.02, sigmas=[1.0, 2.0])
    assert found.curves.coverage.estimate == pytest.approx(0.5, abs=0.02)
    assert found.curves.settings["coverage_draws"] == 8
    note, = found.notes
    assert note.startswith("coverage C: at 2 of 2 levels the 95% interval is wider than -+0.02")
    assert "limited by the 40 held-out points; more draws cannot narrow it enough" in note
    assert "\n" not in note


def test_the_most_draws_are_told(points):
    found = curves_to_tolerance(*points, 0.03, sigmas=12, posterior_draws=2, coverage_draws=2, max_draws=3)
    assert found.curves.settings["posterior_draws"] == 3
    assert any("the most draws, 3 per point, are reached" in note for note in found.notes)


def test_rare_cases_are_not_taken_for_a_limit_of_the_points(points):
    """Between two points nothing differs and few cells are 0: endless draws would narrow it to nothing."""
    cells = np.ones((300, 4, 1))
    cells[::10, 0] = 0
    tally = Tally(300, 4, 1, 1)
    tally.add(0, cells)
    drawn = precision._Drawn(tally.estimate(np.ones(1), proportion=True), True, 0.005)
    assert drawn.estimate.parts.between[0] == pytest.approx(0, abs=1e-6)
    assert drawn.too_wide[0]
    assert drawn.reached_with(np.inf)[0]


def test_interval_is_wilson_for_proportions_and_normal_else():
    from scipy.stats import binomtest
    expected = binomtest(30, 200).proportion_ci(method="wilson")
    low, high = interval(np.array([0.15]), np.array([0.15 * 0.85 / 200]), 999, proportion=True)
    np.testing.assert_allclose([low[0], high[0]], expected, rtol=1e-12)
    low, high = interval(np.array([0.15, 0.999]), np.array([1e-4, 1e-4]), 999, proportion=False)
    np.testing.assert_allclose([low[0], high[0], high[1]], [0.15 - 0.01959964, 0.15 + 0.01959964, 1], rtol=1e-6)


@pytest.mark.parametrize(("options", "says"), [
    ({"tolerance": 0}, "tolerance"), ({"tolerance": 0.5}, "tolerance"), ({"tolerance": np.nan}, "tolerance"),
    ({"posterior_draws": 1}, "2 or more"), ({"coverage_draws": 9, "max_draws": 8}, "at most 8"),
    ({"posterior_draws": 1.5}, "whole number")])
def test_wrong_input(points, options, says):
    with pytest.raises(InputError, match=says) as caught:
        curves_to_tolerance(*points, **({"tolerance": 0.1} | options))
    assert "\n" not in str(caught.value)


def test_a_tolerance_looks_from_the_queries_asked_for(points):
    found = precision.curves_to_tolerance(*points, 0.05, sigmas=6, queries=40, max_draws=8)
    assert (found.curves.max_posterior_weight.n_points, found.curves.coverage.n_points) == (40, 40)
    assert any("40 training points looked from, of 150" in note for note in found.notes)
