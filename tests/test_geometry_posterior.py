"""Posterior weights against the float64 oracle, closed forms and the definition of the standard errors."""

import numpy as np
import oracles
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from geomem.errors import InputError
from geomem.geometry import (
    concentration_thresholds,
    geometry_curves,
    max_posterior_weight,
    projections,
    sweep,
    workers,
)

SIGMAS = np.geomspace(0.002, 80, 12)


@pytest.fixture
def rng():
    return np.random.default_rng(20)


def near_duplicates(rng, n, dim, size):
    """Points of norm ``size``; the second half are the first half moved by 1e-3."""
    points = rng.standard_normal((n // 2, dim))
    points *= size / np.linalg.norm(points, axis=1, keepdims=True)
    moved = rng.standard_normal(points.shape)
    return np.concatenate([points, points + 1e-3 * moved / np.linalg.norm(moved, axis=1, keepdims=True)])


@pytest.mark.parametrize(("n", "dim", "dtype"), [
    (30, 1, np.float64), (40, 2, np.float32), (50, 64, np.float64), (300, 8, np.float32), (12, 3072, np.float32)])
def test_agrees_with_the_oracle(rng, n, dim, dtype):
    agrees(rng.standard_normal((n, dim)).astype(dtype))


def agrees(train):
    result = max_posterior_weight(train, SIGMAS, draws=2, seed=3)
    noise = oracles.query_noise("posterior radius", *train.shape[:1], 2, train.shape[1], seed=3)
    largest, own = oracles.posterior_weights(train.astype(np.float64), noise, SIGMAS)
    np.testing.assert_allclose(result.max_posterior_weight.estimate, largest.mean(axis=(0, 1)), atol=1e-5)
    np.testing.assert_allclose(result.self_posterior_weight.estimate, own.mean(axis=(0, 1)), atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_stops_at_small_levels_only_when_nothing_is_left(rng, seed):
    """Few points on a fine grid: the level after the one where the sweep stops is next to it."""
    train, sigmas = rng.standard_normal((4, 2)), np.geomspace(0.01, 3, 150)
    largest, _ = oracles.posterior_weights(
        train, oracles.query_noise("posterior radius", 4, 1, 2, seed), sigmas)
    got = max_posterior_weight(train, sigmas, draws=1, seed=seed).max_posterior_weight.estimate
    np.testing.assert_allclose(got, largest.mean(axis=(0, 1)), atol=1e-6)


@pytest.mark.parametrize("dim", [3, 64, 3072])
@pytest.mark.parametrize("size", [50.0, 1e4])
def test_resolves_near_duplicates_far_from_the_origin(rng, dim, size):
    train = near_duplicates(rng, 20, dim, size) + 7.0
    sigmas = np.array([1e-4, 3e-4, 1e-3, 2e-3, 0.01, 1.0, 20.0])
    curves = geometry_curves(train, train[:2] + 0.5, sigmas=sigmas, posterior_draws=3, duplicates="keep")
    noise = oracles.query_noise("posterior radius", 20, 3, dim, seed=0)
    largest, _ = oracles.posterior_weights(train, noise, sigmas)
    np.testing.assert_allclose(curves.weight_per_point, largest.mean(axis=1), atol=1e-5)
    assert largest[:, :, 1].mean() > 0.9 > 0.6 > largest[:, :, 4].mean()  # the pairs merge within the levels


@pytest.mark.parametrize("sigma", [1e-3, 0.1])
def test_every_point_twice_halves_the_weight_exactly(rng, sigma):
    train = rng.standard_normal((60, 20)).astype(np.float32) * 10
    twice = max_posterior_weight(np.concatenate([train, train[::-1]]), sigma)
    assert twice.max_posterior_weight.estimate[0] == 0.5
    assert twice.self_posterior_weight.estimate[0] == 0.5


def test_copies_agree_with_the_oracle(rng):
    train = rng.standard_normal((20, 3))
    train = np.concatenate([train, train[:5], train[:2], np.zeros((1, 3)), -np.zeros((1, 3))])
    agrees(train)
    assert geometry_curves(train, train[:1], sigmas=2).duplicates == 8


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_two_points_against_numerical_integration(sigma):
    """With b ~ N(0, r^2): max w = 1/(1 + exp(-|r^2 u^2/2 + r u z|)), z standard normal."""
    s = 1.5 / sigma
    exact, _ = quad(lambda z: norm.pdf(z) / (1 + np.exp(-abs(s**2 / 2 + s * z))), -9, 9, points=[-s / 2])
    got = max_posterior_weight([[0.0, 0.0], [1.5, 0.0]], sigma, draws=4000).max_posterior_weight
    assert abs(got.estimate[0] - exact) < 4 * got.stderr[0]
    assert 1e-4 < got.stderr[0] < 0.01


def test_type_shape_and_order_do_not_matter(rng):
    train, levels = rng.standard_normal((30, 4, 3)).astype(np.float32), torch.tensor([0.3, 1.0], dtype=torch.float64)
    here = max_posterior_weight(train.reshape(30, 12), [1.0, 0.3, 1.0]).max_posterior_weight
    there = max_posterior_weight(torch.from_numpy(train), levels).max_posterior_weight
    np.testing.assert_array_equal(here.estimate, there.estimate)
    assert here.sigma.tolist() == levels.tolist()


def test_blocks_and_where_the_points_are_do_not_matter(rng, tmp_path, monkeypatch):
    train, heldout = rng.standard_normal((300, 8)).astype(np.float32), rng.standard_normal((200, 8)).astype(np.float32)
    train[7] = train[250]
    whole = geometry_curves(train, heldout, sigmas=7)
    monkeypatch.setattr(projections, "CENTRE_ENTRIES", 64 * 8)
    blocks = geometry_curves(train, heldout, sigmas=7)
    np.testing.assert_allclose(whole.weight_per_point, blocks.weight_per_point, atol=1e-6)
    np.testing.assert_array_equal(whole.coverage_per_point, blocks.coverage_per_point)
    np.save(tmp_path / "train.npy", train)
    same(blocks, geometry_curves(np.load(tmp_path / "train.npy", mmap_mode="r"), heldout, sigmas=7))


def smallest_memory(train, heldout):
    """The least that is not refused, within 1%, and the number of passes it leads to."""
    passes = []

    def counted(*arguments, of=sweep._passes):
        passes.append(of(*arguments))
        return passes[-1]

    def suffices(memory):
        try:
            geometry_curves(train, heldout, sigmas=7, memory=memory)
        except InputError:
            return False
        return True

    low, high = 2**20, 2**30
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "_passes", counted)
        while high > 1.01 * low:
            middle = int((low * high) ** 0.5)
            low, high = (low, middle) if suffices(middle) else (middle, high)
        assert suffices(high)
    return high, len(passes[-1][0])


def same(one, other):
    assert one.to_dict() == other.to_dict()
    np.testing.assert_array_equal(one.weight_per_point, other.weight_per_point)
    np.testing.assert_array_equal(one.coverage_per_point, other.coverage_per_point)


@pytest.mark.parametrize("centre_entries", [2**24, 700 * 8])
def test_no_result_depends_on_memory_or_threads(rng, monkeypatch, centre_entries):
    monkeypatch.setattr(projections, "CENTRE_ENTRIES", centre_entries)
    monkeypatch.setattr("geomem.geometry.sweep.search_bytes", lambda points: 0)  # which would be more than all passes
    train, heldout = rng.standard_normal((1000, 8)), rng.standard_normal((600, 8))
    train[700:] = train[:300]
    one = geometry_curves(train, heldout, sigmas=7)
    memory, passes = smallest_memory(train, heldout)
    assert passes == 3
    same(one, geometry_curves(train, heldout, sigmas=7, memory=memory))
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        same(one, geometry_curves(train, heldout, sigmas=7))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_way_for_gpus_gives_the_same(rng, monkeypatch, repeats):
    train, heldout = rng.standard_normal((300, 6)).repeat(repeats, axis=0), rng.standard_normal((200, 6))
    here = geometry_curves(train, heldout, sigmas=30)
    monkeypatch.setattr(workers, "may_look", lambda tensor: False)
    there = geometry_curves(train, heldout, sigmas=30)
    np.testing.assert_array_equal(here.coverage_per_point, there.coverage_per_point)
    np.testing.assert_allclose(here.weight_per_point, there.weight_per_point, rtol=2e-7)
    for name in ("coverage_lower_bound", "coverage_upper_bound", "coverage_plain_upper_bound"):
        np.testing.assert_allclose(getattr(here, name), getattr(there, name), rtol=1e-6, atol=1e-12)


def test_some_queries_stand_for_all(rng):
    """A choice of 100 of 400 points: within 4 standard errors of all, the same points each time, and never more
    than there are.
    """
    train, heldout = rng.standard_normal((400, 8)), rng.standard_normal((400, 8))
    whole = geometry_curves(train, heldout, sigmas=7)
    some = geometry_curves(train, heldout, sigmas=7, queries=100)
    assert some.max_posterior_weight.n_points == some.coverage.n_points == 100
    assert (some.n_train, some.n_heldout) == (400, 400)
    assert some.thresholds.disjoint_below is None
    for name in ("max_posterior_weight", "coverage"):
        part, full = getattr(some, name), getattr(whole, name)
        assert (abs(part.estimate - full.estimate) <= 4 * part.stderr + 1e-3).all()
        assert (part.estimate != full.estimate).any()
    same(some, geometry_curves(train, heldout, sigmas=7, queries=100))
    assert geometry_curves(train, heldout, sigmas=7, queries=400).to_dict()["curves"] == whole.to_dict()["curves"]


@pytest.mark.parametrize("copies", [0, 3])
def test_thresholds_agree_with_the_oracle(rng, copies):
    train = rng.standard_normal((40, 6))
    train = np.concatenate([train, train[:copies]])
    below, above, disjoint = oracles.thresholds(train, 0.8, 0.1, 5.0)
    got = concentration_thresholds(train, q=0.8, delta=0.1)
    np.testing.assert_allclose(got.concentrated_below, below, rtol=1e-6)
    np.testing.assert_allclose(got.spread_above, above, rtol=1e-6)
    if copies:
        assert got.disjoint_below == pytest.approx(concentration_thresholds(train[:40]).disjoint_below)
    else:
        assert got.disjoint_below == pytest.approx(disjoint, rel=1e-6)


def test_thresholds_hold(rng):
    """Below b r_2 the self weight is at least q, and above a r_{K+1} at most 1 - q, in 1 - delta of the cases."""
    train = rng.standard_normal((200, 30))
    got = concentration_thresholds(train, q=0.8, delta=0.1)
    noise = oracles.query_noise("posterior radius", 200, 1, 30, seed=0)
    for level, holds in ((got.concentrated_below, lambda w: w >= 0.8), (got.spread_above, lambda w: w <= 0.2)):
        weights = [oracles.posterior_weights(train, noise, [sigma])[1][k, 0, 0] for k, sigma in enumerate(level)
                   if k % 10 == 0]
        assert np.mean(holds(np.array(weights))) >= 0.9


def test_too_few_points_to_spread(rng):
    got = concentration_thresholds(rng.standard_normal((20, 3)))  # needs K > 19, there are 19 others
    assert np.isinf(got.spread_above).all()
    assert got.summary().spread_above is None
    assert np.isfinite(concentration_thresholds(rng.standard_normal((21, 3))).spread_above).all()
