"""Frechet distance against closed forms, scipy's matrix square root and simulation."""

import json

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from scipy.stats import norm

from geomem import InputError
from geomem.quality import frechet_distance, quality_report
from geomem.quality.frechet import frechet_change, frechet_with_stderr
from geomem.rng import generator


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def standardized(rng, n, dimension):
    """Points with mean exactly 0 and covariance exactly I, to rounding."""
    x = rng.standard_normal((n, dimension))
    x -= x.mean(axis=0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T


def by_definition(a, b):
    s_a, s_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(s_a @ s_b)
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s_a + s_b - 2 * np.real(root))


def test_diagonal_gaussians(rng):
    # Commuting covariances: |mu_a - mu_b|^2 + sum (sd_a - sd_b)^2, exactly, since the moments match exactly.
    sd_a, sd_b, shift = rng.uniform(0.5, 2, (3, 12))
    a = standardized(rng, 200, 12) * sd_a
    b = standardized(rng, 90, 12) * sd_b + shift
    assert frechet_distance(a, b) == pytest.approx((shift**2).sum() + ((sd_a - sd_b) ** 2).sum(), rel=1e-10)


@pytest.mark.parametrize(("n", "m", "dimension", "rel"), [
    (200, 150, 10, 1e-8), (60, 300, 25, 1e-8), (40, 40, 30, 1e-8),
    (10, 15, 40, 1e-5), (10, 200, 40, 1e-5), (200, 10, 40, 1e-5)])  # sqrtm of a singular matrix keeps half the digits
def test_against_scipy(rng, n, m, dimension, rel):
    mix = rng.standard_normal((dimension, dimension))
    a, b = rng.standard_normal((n, dimension)) @ mix, rng.standard_normal((m, dimension)) + 0.3
    assert frechet_distance(a, b) == pytest.approx(by_definition(a, b), rel=rel)
    padded = [np.pad(x, ((0, 0), (0, 500))) for x in (a, b)]  # dimensions without any variance change nothing
    assert frechet_distance(*padded) == pytest.approx(frechet_distance(a, b), rel=1e-10)


def test_invariances(rng):
    a, b = rng.standard_normal((80, 2, 3)), 1.5 * rng.standard_normal((50, 2, 3))
    value = frechet_distance(a, b)
    assert frechet_distance(b, a) == pytest.approx(value, rel=1e-10)
    assert frechet_distance(a + 1000, b + 1000) == pytest.approx(value, rel=1e-8)
    assert frechet_distance(3 * a, 3 * b) == pytest.approx(9 * value, rel=1e-10)  # the squared form
    assert frechet_distance(torch.tensor(a), torch.tensor(b)) == value
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    assert frechet_distance(a.reshape(80, 6) @ rotation, b.reshape(50, 6) @ rotation) == pytest.approx(value)
    assert frechet_distance(a, a[::-1]) == pytest.approx(0, abs=1e-12)
    # A model that always gives one image: the whole variance of the other set, and the shift.
    assert frechet_distance(np.full((20, 5), 2.0), standardized(rng, 100, 5)) == pytest.approx(5 * 4 + 5)


@pytest.mark.parametrize(("n", "dimension"), [(100, 8), (30, 50)])
def test_stderr_is_the_spread_over_fresh_samples(rng, n, dimension):
    # 60 repetitions know a standard deviation to 1 / sqrt(2 x 59) = 9%. In n < d the derivative sees only the
    # directions that the samples span; measured on Gaussians it stays within about a third.
    b = rng.standard_normal((200, dimension))
    draws = [frechet_with_stderr(1.4 * rng.standard_normal((n, dimension)) + 0.2, b) for _ in range(60)]
    values, stderrs = np.transpose(draws)
    assert 0.6 < stderrs.mean() / values.std(ddof=1) < 1.6


def test_stderr_against_the_jackknife(rng):
    n = 300
    a, b = rng.standard_normal((n, 4)) * np.linspace(0.5, 2, 4), rng.standard_normal((200, 4)) + 1
    left_out = np.array([frechet_distance(np.delete(a, i, 0), b) for i in range(n)])
    jackknife = np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())
    assert frechet_with_stderr(a, b)[1] == pytest.approx(jackknife, rel=0.02)  # equal to order 1 / n


