"""Coverage for every training set size against all subsets, and the trend of the zone against known curves."""

import re
from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import oracles
import pytest

from geomem import InputError
from geomem.geometry import (
    find_danger_zone,
    geometry_curves,
    max_posterior_weight,
    shell_coverage,
)
from geomem.theory import coverage_by_training_size, zone_by_training_size
from geomem.theory.training_size import hit_probability
from geomem.theory.zone_trend import edges, fit_trend


@pytest.fixture
def rng():
    return np.random.default_rng(30)


@pytest.mark.parametrize(("n_train", "size"), [(1, 1), (7, 1), (7, 3), (7, 7), (5000, 1), (5000, 700), (5000, 4999)])
def test_probability_is_the_exact_fraction(n_train, size):
    """Relative error about k rounding errors of 1.1e-16, k up to N."""
    got = hit_probability(n_train, size)
    assert got.shape == (n_train + 1,)
    ks = np.unique(np.r_[np.linspace(0, n_train, min(n_train + 1, 40)).astype(int), n_train - size,
                         min(n_train, n_train - size + 1)])
    for k in ks:
        exact = 1 - Fraction(comb(n_train - int(k), size), comb(n_train, size))
        assert got[k] == pytest.approx(float(exact), rel=2e-16 * (k + 8), abs=0)
    assert got[0] == 0
    assert (got[n_train - size + 1:] == 1).all()
    assert got[1] == pytest.approx(size / n_train, rel=1e-15)


def test_small_probabilities_keep_their_digits():
    assert hit_probability(10**6, 1)[[1, 2]] == pytest.approx([1e-6, 2e-6], rel=1e-14, abs=0)


@pytest.mark.parametrize("copies", [False, True])
def test_is_the_mean_over_all_subsets(rng, copies):
    """Brute force: the oracle's coverage of each subset of 7 points, the same noise; copies are points of their own."""
    train, heldout = rng.standard_normal((7, 3)), rng.standard_normal((12, 3))
    if copies:
        train[4] = train[1]
    sigmas, draws, t = np.array([0.15, 0.4, 1.0, 3.0]), 3, 0.3
    noise = oracles.query_noise("coverage radius", 12, draws, 3, seed=2)
    got = coverage_by_training_size(train, heldout, sigmas, range(1, 8), draws=draws, shell_t=t, seed=2)
    one_by_one = np.stack([oracles.coverage(train[[i]], heldout, noise, sigmas, t)[0] for i in range(7)])
    for row, size in enumerate(range(1, 8)):
        subsets = [one_by_one[list(chosen)].any(axis=0) for chosen in combinations(range(7), size)]
        np.testing.assert_allclose(got.estimate[row], np.mean(subsets, axis=(0, 1, 2)), rtol=1e-12)
    assert 0.01 < got.estimate[0, 1] < got.estimate[-1, 1] < 0.95


@pytest.mark.parametrize(("n", "m", "dim", "t"), [(40, 300, 2, 0.3), (50, 30, 64, 5.0), (30, 20, 1, 5.0)])
def test_all_points_are_coverage_itself(rng, n, m, dim, t):
    train, heldout = rng.standard_normal((n, dim)), rng.standard_normal((m, dim))
    train[3] = train[5]
    sigmas = np.geomspace(0.01, 30, 20)
    options = {"draws": 3, "shell_t": t, "seed": 5}
    whole = shell_coverage(train, heldout, sigmas, **options)
    got = coverage_by_training_size(train, heldout, sigmas, [n], **options)
    for name in ("estimate", "stderr", "low", "high"):
        np.testing.assert_array_equal(getattr(got, name)[0], getattr(whole, name))
    assert ((whole.estimate > 0) & (whole.estimate < 1)).any()


@pytest.mark.parametrize("sizes", [[], [0], [3, 41], [2.5], ["many"], [float("nan")]])
def test_wrong_sizes_are_one_line(rng, sizes):
    with pytest.raises(InputError, match="sizes"):
        coverage_by_training_size(rng.standard_normal((40, 3)), rng.standard_normal((5, 3)), [1.0], sizes)


def test_zone_of_all_points_is_the_danger_zone(rng):
    train, heldout = rng.standard_normal((200, 12)), rng.standard_normal((150, 12))
    sigmas = np.geomspace(0.1, 10, 30)
    got = zone_by_training_size(train, heldout, [25, 50, 100, 200], sigmas=sigmas, threshold=0.7, seed=3)
    zone = find_danger_zone(geometry_curves(train, heldout, sigmas=sigmas, seed=3), 0.7)
    assert (got.sigma_low[-1], got.sigma_high[-1]) == (pytest.approx(zone.sigma_low), pytest.approx(zone.sigma_high))
    assert got.crossing[-1] == pytest.approx(zone.crossing)
    whole = max_posterior_weight(train, sigmas, seed=3).max_posterior_weight
    np.testing.assert_array_equal(got.weight[-1], whole.estimate)
    np.testing.assert_allclose(got.weight_stderr[-1], whole.stderr)
    assert (np.diff(got.sigma_low) < 0).all()
    assert (np.diff(got.sigma_high) < 0).all()
    assert got.low_slope.low < got.low_slope.slope < got.low_slope.high < 0


