"""Shells, g, coverage and its bounds against oracles, closed forms and Monte Carlo."""

import numpy as np
import oracles
import pytest
from scipy.stats import chi2

from geomem.geometry import (
    coverage_bounds,
    geometry_curves,
    projections,
    shell_coverage,
    shell_radii,
    two_shell_probability,
)
from geomem.geometry.shells import TwoShellTable

DIMS = [1, 2, 20, 64, 784, 3072, 196_608]


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("t", [0.5, 5.0])
def test_shells_hold_the_noise(dim, t):
    inner, outer = shell_radii(dim, t)
    assert (inner, outer) == pytest.approx(oracles.shell_radii(dim, t))
    assert chi2.cdf(outer**2, dim) - chi2.cdf(inner**2, dim) >= 1 - 2 * np.exp(-t)


@pytest.mark.parametrize("dim", DIMS)
def test_g_agrees_with_the_library(dim):
    s = np.linspace(0, 1.2 * TwoShellTable(dim, 5.0).cut, 60)
    exact = two_shell_probability(2 * s, 2.0, dim)
    # The library loses digits where it subtracts; it gives NaN for no argument here.
    np.testing.assert_allclose(exact, oracles.two_shell(s, dim, 5.0), atol=1e-9)


@pytest.mark.parametrize(("dim", "t"), [*((dim, t) for dim in DIMS for t in (0.5, 5.0, 20.0)), (3_000_000, 5.0)])
def test_table_of_g_is_within_1e_7(rng, dim, t):
    table = TwoShellTable(dim, t)
    s = rng.uniform(0, 1.1 * table.cut, 300)
    np.testing.assert_allclose(table(s), two_shell_probability(s, 1.0, dim, t), rtol=0, atol=1e-7)
    assert two_shell_probability(table.cut, 1.0, dim, t) < 2e-15
    assert table(np.array([table.cut + 1e-6, 1e6])).tolist() == [0, 0]


@pytest.mark.parametrize(("n", "m", "dim", "t"), [
    (30, 20, 1, 5.0), (60, 300, 2, 0.3), (50, 20, 64, 5.0), (50, 20, 64, 0.2), (12, 9, 3072, 5.0)])
def test_agrees_with_the_oracle(rng, n, m, dim, t):
    """Small t gives thin shells: many points are too close to a centre, and others may cover them."""
    train = rng.standard_normal((n, dim)).astype(np.float32)
    heldout = rng.standard_normal((m, dim)).astype(np.float32)
    sigmas = np.geomspace(0.002, 80, 25)
    curves = geometry_curves(train, heldout, sigmas=sigmas, coverage_draws=3, shell_t=t, seed=1)
    noise = oracles.query_noise("coverage radius", m, 3, dim, seed=1)
    inside, margin = oracles.coverage(train.astype(float), heldout.astype(float), noise, sigmas, t)
    clear = (margin > 1e-4).all(axis=1)
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(np.round(curves.coverage_per_point * 3)[clear], inside.sum(axis=1)[clear])
    assert 0 < inside.mean() < 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("t", [0.1, 5.0])
def test_stops_at_small_levels_only_when_nothing_can_be_covered(rng, seed, t):
    """One query on a fine grid: the level after the one where the sweep stops is next to it. Small t: |Z| > R_+
    at times, and then the query enters the shells from outside as sigma falls.
    """
    train, heldout, sigmas = rng.standard_normal((9, 4)), rng.standard_normal((1, 4)), np.geomspace(0.03, 30, 400)
    noise = oracles.query_noise("coverage radius", 1, 1, 4, seed)
    inside, margin = oracles.coverage(train, heldout, noise, sigmas, t)
    got = shell_coverage(train, heldout, sigmas, draws=1, shell_t=t, seed=seed).estimate
    clear = margin[0, 0] > 1e-4
    np.testing.assert_array_equal(got[clear], inside[0, 0][clear])


def test_a_point_too_close_to_one_centre_is_covered_by_another():
    """Noise of length R > R_-: the query is moved from one centre, but a second one lies at the right distance."""
    dim, t = 64, 0.2
    train = np.zeros((2, dim))
    train[1, 0] = 6.0
    sigmas = np.linspace(0.5, 1.5, 9)
    noise = oracles.query_noise("coverage radius", 1, 500, dim, seed=0)
    inside, _ = oracles.coverage(train, train[:1], noise, sigmas, t)
    nearest_only, _ = oracles.coverage(train[:1], train[:1], noise, sigmas, t)
    assert (inside & ~nearest_only).any()
    got = shell_coverage(train, train[:1], sigmas, draws=500, shell_t=t)
    np.testing.assert_allclose(got.estimate, inside.mean(axis=(0, 1)), atol=1e-9)


