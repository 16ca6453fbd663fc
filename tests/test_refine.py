"""Refined curves: the same as one call with all levels, right against closed forms, steady on curves that wiggle."""

from dataclasses import fields, replace

import numpy as np
import oracles
import pytest
from scipy.optimize import brentq

from geomem.errors import InputError
from geomem.geometry import (
    Curves,
    Estimate,
    find_danger_zone,
    geometry_curves,
    projections,
    refine,
    refined_curves,
    sweep,
    zone_reason,
)
from geomem.geometry.zone import zone_brackets


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(5)
    return rng.standard_normal((120, 6)), rng.standard_normal((150, 6))


@pytest.fixture(scope="module")
def coarse(points):
    return geometry_curves(*points, sigmas=np.geomspace(0.05, 10, 20), seed=3)


@pytest.fixture(scope="module")
def refined(points, coarse):
    return refined_curves(*points, coarse, threshold=0.7)


def test_refined_curves_are_those_of_one_call_with_all_levels(points, coarse, refined):
    assert np.all(np.diff(refined.sigma) > 0)
    assert set(coarse.sigma) < set(refined.sigma)
    whole = geometry_curves(*points, sigmas=refined.sigma, seed=3)
    for field in fields(Curves):
        ours, theirs = getattr(refined, field.name), getattr(whole, field.name)
        if isinstance(theirs, Estimate):
            for part in ("sigma", "estimate", "stderr", "low", "high"):
                np.testing.assert_allclose(getattr(ours, part), getattr(theirs, part), rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(ours.parts.variance(50), theirs.parts.variance(50), rtol=1e-6, atol=1e-12)
        elif isinstance(theirs, np.ndarray):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-12)
        else:
            assert ours == theirs


def test_refined_curves_look_from_the_queries_of_the_coarse_ones(points):
    """50 of the 120 and 150 points; other numbers of draws than the default too."""
    options = {"queries": 50, "posterior_draws": 3, "coverage_draws": 5, "shell_t": 4.0, "seed": 3}
    coarse = geometry_curves(*points, sigmas=np.geomspace(0.05, 10, 20), **options)
    refined = refined_curves(*points, coarse, threshold=0.7, tolerance=0.02)
    assert len(refined.sigma) > len(coarse.sigma)
    whole = geometry_curves(*points, sigmas=refined.sigma, **options)
    np.testing.assert_array_equal(refined.coverage_per_point, whole.coverage_per_point)
    np.testing.assert_allclose(refined.weight_per_point, whole.weight_per_point, rtol=1e-6, atol=1e-12)
    assert refined.settings == whole.settings


def test_brackets_are_narrow_and_hold_what_is_read(coarse, refined):
    x = np.log(refined.sigma)
    w, c = refined.max_posterior_weight.estimate, refined.coverage.estimate
    zone = find_danger_zone(refined, 0.7)
    low, crossing, high = (int(np.searchsorted(refined.sigma, value)) - 1
                           for value in (zone.sigma_low, zone.crossing, zone.sigma_high))
    assert sorted({low, crossing, high}) == [bracket for bracket, _ in zone_brackets(refined, 0.7)]
    assert zone.resolution == max(x[k + 1] - x[k] for k in (low, crossing, high)) <= 1e-3
    assert c[low] < 0.7 <= c[low + 1]
    assert w[high] >= 0.7 > w[high + 1]
    assert w[crossing] >= c[crossing]
    assert w[crossing + 1] <= c[crossing + 1]
    assert find_danger_zone(coarse, 0.7).resolution == pytest.approx(np.log(200) / 19)


def test_ends_of_the_intervals_are_not_read_from_the_coarse_grid(points, refined):
    """Two levels just above the edges, so that the intervals reach into the brackets on both sides."""
    edges = find_danger_zone(refined, 0.7)
    sigmas = [0.05, 0.12, 1.001 * edges.sigma_low, 1.001 * edges.sigma_high, 4, 10]
    curves = refined_curves(*points, geometry_curves(*points, sigmas=sigmas, seed=3), threshold=0.7)
    zone = find_danger_zone(curves, 0.7)
    assert zone.sigma_low_interval[0] < sigmas[2] < zone.sigma_low_interval[1]
    assert zone.sigma_high_interval[0] < sigmas[3] < zone.sigma_high_interval[1]
    for end in (*zone.sigma_low_interval, *zone.sigma_high_interval, zone.crossing_low, zone.crossing_high):
        after = int(np.searchsorted(curves.sigma, end))
        assert np.log(curves.sigma[after] / curves.sigma[after - 1]) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "options"), [(2, {}), (6, {"queries": 80}), (40, {"shell_t": 2.0})])
