"""The danger zone with equal and near-equal points merged, against float64 loops over the groups."""

import numpy as np
import pytest

from geomem.geometry import find_danger_zone, geometry_curves
from geomem.geometry.curves import Curves
from geomem.geometry.refine import refined_curves
from geomem.noise.danger_zone import danger_zone
from geomem.rng import generator

RNG = np.random.default_rng(3)
TRAIN, HELDOUT = RNG.standard_normal((30, 4)), RNG.standard_normal((20, 4))
SIGMAS = [0.1, 0.3, 0.6, 1.0, 3.0]
ARRAYS = ("max_posterior_weight", "self_posterior_weight", "coverage")


def noise_of(n, draws, dim, seed):
    """As ``projections`` draws it for training points: R V / |V|."""
    groups = max(1, min(n, 256 // draws))
    radius = np.sqrt(generator(seed, "posterior radius").chisquare(dim, size=(n, draws)))
    noise = np.empty((n, draws, dim))
    for k, j in np.ndindex(n, draws):
        vector = generator(seed, "geometry noise", (k % groups) * draws + j).standard_normal(dim)
        noise[k, j] = radius[k, j] * vector / np.linalg.norm(vector)
    return noise


def test_weights_of_groups_against_a_loop_over_all_copies():
    """Groups of 1, 2, 3 and 5 equal points: the weight of a group is the sum over its members."""
    size = np.ones(30, dtype=int)
    size[[4, 11, 20]] = 2, 3, 5
    train = np.concatenate([TRAIN, *([TRAIN[k]] * (size[k] - 1) for k in (4, 11, 20))])
    group = np.concatenate([np.arange(30), *([k] * (size[k] - 1) for k in (4, 11, 20))]).astype(int)
    curves = geometry_curves(train, HELDOUT, sigmas=SIGMAS, posterior_draws=3, seed=2)
    noise, largest, own = noise_of(30, 3, 4, 2), np.zeros(5), np.zeros(5)
    for k, j, level in np.ndindex(30, 3, 5):
        query = TRAIN[k] + SIGMAS[level] * noise[k, j]
        weight = np.exp(-((query - train) ** 2).sum(axis=1) / (2 * SIGMAS[level] ** 2))
        weight = np.bincount(group, weights=weight) / weight.sum()
        largest[level] += weight.max() / 90
        own[level] += weight[k] / 90
    np.testing.assert_allclose(curves.max_posterior_weight.estimate, largest, rtol=2e-5)
    np.testing.assert_allclose(curves.self_posterior_weight.estimate, own, rtol=2e-5)
    assert (curves.merged, curves.n_train, curves.duplicates) == ((7, 0), 37, 7)


@pytest.mark.parametrize("apart", [0, 1e-6])
def test_every_point_doubled_is_every_point_once(apart):
    """The noise of a distinct point does not depend on its copies, so not even the Monte Carlo noise differs."""
    once = geometry_curves(TRAIN, HELDOUT, sigmas=12)
    doubled = geometry_curves(np.concatenate([TRAIN, TRAIN + apart]), np.concatenate([HELDOUT, HELDOUT + apart]),
                              sigmas=12)
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(doubled, name).estimate, getattr(once, name).estimate, rtol=1e-5)
        np.testing.assert_allclose(getattr(doubled, name).stderr, getattr(once, name).stderr, rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(doubled.coverage_upper_bound, once.coverage_upper_bound, rtol=1e-5)
    assert doubled.thresholds.concentrated_below["mean"] == pytest.approx(once.thresholds.concentrated_below["mean"])
    assert doubled.merged == (30, 20)


@pytest.mark.parametrize("apart", [0, 1e-6])
def test_held_out_points_that_are_training_points_have_no_part_in_c(apart):
    """The curves are those of the other held-out points alone, and the file says how many were left out."""
    leaky = np.concatenate([HELDOUT[:8], TRAIN[:5] + apart, HELDOUT[8:], TRAIN[5:6] + apart])
    report, without = danger_zone(TRAIN, leaky, sigmas=8), danger_zone(TRAIN, HELDOUT, sigmas=8)
    curves = report.curves
    np.testing.assert_array_equal(curves.coverage.estimate, without.curves.coverage.estimate)
    np.testing.assert_array_equal(curves.coverage_upper_bound, without.curves.coverage_upper_bound)
    assert curves.heldout_nearest_distance == without.curves.heldout_nearest_distance
    assert (curves.leaked, curves.n_heldout, curves.merged, without.curves.leaked) == (6, 26, (0, 0), 0)
    assert any(note.startswith("6 held-out points") for note in report.notes)
    read = Curves.from_dict(curves.to_dict())
    assert (read.leaked, read.coverage.n_points) == (6, 20)
    kept = geometry_curves(TRAIN, leaky, sigmas=[0.01], duplicates="keep")
    assert kept.leaked == 0
    assert kept.coverage.estimate[0] > 0.1 > geometry_curves(TRAIN, leaky, sigmas=[0.01]).coverage.estimate[0]


def test_where_all_held_out_points_are_training_points_they_stay():
    curves = geometry_curves(TRAIN, TRAIN[:10], sigmas=[0.01])
    assert curves.leaked == 0
    assert curves.coverage.estimate[0] > 0.9
    assert [note.startswith("all held-out points are") for note in danger_zone(TRAIN, TRAIN[:10], sigmas=4).notes
            ].count(True) == 1


def test_training_and_held_out_points_of_other_shapes_may_leak():
    curves = geometry_curves(TRAIN, np.concatenate([HELDOUT, TRAIN[:3]]).reshape(-1, 2, 2), sigmas=[0.1])
    assert curves.leaked == 3


def test_without_duplicates_nothing_differs():
    merged, kept = (geometry_curves(TRAIN, HELDOUT, sigmas=12, duplicates=way) for way in ("merge", "keep"))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(merged, name).estimate, getattr(kept, name).estimate)
        np.testing.assert_array_equal(getattr(merged, name).stderr, getattr(kept, name).stderr)
    assert merged.thresholds == kept.thresholds


def test_kept_copies_halve_the_weight_as_published():
    kept = geometry_curves(np.concatenate([TRAIN, TRAIN]), HELDOUT, sigmas=[0.01], duplicates="keep")
    assert kept.max_posterior_weight.estimate[0] == 0.5
    assert (kept.merged, kept.duplicates) == ((0, 0), 30)


def test_a_file_and_refinement_know_what_was_merged():
    doubled = np.concatenate([TRAIN, TRAIN]), np.concatenate([HELDOUT, HELDOUT])
    curves = geometry_curves(*doubled, sigmas=12)
    read = Curves.from_dict(curves.to_dict())
    assert read.merged == curves.merged
    assert read.max_posterior_weight.n_points == curves.max_posterior_weight.n_points == 30
    finer = find_danger_zone(refined_curves(*doubled, curves, threshold=0.5), 0.5)
    once = find_danger_zone(refined_curves(TRAIN, HELDOUT, geometry_curves(TRAIN, HELDOUT, sigmas=12), threshold=0.5),
                            0.5)
    assert finer.crossing == pytest.approx(once.crossing, rel=1e-4)
