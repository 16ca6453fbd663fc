"""Near-copies without a ratio: the exact law of the counts, honest models, planted copies, direction."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binom, nhypergeom

from geomem.errors import InputError
from geomem.memorization import memorization_rate, near_copies
from geomem.memorization.near_copies import p_value_of


def points(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_p_values_are_those_of_all_orders():
    """Six samples and 11 held-out points in one dimension, against every order of their 17 distances."""
    train, heldout, samples = (points(seed, n, 1) for seed, n in ((1, 12), (2, 11), (3, 6)))
    result = near_copies(samples, train, heldout)
    places = {test.quantile: max(1, int(np.ceil(test.quantile * 11))) for test in result.tests}
    for test in result.tests:
        j = places[test.quantile]
        counts = [sorted(chosen)[j - 1] - (j - 1) for chosen in combinations(range(17), 11)]  # samples before the j-th
        assert test.p_value == pytest.approx(np.mean(np.array(counts) >= test.count), rel=1e-9)
        assert test.expected == pytest.approx(np.mean(counts), rel=1e-9)


def test_tiny_p_values_are_no_zero():
    """The first 40 of all distances are of samples: a product of shares."""
    assert p_value_of(40, 400, 1200, 1) == pytest.approx(np.prod([(400 - i) / (1600 - i) for i in range(40)]), abs=0)


@pytest.mark.parametrize("j", [1, 3, 7])
def test_p_values_are_negative_hypergeometric(j):
    counts = np.arange(12)
    np.testing.assert_allclose(p_value_of(counts, 30, 20, j), nhypergeom(50, 30, j).sf(counts - 1), rtol=1e-9)


def test_counts_and_distances_are_those_of_a_loop():
    train, heldout, samples = points(1, 30, 4), points(2, 50, 4), points(3, 40, 4)
    samples[:25] = train[:25] + 0.01 * points(4, 25, 4)
    result = near_copies(samples, train, heldout)
    near = [[min(np.linalg.norm(x.astype(float) - t) for t in train) for x in part] for part in (samples, heldout)]
    for test in result.tests:
        limit = sorted(near[1])[max(1, int(np.ceil(test.quantile * 50))) - 1]
        assert test.distance == pytest.approx(limit, rel=1e-5)
        assert test.count == sum(d < limit for d in near[0])
    best = min(result.tests, key=lambda test: test.p_value)
    assert (result.share, result.expected) == (best.count / result.n, best.expected / result.n)
    assert result.to_dict()["significant"] == (result.p_value <= 0.05)
    assert result.found[:25].all()
    assert result.nearest[:25].tolist() == list(range(25))
    assert set(result.to_dict()["samples"]) == set(np.flatnonzero(result.found))


@pytest.mark.slow
@pytest.mark.parametrize("dimension", [2, 64])
def test_honest_models_are_seldom_suspected(dimension):
    """Bonferroni keeps the level: 200 runs at 5%, at most the 99.9% quantile of the binomial law."""
    runs = 200
    fires = sum(near_copies(*(points([dimension, run, k], n, dimension) for k, n in enumerate((100, 60, 80)))).count > 0
                for run in range(runs))
    assert fires <= binom(runs, 0.05).ppf(0.999)


def planted(seed, share, kind, n=1000, size=200, dimension=64):
    """Honest samples, of which a share is a training point moved by half the usual nearest distance."""
    train, heldout, samples = points([seed, 1], size, dimension), points([seed, 2], 400, dimension), points(
        [seed, 3], n, dimension)
    rng = np.random.default_rng(seed)
    usual = np.median(np.sort(np.linalg.norm(train[:, None] - train[None], axis=2), axis=1)[:, 1])
    copies = int(share * n)
    origin, other = rng.integers(0, size, copies), rng.integers(0, size, copies)
    way = train[other] - train[origin] if kind == "blend" else points([seed, 4], copies, dimension)
    lengths = np.linalg.norm(way, axis=1, keepdims=True)
    samples[:copies] = train[origin] + way * np.divide(0.5 * usual, lengths, out=np.zeros_like(lengths),
                                                       where=lengths > 0)
    return samples, train, heldout, copies


@pytest.mark.parametrize("kind", ["blend", "noise"])
def test_power_for_one_in_twenty(kind):
    """At 1,000 samples, 5% near-copies that the ratio rule does not see are found in at least 9 of 10 runs."""
    found = 0
    for seed in range(10):
        samples, train, heldout, copies = planted(seed, 0.05, kind)
        assert memorization_rate(samples[:copies], train).rate < 0.05
        result = near_copies(samples, train, heldout)
        found += result.count > 0 and result.found[:copies].mean() > 0.9
    assert found >= 9


def test_direction_and_bad_input():
    train, heldout = points(1, 30, 3), points(2, 30, 3)
    samples = heldout[:20] + 1e-3 * points(3, 20, 3)
    assert near_copies(samples, heldout, train).count == 20
    assert near_copies(samples, train, heldout).count == 0
    with pytest.raises(InputError, match="0 held-out points"):
        near_copies(samples, train, train)