def test_change_against_the_jackknife_of_pairs(rng):
    n = 300
    before, b = rng.standard_normal((n, 4)) * np.linspace(0.5, 2, 4), rng.standard_normal((200, 4)) + 1
    after = 1.3 * before + 0.2 * rng.standard_normal((n, 4))
    change, stderr = frechet_change(before, after, b)
    assert change == frechet_distance(after, b) - frechet_distance(before, b)
    left_out = np.array([frechet_distance(np.delete(after, i, 0), b) - frechet_distance(np.delete(before, i, 0), b)
                         for i in range(n)])
    assert stderr == pytest.approx(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()), rel=0.02)
    assert stderr < 0.6 * np.hypot(frechet_with_stderr(before, b)[1], frechet_with_stderr(after, b)[1])
    assert frechet_change(before, before, b) == (0, 0)
    shuffled = frechet_change(before, rng.permutation(after), b)  # other pairs: what was common no longer cancels
    assert shuffled[0] == pytest.approx(change)
    assert shuffled[1] > 1.5 * stderr


def test_report(rng):
    train, heldout = rng.standard_normal((60, 1, 4, 4)), rng.standard_normal((401, 1, 4, 4))
    good, copies = rng.standard_normal((100, 1, 4, 4)), train[rng.integers(60, size=100)]
    report, copied = (quality_report(samples, train, heldout) for samples in (good, copies))
    assert report.frechet_low < report.frechet < report.frechet_high
    assert 0.8 < report.frechet_floor / report.frechet_at_floor_size < 1.25  # good samples reach the floor
    assert report.nearest_samples == pytest.approx(report.nearest_heldout, rel=0.1)
    assert (report.frechet_train_n, report.n_samples, report.n_train, report.n_heldout) == (60, 100, 60, 401)
    assert copied.nearest_samples == 0
    assert copied.frechet_train == pytest.approx(frechet_distance(train, heldout))
    assert quality_report(good, train, heldout) == report
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.parametrize("heldout_n", [50, 97])
def test_report_by_definition(rng, heldout_n):
    """Samples so near the held-out points that the interval would end below 0, and far ones."""
    train, heldout = rng.standard_normal((150, 1)), rng.standard_normal((heldout_n, 1))
    order, few, known = (generator(3, purpose).permutation(n) for purpose, n in (
        ("floor", heldout_n), ("samples at the size of the floor", 40), ("training points", 150)))
    size = min(40, heldout_n // 2)
    part, rest = heldout[order[:size]], heldout[order[size:]]
    for shift in (0.05, 3.05):
        samples = heldout[:40] + shift
        report = quality_report(samples, train, heldout, seed=3)
        value, stderr = frechet_with_stderr(samples, heldout)
        half = norm.ppf(0.975) * stderr
        assert (report.frechet_low == 0) == (shift < 1)
        assert (report.frechet, report.frechet_low, report.frechet_high) == pytest.approx(
            (value, max(0, value - half), value + half))
        assert (report.floor_n, report.frechet_train_n, report.seed) == ((size, heldout_n - size), 40, 3)
        assert (report.frechet_floor, report.frechet_at_floor_size, report.frechet_train) == pytest.approx(
            (frechet_distance(part, rest), frechet_distance(samples[few[:size]], rest),
             frechet_distance(train[known[:40]], heldout)))
        assert (report.nearest_samples, report.nearest_heldout) == pytest.approx(
            tuple(np.median(cdist(points, train).min(axis=1)) for points in (samples, heldout)), rel=1e-6)


@pytest.mark.parametrize(("call", "words"), [
    (lambda zeros: frechet_distance(zeros((5, 3)), zeros((5, 4))), "must agree"),
    (lambda zeros: frechet_distance(zeros((1, 3)), zeros((5, 3))), "at least 2 points"),
    (lambda zeros: frechet_distance(np.full((5, 3), np.nan), zeros((5, 3))), "a holds NaN"),
    (lambda zeros: frechet_change(zeros((5, 3)), zeros((6, 3)), zeros((5, 3))), "5 samples before and 6 after"),
    (lambda zeros: quality_report(zeros((5, 4)), zeros((5, 2, 2)), zeros((5, 4))), "differ in shape"),
    (lambda zeros: quality_report(zeros((5, 4)), zeros((5, 4)), zeros((3, 4))), "at least 4"),
])
def test_wrong_input(call, words):
    with pytest.raises(InputError, match=words):
        call(np.zeros)