@pytest.mark.parametrize(("dim", "t"), [(1, 5.0), (16, 0.5), (300, 5.0)])
def test_own_shell_alone_gives_the_chi_square_probability(rng, dim, t):
    """Held-out = training points, far apart: covered iff R_- <= |Z| <= R_+. The norms are 1e8, the distances 0."""
    train = np.arange(100)[:, None] * 1e6 + rng.standard_normal((100, dim))
    exact = np.diff(chi2.cdf(np.square(shell_radii(dim, t)), dim))[0]
    got = shell_coverage(train, train, [0.5, 2.0], draws=80, shell_t=t)
    assert np.all(abs(got.estimate - exact) < 4 * np.maximum(got.stderr, 1e-3))
    bounds = coverage_bounds(train, train, [0.5, 2.0], shell_t=t)
    np.testing.assert_allclose([bounds.lower, bounds.upper, bounds.plain_upper], exact, atol=1e-7)


def test_one_distinct_centre_gives_g(rng):
    """All training points equal: coverage at distance r is g_sigma(r), and the bounds meet."""
    heldout = np.zeros((400, 30))
    heldout[:, 0] = 4.0
    sigmas = [0.7, 1.0, 2.0]
    got = shell_coverage(np.zeros((3, 30)), heldout, sigmas)
    exact = two_shell_probability(4.0, sigmas, 30)
    assert np.all(abs(got.estimate - exact) < 4 * got.stderr + 1e-4)
    bounds = coverage_bounds(np.zeros((3, 30)), heldout, sigmas)
    np.testing.assert_allclose([bounds.lower, bounds.upper, bounds.plain_upper], [exact] * 3, atol=1e-7)


def test_bounds_agree_with_the_oracle_and_bracket_coverage(rng):
    train, heldout = rng.standard_normal((70, 10)), rng.standard_normal((50, 10))
    sigmas = np.array([0.05, 0.3, 0.5, 1.0, 30.0])
    got = coverage_bounds(train, heldout, sigmas)
    for level, sigma in enumerate(sigmas):
        expected = oracles.bounds(train, heldout, sigma, 5.0)
        np.testing.assert_allclose((got.lower[level], got.upper[level], got.plain_upper[level]), expected, atol=1e-6)
    coverage = shell_coverage(train, heldout, sigmas, draws=100)
    assert np.all(got.lower <= coverage.estimate + 4 * coverage.stderr)
    assert np.all(got.upper >= coverage.estimate - 4 * coverage.stderr)
    assert np.all(got.upper <= got.plain_upper + 1e-12)


def test_reported_error_is_the_spread_over_seeds_and_heldout_points(rng, monkeypatch):
    """80 runs give the spread to 8%; 8 shared vectors for 60 points make sharing matter."""
    monkeypatch.setattr(projections, "POOL_VECTORS", 8)
    train = rng.standard_normal((40, 12))
    runs = [shell_coverage(train, rng.standard_normal((60, 12)), [0.45, 0.6], draws=4, seed=seed)
            for seed in range(80)]
    spread = np.std([run.estimate for run in runs], axis=0)
    reported = np.sqrt(np.mean([run.stderr**2 for run in runs], axis=0))
    np.testing.assert_allclose(reported, spread, rtol=0.22)
    truth = np.mean([run.estimate for run in runs], axis=0)
    assert np.mean([(run.low <= truth) & (truth <= run.high) for run in runs]) > 0.88


def test_intervals_have_width_at_0_and_1(rng):
    got = shell_coverage(rng.standard_normal((50, 5)), rng.standard_normal((40, 5)), [1e-4, 30.0])
    assert got.estimate.tolist() == [0, pytest.approx(1, abs=0.02)]
    assert got.low[0] == 0
    assert got.high[0] == pytest.approx(1.96**2 / (40 + 1.96**2), rel=1e-3)  # Wilson at 0 of 40 points
    assert np.all((got.low >= 0) & (got.high <= 1) & (got.low < got.high))
