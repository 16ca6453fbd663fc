"""Leaning on the training points: the closed form against all subsets, its error against simulation, its direction."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binom

from geomem.errors import InputError
from geomem.memorization import leaning
from geomem.memorization.heldout import DistinctSets
from geomem.memorization.leaning import _chance_unseen, leaning_against

FIELDS = {"share", "stderr", "null_stderr", "low", "high", "p_value", "floor", "n", "m", "n_train", "n_heldout",
          "merged", "leaked", "tolerance", "seed", "space", "mirrored", "shifts", "brightness"}


def points(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def leaning_of(samples, train, heldout, **options):
    """Of points as they are, without a search for duplicates."""
    sets = DistinctSets(train, heldout, heldout, None, None, 0, 0, 0.0)
    return leaning_against(samples, sets, device="cpu", **options)


def share_by_all_subsets(sample, train, heldout):
    """The definition in loops: every pair of subsets of m points, ties one half."""
    m = min(len(train), len(heldout))
    near = [[min(np.linalg.norm(sample - a) for a in subset) for subset in combinations(part, m)]
            for part in (train, heldout)]
    return np.mean([(t < h) + (t == h) / 2 for t in near[0] for h in near[1]])


@pytest.mark.parametrize(("n_train", "n_heldout"), [(4, 4), (3, 7), (7, 3), (1, 5)])
@pytest.mark.parametrize("on_a_grid", [False, True])  # a grid has many ties
def test_share_is_the_mean_over_all_pairs_of_subsets(n_train, n_heldout, on_a_grid):
    samples, train, heldout = (points(seed, n, 2) for seed, n in ((1, 6), (2, n_train), (3, n_heldout)))
    if on_a_grid:
        samples, train, heldout = (part.round() for part in (samples, train, heldout))
    result = leaning_of(samples, train, heldout, relabelings=9)
    expected = [share_by_all_subsets(sample, train, heldout) for sample in samples]
    np.testing.assert_allclose(result.per_sample, expected, rtol=0, atol=1e-12)
    assert result.share == pytest.approx(np.mean(expected), abs=1e-12)


@pytest.mark.parametrize(("larger", "m"), [(10, 3), (50, 50), (1000, 20)])
def test_chance_unseen_is_hypergeometric(larger, m):
    from scipy.stats import hypergeom

    expected = [hypergeom(larger, j, m).pmf(0) for j in range(30) if j <= larger]
    np.testing.assert_allclose(_chance_unseen(larger, m, 29)[:len(expected)], expected, rtol=1e-9, atol=1e-300)


def test_training_and_held_out_points_do_not_swap():
    train, heldout = points(1, 60, 5), points(2, 90, 5)
    near_training = train[:40] + 0.05 * points(3, 40, 5)
    leans = leaning(near_training, train, heldout)
    assert leans.share > 0.99
    assert leans.p_value <= 0.01
    assert leans.low > 0.8
    assert leaning(near_training, heldout, train).share == pytest.approx(1 - leans.share, abs=0.02)


def test_copies_alone_have_a_share_of_one():
    train, heldout = points(1, 60, 64), points(2, 240, 64)
    result = leaning(train, train, heldout)
    assert (result.share, result.high, result.stderr) == (1, 1, 0)
    assert result.low > 0.9


def test_what_lies_beyond_the_neighbours_that_are_looked_at_is_neglected():
    """300 training points are nearer than any of the 100 others; none of the first 23 in a random 100 of them: 1e-4."""
    train, heldout = points(1, 300, 3), points(2, 100, 3) + 20
    result = leaning_of(train[:50], train, heldout, relabelings=9)
    assert 1 - 1e-4 <= result.share < 1


def test_samples_as_near_to_all_points_say_nothing():
    """So far away that all distances round to one."""
    result = leaning(np.full((5, 3), 1e30), points(1, 10, 3), points(2, 10, 3))
    assert (result.share, result.p_value) == (0.5, 1)


def test_record_and_floor():
    train, heldout, samples = points(1, 50, 1, 4, 4), points(2, 200, 1, 4, 4), points(3, 100, 1, 4, 4)
    result = leaning(samples.astype(np.float32), train, heldout, seed=3)
    assert set(result.to_dict()) == FIELDS
    assert (result.n, result.m, result.n_train, result.n_heldout, result.merged, result.leaked) == (
        100, 50, 50, 200, 0, 0)
    assert result.floor is not None
    assert (result.floor.n, result.floor.n_heldout, result.floor.floor) == (100, 100, None)
    assert result.to_dict() == leaning(samples.astype(np.float32), train, heldout, seed=3).to_dict()
    assert result.low < result.share < result.high


def test_duplicates_count_once_and_leaked_points_are_left_out():
    train, heldout, samples = points(1, 40, 3), points(2, 40, 3), points(3, 80, 3)
    plain = leaning(samples, train, heldout)
    doubled = leaning(samples, np.concatenate([train, train + 1e-9]), heldout, tolerance=1e-6)
    assert (doubled.n_train, doubled.merged) == (40, 40)
    assert doubled.share == plain.share
    leaky = leaning(samples, train, np.concatenate([heldout, train[:15] + 1e-9]), tolerance=1e-6)
    assert (leaky.n_heldout, leaky.leaked) == (40, 15)
    assert leaky.share == plain.share
    with pytest.raises(InputError, match=r"0 held-out points that selected nothing are left \(40 more are equal"):
        leaning(samples, train, train)


@pytest.mark.parametrize(("shapes", "message"), [
    (((5, 3), (20, 3), (20, 2)), "shapes"), (((5, 3), (9, 3), (20, 3)), "at least 10 of each"),
    (((5, 3), (20, 3), (9, 3)), "at least 10 of each")])
def test_bad_input_is_one_line(shapes, message):
    with pytest.raises(InputError, match=message):
        leaning(*(points(k, *shape) for k, shape in enumerate(shapes)))


def test_values_that_are_not_finite_are_refused():
    samples = points(1, 5, 3)
    samples[2, 1] = np.nan
    with pytest.raises(InputError, match="samples holds NaN"):
        leaning(samples, points(2, 20, 3), points(3, 20, 3))


def simulated(dimension, n_train, n_heldout, runs, n=200):
    """Of honest models: how many intervals hold 1/2, and how many tests at 5% fire."""
    holds = fires = 0
    for run in range(runs):
        samples, train, heldout = (points([dimension, n_train, run, k], size, dimension).astype(np.float32)
                                   for k, size in enumerate((n, n_train, n_heldout)))
        result = leaning_of(samples, train, heldout, relabelings=199, seed=run)
        holds += result.low <= 0.5 <= result.high
        fires += result.p_value <= 0.05
    return holds, fires


@pytest.mark.parametrize(("dimension", "n_train", "n_heldout"), [(2, 50, 50), (64, 50, 150), (64, 150, 50)])
def test_interval_and_test_of_honest_models(dimension, n_train, n_heldout):
    """The bounds are the 0.1% and 99.9% quantiles of the binomial laws at 95% and 5%."""
    runs = 120
    holds, fires = simulated(dimension, n_train, n_heldout, runs)
    assert binom(runs, 0.95).ppf(0.001) <= holds
    assert fires <= binom(runs, 0.05).ppf(0.999)


@pytest.mark.slow
@pytest.mark.parametrize("dimension", [2, 64, 3072])
@pytest.mark.parametrize(("n_train", "n_heldout"), [(50, 50), (50, 200), (200, 50), (200, 1000), (1000, 1000)])
def test_interval_and_test_of_a_thousand_honest_models(dimension, n_train, n_heldout):
    """Found in one run of each, in percent (standard errors 0.7 each): the interval holds 1/2, the test at 5% fires.

        training, held-out    d = 2        d = 64       d = 3072
        50, 50                95.3, 3.9    95.6, 5.0    95.5, 6.0
        50, 200               94.4, 5.1    94.7, 5.7    95.5, 5.4
        200, 50               94.9, 4.7    95.2, 4.5    95.5, 5.9
        200, 1000             95.5, 4.4    96.2, 4.4    95.5, 5.1
        1000, 1000            94.7, 5.0    95.1, 4.0    94.7, 5.5

    A cell alone: pytest -m slow "tests/test_leaning.py::NAME[200-1000-3072]", NAME that of this function.
    """
    runs = 1000
    holds, fires = simulated(dimension, n_train, n_heldout, runs)
    print(f"d = {dimension}, {n_train} training and {n_heldout} held-out points: interval holds 1/2 in "
          f"{holds / runs:.1%}, test at 5% fires in {fires / runs:.1%}")
    assert 0.93 <= holds / runs <= 0.97
    assert 0.03 <= fires / runs <= 0.07
