"""Lemma A.1 and Cor. A.2: truth against the model denoiser, bounds where they are attained and by Monte Carlo."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from geomem import InputError
from geomem.models import EmpiricalDenoiser
from geomem.rng import generator
from geomem.theory import denoiser_near_point, flow, flow_cosine

SIGMAS = np.array([0.05, 0.2, 0.5, 1.0, 3.0])


@pytest.fixture
def rng():
    return np.random.default_rng(40)


def noise_of(purpose, n, draws, dim, seed):
    return np.stack([generator(seed, purpose, k).standard_normal((draws, dim)) for k in range(n)])


def test_truth_is_that_of_the_empirical_denoiser(rng):
    """float32 output of the model: 1e-6 of points of size about 3."""
    train = rng.standard_normal((30, 6)) + 1
    train[7] = train[3]
    got = denoiser_near_point(train, SIGMAS, draws=3, seed=2)
    noise = noise_of("lemma A.1 noise", 30, 3, 6, 2)
    model = EmpiricalDenoiser(torch.from_numpy(train))
    for level, sigma in enumerate(SIGMAS):
        x = torch.from_numpy(train[:, None] + sigma * noise)
        clean = model(x.flatten(0, 1), float(np.float32(sigma))).reshape(x.shape).double().numpy()
        distance = np.linalg.norm(clean - train[:, None], axis=2).mean()
        assert got.distance[level] == pytest.approx(distance, rel=1e-4, abs=2e-6)
        logits = -((x.numpy()[:, :, None] - train) ** 2).sum(axis=3) / (2 * sigma**2)
        weights = np.exp(logits - logits.max(axis=2, keepdims=True))
        own = (weights / weights.sum(axis=2, keepdims=True))[np.arange(30), :, np.arange(30)]
        assert got.weight[level] == pytest.approx(own.mean(), rel=1e-9)


def test_flow_field_is_that_of_the_empirical_denoiser(rng):
    train = rng.standard_normal((20, 5)) + 1
    times = np.array([0.2, 0.5, 0.8])
    got = flow_cosine(train, times, draws=3, seed=1)
    noise = noise_of("flow noise", 20, 3, 5, 1)
    model = EmpiricalDenoiser(torch.from_numpy(train))
    for level, t in enumerate(times):
        x_t = t * train[:, None] + (1 - t) * noise
        clean = model(torch.from_numpy(x_t / t).flatten(0, 1), (1 - t) / t).reshape(x_t.shape).double().numpy()
        optimal, conditional = (clean - x_t) / (1 - t), train[:, None] - noise
        cosine = (optimal * conditional).sum(axis=2)
        cosine /= np.linalg.norm(optimal, axis=2) * np.linalg.norm(conditional, axis=2)
        assert got.cosine[level] == pytest.approx(cosine.mean(), abs=1e-5)
    np.testing.assert_allclose(got.sigma, (1 - times) / times)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("delta", [0.05, 0.5])
def test_bounds_hold_as_often_as_promised(seed, delta):
    """For each level: the draws of one point are independent, and so are points' noises; 4 binomial errors."""
    rng = np.random.default_rng(seed)
    train = np.concatenate([rng.standard_normal((30, 40)), 4 + 0.4 * rng.standard_normal((10, 40))])
    near = denoiser_near_point(train, SIGMAS, delta=delta, draws=20, seed=seed)
    cosine = flow_cosine(train, 1 / (1 + SIGMAS), delta=delta, draws=20, seed=seed)
    cells = 40 * 20
    for record in (near, cosine):
        assert record.probability == pytest.approx(1 - delta)
        p = record.probability
        assert np.all(record.held >= p - 4 * np.sqrt(p * (1 - p) / cells))
        assert record.informative.max() > 0.9
        assert record.informative.min() < 0.8


@pytest.mark.parametrize("eta", [0.3, 1.0, 2.0])
def test_lemma_is_attained(eta):
    """N - 1 copies of one other point: there ``b_i`` are one normal number, and w_1 and ``|m - x_1|`` are at their
    bounds exactly where it is ``-eta r_2``, so both hold with probability Phi(eta), no more. 4 binomial errors.
    """
    train = np.zeros((13, 3))
    train[1:] = [2.0, 1.0, 2.0]  # r_2 = 3
    sigmas = np.array([0.9, 1.4])  # below r_2/eta = 1.5 for the largest eta
    draws = 4000
    got = denoiser_near_point(train, sigmas, eta=eta, draws=draws)
    p = norm.cdf(eta)
    assert got.held_per_point[0] == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / draws))
    odds = 12 * np.exp(-9 / (2 * sigmas**2) + eta * 3 / sigmas)
    np.testing.assert_allclose(got.weight_bound_per_point[0], 1 / (1 + odds))
    np.testing.assert_allclose(got.distance_bound_per_point[0], 3 * odds / (1 + odds))
    assert (got.weight_bound_per_point[1:] == 0).all()  # copies: r_2 = 0
    assert got.probability == pytest.approx(max(0, 1 - 12 * norm.cdf(-eta)))
    assert got.informative == pytest.approx(1 / 13)