def test_zone_is_that_of_a_dense_grid(dim, options):
    """Levels 0.0005 apart around what is read, 25% of the zone and more on either side; shells with an inner side too.
    The ends of the intervals are promised within 0.02 and come out closer.
    """
    rng = np.random.default_rng(dim)
    points = rng.standard_normal((150, dim)), rng.standard_normal((150, dim))
    curves = geometry_curves(*points, **options)
    zone = find_danger_zone(refined_curves(*points, curves, threshold=0.6), 0.6)
    sigmas = np.exp(np.arange(np.log(0.75 * zone.sigma_low), np.log(1.25 * zone.sigma_high), 5e-4))
    dense = find_danger_zone(geometry_curves(*points, sigmas=sigmas, **options), 0.6)
    places, ends = zip(*[((found.sigma_low, found.crossing, found.sigma_high),
                          (*found.sigma_low_interval, found.crossing_low, found.crossing_high,
                           *found.sigma_high_interval)) for found in (zone, dense)], strict=True)
    np.testing.assert_allclose(*np.log(places), rtol=0, atol=1e-3)
    np.testing.assert_allclose(*np.log(ends), rtol=0, atol=5e-3)


def test_what_is_kept_between_passes_changes_nothing(points, coarse, refined, monkeypatch):
    """All is measured once, in blocks of 16 centres too; without room for it, in each pass."""
    draws = []

    def counted(*arguments, draw=sweep.NoisePool.draw):
        draws.append(1)
        return draw(*arguments)

    monkeypatch.setattr(sweep.NoisePool, "draw", counted)
    monkeypatch.setattr(projections, "CENTRE_ROWS", 16)
    kept = refined_curves(*points, coarse, threshold=0.7)
    assert len(draws) == 1
    monkeypatch.setattr(sweep, "_passes", lambda *args, passes=sweep._passes: (passes(*args)[0], False, 0))
    anew = refined_curves(*points, coarse, threshold=0.7)
    assert len(draws) > 2
    for name in ("sigma", "weight_per_point", "coverage_per_point", "coverage_upper_bound"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(anew, name))
        np.testing.assert_allclose(getattr(kept, name), getattr(refined, name), rtol=1e-6, atol=1e-6)


def test_edges_against_closed_forms():
    """Two training points r apart, one held-out distance s to the first: W is an integral over one normal,
    C = g(s/sigma). Monte Carlo error of an edge: that of the curve over its slope in log sigma.
    """
    dim, r, s = 16, 9.0, 3.0
    train = np.zeros((2, dim))
    train[1, 0] = r
    heldout = np.zeros((2, dim))
    heldout[:, 1] = s * np.array([1, -1])
    grid, weight = np.polynomial.hermite_e.hermegauss(200)

    def exact_w(x):  # the logit of the other point is -(u^2/2 + u Z), u = r/sigma
        u = r / np.exp(x)
        return float(weight @ (1 / (1 + np.exp(-abs(u**2 / 2 + u * grid))))) / weight.sum()

    def exact_c(x):
        return oracles.two_shell(s / np.exp(x), dim, 5.0)

    curves = geometry_curves(train, heldout, sigmas=40, posterior_draws=8_000, coverage_draws=8_000)
    fine = refined_curves(train, heldout, curves)
    zone = find_danger_zone(fine)
    for value, exact, estimate in ((zone.sigma_low, exact_c, fine.coverage),
                                   (zone.sigma_high, exact_w, fine.max_posterior_weight)):
        truth = brentq(lambda x, exact=exact: exact(x) - 0.8, np.log(0.5), np.log(6), xtol=1e-10)
        slope = abs(exact(truth + 1e-4) - exact(truth - 1e-4)) / 2e-4
        error = np.interp(truth, np.log(fine.sigma), estimate.stderr) / slope
        assert error < 0.015
        assert abs(np.log(value) - truth) < 4 * error + 1e-3
    assert oracles.two_shell(np.hypot(r, s) / zone.sigma_low, dim, 5.0) < 1e-6  # the second point covers nothing there


def analytic(template, w_of, c_of, monkeypatch):
    """Curves of given functions of log sigma, also for the levels that refine.refined asks for. Returns curves on
    a grid of 10 levels from 0.1 to 10 and the list of the passes.
    """
    passes = []

    def curves_at(_sweep, sigma, _thresholds=None):
        passes.append(len(sigma))
        x, nothing = np.log(sigma), np.zeros(len(sigma))

        def estimate(values):
            return Estimate(sigma, values, nothing, values, values, 10, 4)

        w, c = estimate(w_of(x)), estimate(c_of(x))
        return replace(template, sigma=sigma, max_posterior_weight=w, self_posterior_weight=w, coverage=c,
                       coverage_lower_bound=nothing, coverage_upper_bound=nothing,
                       coverage_plain_upper_bound=nothing, weight_per_point=None, coverage_per_point=None)

    monkeypatch.setattr(refine, "measured", curves_at)
    curves = curves_at(None, np.geomspace(0.1, 10, 10))
    passes.clear()
    return curves, passes


