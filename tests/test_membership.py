"""Membership: the area and its variance from their definitions, denoisers that tell all and nothing, thresholds."""

import numpy as np
import pytest
import torch
from scipy.stats import binom, mannwhitneyu

from geomem.errors import InputError
from geomem.memorization import membership
from geomem.memorization.membership import true_positives
from geomem.models import EmpiricalDenoiser, GaussianDenoiser
from geomem.statistics import area_under_curve


def points(seed, n, *shape):
    return np.random.default_rng(seed).standard_normal((n, *shape)).astype(np.float32)


def test_area_and_delongs_variance_from_all_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 12, 17) + 2, rng.integers(0, 12, 23)  # with ties
    wins = np.array([[(x > y) + (x == y) / 2 for y in b] for x in a])
    found = area_under_curve(a, b)
    assert found.value == pytest.approx(wins.mean())
    assert found.value == pytest.approx(mannwhitneyu(a, b).statistic / (17 * 23))
    variance = wins.mean(axis=1).var(ddof=1) / 17 + wins.mean(axis=0).var(ddof=1) / 23
    assert found.stderr == pytest.approx(variance**0.5)
    turned = area_under_curve(b, a)
    assert (turned.value, turned.low, turned.high) == pytest.approx((1 - found.value, 1 - found.high, 1 - found.low))


def test_an_area_of_one_has_an_interval():
    found = area_under_curve(np.arange(10, 30), np.arange(-20, 0))
    assert found.value == found.high == 1
    assert 0.8 < found.low < 0.95


def test_interval_holds_the_area_of_two_normal_laws():
    """P(a > b) = Phi(1 / sqrt 2) for means one apart: 200 runs, at least the 0.1% quantile of 95%."""
    rng, runs, area = np.random.default_rng(1), 200, 0.7602499389065233
    found = [area_under_curve(rng.standard_normal(40) + 1, rng.standard_normal(60)) for _ in range(runs)]
    assert sum(one.low <= area <= one.high for one in found) >= binom(runs, 0.95).ppf(0.001)


def test_a_denoiser_that_knows_the_training_points_is_told_at_once():
    train, heldout = points(1, 120, 2, 3), points(2, 150, 2, 3)
    found = membership(EmpiricalDenoiser(torch.from_numpy(train)), train, heldout, [0.05, 0.3, 30.0])
    assert {(attack.sigma, attack.statistic) for attack in found.attacks if attack.area.value > 0.99} == {
        (sigma, statistic) for sigma in (0.05, 0.3) for statistic in ("loss", "calibrated")}
    assert found.p_value < 1e-20
    assert found.strongest.sigma < 1
    assert found.strongest.true_positives[0].rate > 0.98
    assert found.strongest.true_positives[1].rate is None
    assert found.to_dict()["strongest"]["area"] == found.strongest.area.value


def test_a_denoiser_that_never_saw_the_points_tells_nothing():
    denoiser = GaussianDenoiser(torch.from_numpy(points(3, 500, 6)))
    fires = 0
    for run in range(20):
        found = membership(denoiser, points([4, run], 60, 6), points([5, run], 60, 6), [0.1, 0.5, 2.0], draws=1)
        fires += found.p_value < 0.05
    assert fires <= binom(20, 0.05).ppf(0.999)
    assert all(attack.area.low <= 0.5 <= attack.area.high for attack in membership(
        denoiser, points(6, 300, 6), points(7, 300, 6), [0.1, 0.5, 2.0]).attacks)


def test_true_positives_at_a_threshold():
    others = np.arange(1000.0)
    assert true_positives(np.array([990.0, 989.0, 995.0, 2000.0]), others, 0.01).rate == 0.75  # above 989: ten others
    assert true_positives(np.array([998.5, 999.0, 998.0]), others, 0.001).rate == pytest.approx(2 / 3)
    assert true_positives(others, np.arange(99.0), 0.01).rate is None


def test_leaked_points_are_no_held_out_points():
    train = points(1, 30, 4)
    heldout = np.concatenate([points(2, 20, 4), train[:9]])
    found = membership(GaussianDenoiser(torch.from_numpy(train)), train, heldout, [1.0])
    assert (found.n_train, found.n_heldout) == (30, 20)
    with pytest.raises(InputError, match="at least 10"):
        membership(GaussianDenoiser(torch.from_numpy(train)), train, train, [1.0])