def test_vacuous_bounds_say_so(rng):
    train = rng.standard_normal((20, 4))
    got = denoiser_near_point(train, [100.0])
    assert got.informative == got.weight_bound == 0
    farthest = np.linalg.norm(train[:, None] - train, axis=2).max(axis=1)
    np.testing.assert_allclose(got.distance_bound_per_point[:, 0], farthest)
    assert got.held == 1
    cosine = flow_cosine(train, [0.01])
    assert (cosine.bound, cosine.informative, cosine.held) == (-1, 0, 1)


def test_distance_bound_keeps_its_digits_where_the_weight_is_1():
    """Two points: ``|m - x_1|`` equals ``(1 - w_1) r``; at 1e-60 the bound is neither 0 nor below the truth."""
    got = denoiser_near_point(np.array([[0.0], [1.0]]), [0.06], delta=1e-3, draws=50)
    assert 0 < got.distance < got.distance_bound < 1e-30
    assert got.held == 1


def test_cosine_bound_is_the_worst_error_of_that_length(rng):
    """Over random errors e with |e| = kappa the smallest cosine of v and v + e; 1e-3 from the sampling in 2-D."""
    angle = np.linspace(0, 2 * np.pi, 20_000)
    for length, kappa in [(3.0, 1.0), (2.0, 1.9)]:
        moved = np.stack([length + kappa * np.cos(angle), kappa * np.sin(angle)])
        worst = (moved[0] / np.linalg.norm(moved, axis=0)).min()
        assert float(flow.cosine_bound(kappa, length**2)) == pytest.approx(worst, abs=1e-3)
    assert flow.cosine_bound(np.array([2.0, 1.0]), np.array([4.0, -1.0])).tolist() == [-1, -1]


@pytest.mark.parametrize(("length", "dim", "c_1", "c_2"),
                         [(100.0, 4, 1.0, 8.0), (0.0, 200, 8.0, 1.0), (0.0, 200, 8.0, 3.0), (5.0, 30, 1.5, 2.0)])
def test_length_bound_holds_as_often_as_promised(rng, length, dim, c_1, c_2):
    x = np.zeros(dim)
    x[0] = length
    squared = ((x - rng.standard_normal((40_000, dim))) ** 2).sum(axis=1)
    failed = np.mean(squared < flow.squared_length_bound(length, dim, c_1, c_2))
    allowed = norm.sf(c_1) + np.exp(-c_2)
    assert failed <= allowed + 4 * np.sqrt(allowed / 40_000)
    if length == 100:  # one normal number decides: the bound is attained
        assert failed == pytest.approx(norm.sf(c_1), abs=0.02)
    elif c_2 == 1:
        assert failed > 0.05


def test_points_are_a_random_choice(rng):
    train = rng.standard_normal((50, 3))
    got, whole = denoiser_near_point(train, [0.3], points=10, seed=1), denoiser_near_point(train, [0.3], seed=1)
    assert len(np.unique(got.index)) == 10
    assert not np.array_equal(got.index, np.arange(10))
    np.testing.assert_array_equal(got.held_per_point, whole.held_per_point[got.index])
    np.testing.assert_array_equal(got.weight_bound_per_point, whole.weight_bound_per_point[got.index])


def test_memory_pieces_do_not_matter(rng, monkeypatch):
    train = rng.standard_normal((50, 3))
    whole = denoiser_near_point(train, SIGMAS, draws=2)
    monkeypatch.setattr(flow, "ENTRIES", 60)
    pieces = denoiser_near_point(train, SIGMAS, draws=2)
    np.testing.assert_allclose(pieces.distance, whole.distance, rtol=1e-12)
    np.testing.assert_allclose(pieces.weight, whole.weight, rtol=1e-12)


@pytest.mark.parametrize(("call", "what"), [
    (lambda x: denoiser_near_point(x[:1], [1.0]), "train"), (lambda x: denoiser_near_point(x, [0.0]), "sigmas"),
    (lambda x: denoiser_near_point(x, [1.0], delta=0), "delta"),
    (lambda x: denoiser_near_point(x, [1.0], eta=0), "eta"),
    (lambda x: denoiser_near_point(x, [1.0], points=0), "points"),
    (lambda x: denoiser_near_point(x, [1.0], draws=0), "draws"),
    (lambda x: flow_cosine(x, [0.0, 0.5]), "times"), (lambda x: flow_cosine(x, []), "times"),
    (lambda x: flow_cosine(x, ["a"]), "times"), (lambda x: flow_cosine(x, [0.5], delta=1.5), "delta")])
def test_wrong_input_is_one_line(rng, call, what):
    with pytest.raises(InputError, match=what):
        call(rng.standard_normal((5, 2)))