def test_of_several_passages_the_one_nearest_to_the_crossing_counts(coarse, monkeypatch):
    """C is a staircase with dips across the threshold at three places in one bracket of the grid (0.51 wide)."""
    def c_of(x):
        steps = np.clip(0.5 + np.floor(200 * (x + 1)) / 400, 0, 1)
        dips = sum((abs(x - at) < 0.02) * 0.15 for at in (-0.30, -0.24, -0.17))
        return np.where(x < -0.15, np.minimum(steps, 0.85), steps) - dips

    def w_of(x):
        return np.clip(0.95 - 0.4 * (x - 0.2), 0, 1)

    curves, passes = analytic(coarse, w_of, c_of, monkeypatch)
    assert find_danger_zone(curves).sigma_low != pytest.approx(np.exp(-0.15), abs=0.02)
    fine = refine.refined(None, curves, 0.8, 1e-3)
    zone = find_danger_zone(fine)
    assert np.log(zone.sigma_low) == pytest.approx(-0.15, abs=1e-3)  # the end of the last dip
    assert np.log(zone.sigma_high) == pytest.approx(0.2 + 0.15 / 0.4, abs=1e-3)
    assert zone.resolution <= 1e-3
    assert len(passes) <= 4
    inside = (fine.sigma > zone.sigma_low) & (fine.sigma < zone.sigma_high)
    assert (fine.coverage.estimate[inside] >= 0.8).all()


def test_the_default_grid_takes_two_passes(coarse, monkeypatch):
    curves, passes = analytic(coarse, lambda x: 1 / (1 + np.exp(2 * x - 1)), lambda x: 1 / (1 + np.exp(-2 * x - 1)),
                              monkeypatch)
    sigma = np.geomspace(0.02, 80, 40)
    curves = refine.measured(None, sigma)
    passes.clear()
    fine = refine.refined(None, curves, 0.6, 1e-3)
    edge = (np.log(1.5) + 1) / 2
    zone = find_danger_zone(fine, 0.6)
    # W = .6 where 2 x - 1 = -log 1.5; a straight line within 0.001 is off by less than 1e-6.
    np.testing.assert_allclose(np.log([zone.sigma_low, zone.crossing, zone.sigma_high]),
                               [edge - 1, 0, 1 - edge], atol=1e-6)
    assert len(passes) == 2
    assert sum(passes) <= 3 * (2 + 4)


def test_a_zone_between_two_levels_comes_to_light_and_one_of_the_grid_alone_goes(coarse, monkeypatch):
    peak = np.log(1.1)  # between two levels

    curves, _ = analytic(coarse, lambda x: np.where(x < peak, 1, np.clip(0.9 - 8 * (x - peak), 0, 1)),
                         lambda x: np.where(x > peak, 1, np.clip(0.9 - 8 * (peak - x), 0, 1)), monkeypatch)
    assert find_danger_zone(curves) is None
    zone = find_danger_zone(refine.refined(None, curves, 0.8, 1e-3))
    np.testing.assert_allclose(np.log([zone.sigma_low, zone.sigma_high]), [peak - 0.0125, peak + 0.0125], atol=2e-3)

    curves, _ = analytic(coarse, lambda x: np.where(x < 0, 1.0, 0.0), lambda x: np.where(x < 0.01, 0.0, 1.0),
                         monkeypatch)
    assert find_danger_zone(curves, 0.4) is not None  # two lines cross at .5 between two levels
    fine = refine.refined(None, curves, 0.4, 1e-3)
    assert find_danger_zone(fine, 0.4) is None
    assert "nowhere both" in zone_reason(fine, 0.4)


def test_both_ends_of_a_plateau_are_refined(coarse, monkeypatch):
    """W = C = 1 between -0.7 and 1.3: the crossing is the middle."""
    curves, _ = analytic(coarse, lambda x: np.minimum(1, np.exp(1.3 - x)), lambda x: np.minimum(1, np.exp(x + 0.7)),
                         monkeypatch)
    assert np.log(find_danger_zone(curves).crossing) != pytest.approx(0.3, abs=1e-2)
    zone = find_danger_zone(refine.refined(None, curves, 0.8, 1e-3))
    assert np.log(zone.crossing) == pytest.approx(0.3, abs=1e-3)
    assert zone.resolution <= 1e-3


def test_nothing_to_do(points, coarse):
    assert refined_curves(*points, coarse, tolerance=1.0) is coarse
    single = geometry_curves(*points, sigmas=[0.6])
    assert refined_curves(*points, single, threshold=0.5) is single


def test_wrong_input(points, coarse):
    with pytest.raises(InputError, match="tolerance"):
        refined_curves(*points, coarse, tolerance=0)
    with pytest.raises(InputError, match="tolerance"):
        refined_curves(*points, coarse, tolerance=np.nan)
    with pytest.raises(InputError, match="threshold"):
        refined_curves(*points, coarse, threshold=1)
    with pytest.raises(InputError, match="give these points"):
        refined_curves(points[0][:-1], points[1], coarse)