def test_stderr_of_weight_is_its_spread_over_training_sets(rng):
    """30 of 120 points, 3 subsets: over 100 training sets drawn anew. ``estimates`` leaves out that the points are each
    other's rivals, 1.2 to 1.3 of the error: the ratio is between 0.8 and 1.5, and far from the 3 of one subset too few.
    """
    runs = [zone_by_training_size(rng.standard_normal((120, 8)), rng.standard_normal((2, 8)), [30], sigmas=[0.9, 1.2],
                                  subsets=3, seed=s) for s in range(100)]
    spread = np.std([run.weight[0] for run in runs], axis=0)
    reported = np.sqrt(np.mean([run.weight_stderr[0]**2 for run in runs], axis=0))
    assert np.all((spread / reported > 0.8) & (spread / reported < 1.5))


def curves_with(width, sizes, x):
    """W and C for each size with sigma_low = n^-0.1 and log(sigma_high/sigma_low) = width(n) at threshold 0.5."""
    low = -0.1 * np.log(sizes)[:, None]
    high = low + np.array([width(n) for n in sizes])[:, None]
    return 1 / (1 + np.exp(8 * (x - high))), 1 / (1 + np.exp(-8 * (x - low)))


SIZES = np.array([50, 100, 200, 400, 800])
GRID = np.linspace(-3, 3, 200)


def fit(width, w_stderr=1e-3, c_stderr=1e-3):
    w, c = curves_with(width, SIZES, GRID)
    return fit_trend(GRID, SIZES, w, w_stderr * np.ones_like(w), c, c_stderr * np.ones_like(c), 0.5, seed=0)


def test_parting_is_found():
    got = fit(lambda n: 0.2 * np.log(2000 / n))
    assert got.parts_at == pytest.approx(2000, rel=0.02)
    assert got.parts_low < 2000 < got.parts_high
    assert got.low_slope.slope == pytest.approx(-0.1, abs=1e-3)
    assert got.high_slope.slope == pytest.approx(-0.3, abs=1e-3)
    assert "part at about n = 2,0" in got.trend
    within = fit(lambda n: 0.2 * np.log(300 / n))
    assert within.parts_at == pytest.approx(300, rel=0.02)
    for errors in ({"w_stderr": 0.02}, {"c_stderr": 0.02}):
        wide = fit(lambda n: 0.2 * np.log(2000 / n), **errors)
        assert wide.parts_high - wide.parts_low > 5 * (got.parts_high - got.parts_low)


def test_interval_holds_the_truth():
    """Noisy curves, independent between sizes as the fit assumes: at least 80% of the intervals hold the truth (95% are
    expected, give or take 5%; leaving one size out makes them wider).
    """
    rng = np.random.default_rng(0)
    w, c = curves_with(lambda n: 0.2 * np.log(2000 / n), SIZES, GRID)
    held = 0
    for trial in range(20):
        shift = 0.01 * rng.standard_normal((2, len(SIZES), 1))
        got = fit_trend(GRID, SIZES, w + shift[0], np.full_like(w, 0.01), c + shift[1], np.full_like(c, 0.01), 0.5,
                        seed=trial)
        held += got.parts_at is not None and got.parts_low <= 2000 <= got.parts_high
    assert held >= 0.8 * 20


@pytest.mark.parametrize(("width", "reason"), [
    (lambda n: 0.8, "do not part: .*no sure narrowing"), (lambda n: 0.1 * np.log(n), "no sure narrowing"),
    (lambda n: 0.05 * (-1) ** int(np.log2(n / 50)), "part at some sizes and not at others"),
    (lambda n: 0.02 * np.log(1e12 / n), "not by n = 12,800"), (lambda n: -0.3, "apart at every size"),
    (lambda n: 0.2 * np.log(2 / n), "apart at every size")])
def test_no_number_without_a_trend_that_supports_it(width, reason):
    got = fit(width)
    assert got.parts_at is got.parts_low is got.parts_high is None
    assert re.search(reason, got.trend)
    assert got.low_slope.slope == pytest.approx(-0.1, abs=1e-3)


def test_a_bend_widens_the_interval():
    """With almost exact curves only the sizes left out in turn make the lines differ, where width is no line."""
    straight = fit(lambda n: 0.2 * np.log(2000 / n), 1e-6, 1e-6)
    bent = fit(lambda n: 0.2 * np.log(2000 / n) + 0.01 * np.log(n / 200)**2, 1e-6, 1e-6)
    assert straight.parts_high / straight.parts_low < 1.02
    assert bent.parts_high / bent.parts_low > 1.1


def test_a_size_with_a_large_error_does_not_decide():
    """The smallest size is off by 0.15, where W, of slope 8/4 = 2, has an error of 0.15: 0.075 in the edge, and 40
    times that of the others, so it weighs a thousandth of them. Unweighted it would move the slope by a fifth.
    """
    w, c = curves_with(lambda n: 0.2 * np.log(2000 / n) - 0.15 * (n == 50), SIZES, GRID)
    stderr = np.full_like(w, 1e-3)
    stderr[0] = 0.15
    got = fit_trend(GRID, SIZES, w, stderr, c, np.full_like(c, 1e-3), 0.5, seed=0)
    assert got.parts_at == pytest.approx(2000, rel=0.05)


def test_too_few_sizes_have_no_trend(rng):
    got = zone_by_training_size(rng.standard_normal((40, 3)), rng.standard_normal((20, 3)), [10, 40])
    assert got.parts_at is got.low_slope is None
    assert "4 are needed" in got.trend


def test_edges_at_the_end_of_the_grid_are_unknown():
    x = np.arange(4.0)
    assert edges(x, np.array([1, 1, 0.5, 0]), np.array([0, 0.5, 1, 1]), 0.75) == (1.5, 1.5)
    assert np.isnan(edges(x, np.ones(4), np.ones(4), 0.75)).all()
    assert np.isnan(edges(x, np.zeros(4), np.zeros(4), 0.75)).all()
