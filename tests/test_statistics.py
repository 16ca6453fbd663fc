"""Intervals and statistics over runs against scipy, closed forms, figures in print and simulated coverage."""

from itertools import product

import numpy as np
import pytest
import scipy.stats

from geomem import InputError
from geomem.statistics import (
    Z_95,
    clopper_pearson_interval,
    difference_over_seeds,
    mean_over_runs,
    paired_share_difference,
    pareto_front,
    pearson_correlation,
    share_stderr,
    wilson_interval,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_pearson_is_that_of_scipy_with_fishers_interval(rng):
    x = rng.standard_normal(45)
    y = 0.6 * x + rng.standard_normal(45)
    found = pearson_correlation(x, y.tolist())
    r = np.corrcoef(x, y)[0, 1]
    t = r * np.sqrt(43 / (1 - r**2))
    assert (found.r, found.p, found.n) == pytest.approx((r, 2 * scipy.stats.t.sf(abs(t), 43), 45))
    half = 1.959964 / np.sqrt(42)
    assert (found.low, found.high) == pytest.approx((np.tanh(np.arctanh(r) - half), np.tanh(np.arctanh(r) + half)))
    assert pearson_correlation(x, np.ones(45)).to_dict() == {"r": None, "p": None, "low": None, "high": None, "n": 45}


def test_mean_over_runs_by_its_formula():
    values, stderrs = [1.0, 2.0, 6.0], [0.1, 0.2, 0.2]
    found = mean_over_runs(values, stderrs)
    t = scipy.stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / 3**0.5
    assert (found.mean, found.low, found.high) == pytest.approx((3, 3 - t, 3 + t))
    assert (found.between, found.within, found.runs) == pytest.approx((np.std(values, ddof=1), 0.03**0.5, 3))
    # Runs that agree by chance are no more certain than their samples are.
    agreeing = mean_over_runs([0.0, 0.0, 0.0], [0.01] * 3)
    assert agreeing.high == pytest.approx(1.959964 * 0.01 / 3**0.5)
    alone = mean_over_runs([5.0], [0.5])
    assert (alone.between, alone.high) == (None, pytest.approx(5 + 1.959964 * 0.5))


@pytest.mark.parametrize("spread", [0, 1, 3])
@pytest.mark.parametrize("runs", [3, 5])
def test_interval_of_the_mean_covers_the_truth(rng, runs, spread):
    """Runs vary by ``spread`` times the noise of their samples. Of 2,000 intervals at 95%, all but 1 in 10^5 such
    counts are above 0.929.
    """
    values = spread * rng.standard_normal((2000, runs)) + rng.standard_normal((2000, runs))
    intervals = [mean_over_runs(row, np.ones(runs)) for row in values]
    assert 0.929 < np.mean([mean.low <= 0 <= mean.high for mean in intervals]) < 0.995


def test_difference_over_seeds_is_the_t_test_on_common_seeds(rng):
    luck = rng.standard_normal(6)
    first = {seed: 1 + luck[seed] for seed in range(6)}
    second = {seed: luck[seed] + 0.1 * rng.standard_normal() for seed in range(6)} | {99: 1e6}
    found = difference_over_seeds(first, second)
    expected = scipy.stats.ttest_rel([first[k] for k in range(6)], [second[k] for k in range(6)])
    interval = expected.confidence_interval(0.95)
    assert found.seeds == (0, 1, 2, 3, 4, 5)
    assert (found.p, found.low, found.high) == pytest.approx((expected.pvalue, interval.low, interval.high))
    assert found.low < 1 < found.high
    assert found.high - found.low < 0.5  # luck, common to both, is gone
    equal = difference_over_seeds({0: 1.0, 1: 2.0}, {0: 0.0, 1: 1.0})
    assert (equal.mean, equal.p) == (1, None)


@pytest.mark.parametrize("levels", [4, 1000])  # with ties and without
def test_pareto_front_by_definition(rng, levels):
    a, b = rng.integers(0, levels, (2, 40)) / levels
    expected = [i for i in range(40)
                if not any(a[j] <= a[i] and b[j] <= b[i] and (a[j] < a[i] or b[j] < b[i]) for j in range(40))]
    front = pareto_front(a, b)
    assert sorted(front) == expected
    assert (np.diff(a[front]) >= 0).all()
    assert (np.diff(b[front]) <= 0).all()
    assert pareto_front([], []).tolist() == []
    assert pareto_front([1, 1, 2, 1, 2, 2], [3, 3, 0, 4, 0, 3]).tolist() == [0, 1, 2, 4]  # equal ones beat neither


@pytest.mark.parametrize(("call", "words"), [
    (lambda: wilson_interval(3, 2), "no proportion"),
    (lambda: pearson_correlation([1, 2, 3], [1, 2, 3]), "4 points"),
    (lambda: pearson_correlation([1, 2, 3, 4], [1, 2, 3]), "4 points"),
    (lambda: pearson_correlation([1, 2, 3, np.nan], [1, 2, 3, 4]), "finite"),
    (lambda: mean_over_runs([], []), "for each run"),
    (lambda: mean_over_runs([1.0], [-1.0]), "none negative"),
    (lambda: difference_over_seeds({0: 1.0}, {0: 1.0, 1: 2.0}), "1 seed in common"),
    (lambda: pareto_front([1.0], [1.0, 2.0]), "two for each"),
    (lambda: paired_share_difference(np.ones(3), np.ones(4)), "one value per seed"),
    (lambda: paired_share_difference(np.ones((2, 2)), np.ones((2, 2))), "one value per seed"),
    (lambda: paired_share_difference([], []), "one value per seed"),
])
def test_wrong_input(call, words):
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.parametrize(("count", "n"), [(0, 1), (1, 1), (0, 40), (40, 40), (3, 17), (512, 1024), (1, 5000)])
def test_intervals_of_a_share_against_scipy(count, n):
    for method, limits, rtol in (("wilson", wilson_interval(count, n), 1e-12),
                                 ("exact", clopper_pearson_interval(count, n), 1e-8)):  # scipy searches for the latter
        expected = scipy.stats.binomtest(count, n).proportion_ci(confidence_level=0.95, method=method)
        np.testing.assert_allclose(limits, expected, rtol=rtol, atol=1e-15)
    low, high = wilson_interval(count, n)
    assert share_stderr(count, n) == pytest.approx(max(count / n - low, high - count / n) / Z_95)  # never 0


def pairs(both, lost, gained, neither):
    """The two rows of a 2 x 2 table."""
    counts = (both, lost, gained, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(("table", "low", "high"), [
    ((14, 0, 5, 22), 0.011, 0.226),  # Altman et al. 2000, Statistics with Confidence, p. 52
    ((1, 1, 7, 12), 0.026, 0.507),  # Bentur 2009 in Fagerland, Lydersen and Laake 2014
])
def test_newcombes_interval_in_print(table, low, high):
    found = paired_share_difference(*pairs(*table))
    assert (found.lost, found.gained, found.n) == (table[1], table[2], sum(table))
    assert found.difference == pytest.approx((table[2] - table[1]) / sum(table))
    assert (round(found.low, 3), round(found.high, 3)) == (low, high)
    back = paired_share_difference(*reversed(pairs(*table)))
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_newcombes_interval_from_its_definition():
    """Every table of 8 pairs and some of 40. scipy has Wilson's intervals, and numpy the correlation of the rows: the
    interval does not rest on the examples in print.
    """
    tables = [(a, b, c, 8 - a - b - c) for a, b, c in product(range(9), repeat=3) if a + b + c <= 8]
    for table in [*tables, (14, 3, 5, 18), (2, 17, 11, 10), (30, 1, 4, 5)]:
        rows, n = pairs(*table), sum(table)
        (p, l1, u1), (q, l2, u2) = (
            (row.mean(), *scipy.stats.binomtest(int(row.sum()), n).proportion_ci(0.95, method="wilson"))
            for row in rows)
        phi = 0.0
        if 0 < p < 1 and 0 < q < 1:
            spread = n**2 * np.sqrt(p * (1 - p) * q * (1 - q))  # root of the product of the margins
            phi = np.corrcoef(*rows)[0, 1]
            phi = max(phi - n / 2 / spread, 0) if phi > 0 else phi
        # |v - w|^2 = v^2 - 2 v w cos + w^2 of two sides with cosine phi between them
        turned, straight = np.array([phi, np.sqrt(max(0.0, 1 - phi**2))]), np.array([1, 0])
        low = q - p - np.linalg.norm((q - l2) * straight - (u1 - p) * turned)
        high = q - p + np.linalg.norm((u2 - q) * straight - (p - l1) * turned)
        found = paired_share_difference(*rows)
        assert (found.difference, found.low, found.high) == pytest.approx((q - p, low, high), abs=1e-9), table


def test_interval_has_a_width_where_no_pair_differs():
    for table in ((10, 0, 0, 0), (0, 0, 0, 10), (6, 0, 0, 4)):
        found = paired_share_difference(*pairs(*table))
        assert found.difference == 0
        assert -0.45 < found.low < -0.01
        assert found.high == pytest.approx(-found.low)
    lost = paired_share_difference(*pairs(0, 10, 0, 0))
    assert (lost.difference, lost.low) == (-1, -1)
    assert lost.high < -0.5


def test_interval_covers_as_often_as_it_says():
    """Exact coverage by every table of 12 pairs, over pairs of shares and correlations: 95% on average."""
    n, covered = 12, []
    tables = [(a, b, c, n - a - b - c) for a, b, c in product(range(n + 1), repeat=3) if a + b + c <= n]
    intervals = np.array([(found.low, found.high) for found in (paired_share_difference(*pairs(*t)) for t in tables)])
    for law in ([0.3, 0.2, 0.2, 0.3], [0.5, 0.25, 0.05, 0.2], [0.1, 0.4, 0.1, 0.4], [0.05, 0.6, 0.05, 0.3],
                [0.4, 0.1, 0.1, 0.4], [0.2, 0.3, 0.3, 0.2]):
        truth = law[2] - law[1]
        covered.append(scipy.stats.multinomial(n, law).pmf(tables)[
            (intervals[:, 0] <= truth) & (truth <= intervals[:, 1])].sum())
    assert min(covered) > 0.91
    assert np.mean(covered) > 0.94
