"""Equal and near-equal points: the tolerance, the groups, and a split that keeps each group on one side."""

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist

from geomem import load_data, memorization_rate
from geomem.duplicates import default_tolerance, near_groups, nearest_distances
from geomem.memorization.ratio import default_tolerance as tolerance_of_the_rule
from geomem.points import as_points, distinct_points
from geomem.rng import random_order


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def rows(points):
    return {row.tobytes() for row in np.asarray(points)}


@pytest.mark.parametrize("shape", [(2, 3), (9, 3), (300, 4), (2500, 2)])
def test_tolerance_is_that_of_the_ratio_rule_and_of_a_direct_computation(shape):
    points = noise(*shape) + 20
    asked = np.unique(np.linspace(0, len(points) - 1, 256).astype(int))
    tenth = np.sort(cdist(points[asked], points), axis=1)[:, min(10, len(points) - 1)]
    doubled = np.concatenate([points, points])  # a copy is no neighbour
    for given in (points, doubled):
        assert default_tolerance(given) == pytest.approx(1e-3 * np.median(tenth), rel=1e-9)
        assert tolerance_of_the_rule(given) == pytest.approx(1e-3 * np.median(tenth), rel=1e-9)


def jittered(centres, copies, jitter, seed=3):
    points = np.repeat(centres, copies, axis=0)
    return points + np.float32(jitter) * noise(*points.shape, seed=seed)


@pytest.mark.parametrize(("n", "copies"), [(10, 20), (40, 12), (15, 100)])
@pytest.mark.parametrize("jitter", [1e-6, 1e-4])
def test_near_copies_that_are_more_than_ten_are_no_neighbours(n, copies, jitter):
    centres = noise(n, 16)
    points = jittered(centres, copies, jitter)
    tenth = np.sort(cdist(centres, centres), axis=1)[:, min(10, n - 1)]
    assert default_tolerance(points) == pytest.approx(1e-3 * np.median(tenth), rel=2e-3)
    assert tolerance_of_the_rule(points) == pytest.approx(default_tolerance(points), rel=1e-9)
    np.testing.assert_array_equal(near_groups(points).group, np.repeat(np.arange(n), copies))


def test_copies_of_points_with_many_near_copies_are_memorized():
    centres = noise(10, 16)
    train = jittered(centres, 20, 1e-6)
    samples = np.concatenate([centres + np.float32(1e-3), noise(30, 16, seed=5)])
    found = memorization_rate(samples, train)
    assert found.merged == 190
    np.testing.assert_array_equal(np.flatnonzero(found.memorized), np.arange(10))


@pytest.mark.parametrize("points", [
    noise(3000, 1),  # every pair is joined by a chain of near ones
    np.cumsum(np.abs(noise(3000, 1)).astype(np.float64) ** 3, axis=0),  # gaps of all sizes
    np.sort(noise(1000, 1), axis=0) * noise(1, 5, seed=1),
    noise(400, 1).astype(np.float64) ** 9 * noise(1, 3, seed=1),
    np.concatenate([np.linspace(0, [0.5] * 4, 600), 50 * noise(500, 4)]),  # a chain among others far apart
    np.concatenate([noise(300, 4), 1e6 * noise(3, 4, seed=1)]),  # outliers
    jittered(noise(10, 4), 30, 0.02),  # classes, one hundredth as wide as they are far apart
    jittered(noise(100, 8), 5, 1e-6),  # near-copies, but fewer than ten
    jittered(noise(2, 4), 50, 1e-5),  # two narrow modes
])
def test_without_many_near_copies_the_tolerance_is_that_of_the_tenth_nearest(points):
    tenth = nearest_distances(points, as_points("points", points), 11)[:, 10]
    asked = np.unique(np.linspace(0, len(points) - 1, 256).astype(int))
    assert default_tolerance(points) == 1e-3 * np.median(tenth[asked])


def test_distances_far_smaller_than_the_points_are_measured_directly():
    """Twelve points about each of 30 centres 10^5 times as far: products would lose five digits."""
    points = (np.repeat(100 * noise(30, 4, seed=1), 12, axis=0) + 1e-3 * noise(360, 4, seed=2)).astype(np.float32)
    found = nearest_distances(points, as_points("points", points), 11)
    np.testing.assert_allclose(found, np.sort(cdist(points, points), axis=1)[:, :11], rtol=1e-9)


@pytest.mark.parametrize("n", [50, 5000])
def test_groups_are_those_within_the_tolerance_however_many_points(n):
    """A pair between the tolerance and the bound that few points give is none."""
    points = noise(n, 2)
    points[1] = points[0] + np.float32(0.9) * np.array([tolerance_of_the_rule(points), 0], dtype=np.float32)
    points[3] = points[2] + np.float32(1.2) * np.array([tolerance_of_the_rule(points), 0], dtype=np.float32)
    groups = near_groups(points).group
    assert groups[0] == groups[1]
    assert groups[2] != groups[3]
    np.testing.assert_array_equal(groups, distinct_points(points, tolerance_of_the_rule(points)).group)


def test_a_split_without_duplicates_is_the_seeded_order():
    points, order = noise(50, 3), random_order(50, 4, "split")
    data = load_data(points, seed=4)
    np.testing.assert_array_equal(data.train, points[np.sort(order[10:])])
    np.testing.assert_array_equal(data.heldout, points[order[:10]])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("apart", [0, 1e-5])
def test_doubled_points_stay_together(seed, apart):
    once = noise(30, 3)
    data = load_data(np.concatenate([once, once + np.float32(apart)]), seed=seed)
    assert (len(data.train), len(data.heldout)) == (48, 12)
    assert cdist(data.train, data.heldout).min() > 1e-3
    assert "30 that equal or nearly equal another are on its side" in data.notes[-1]


def test_a_chain_stays_together():
    """Each of the five is within the tolerance of the next, the first and the last are not."""
    points = noise(40, 3)
    points[:5] = points[0] + np.arange(5)[:, None] * np.float32(0.5 * tolerance_of_the_rule(points))
    for seed in range(8):
        held = rows(load_data(points, seed=seed).heldout)
        assert len(held & rows(points[:5])) in (0, 5)


def test_groups_larger_than_the_held_out_part():
    """Three pairs of six points: one of them is held out. Points that are all equal are split as if they were not."""
    data = load_data(np.repeat(noise(3, 2), 2, axis=0))
    assert (len(data.train), len(data.heldout)) == (4, 2)
    assert not rows(data.train) & rows(data.heldout)
    alike = load_data(np.ones((10, 2), dtype=np.float32))
    assert (len(alike.train), len(alike.heldout)) == (8, 2)


def test_doubled_pictures_of_a_folder_stay_together_however_few_are_taken(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    for k, picture in enumerate(pictures):
        for copy in range(2):
            Image.fromarray(picture).save(tmp_path / f"{k:02}-{copy}.png")
    whole, few = load_data(tmp_path), load_data(tmp_path, n_train=20)
    assert (len(whole.train), len(whole.heldout)) == (32, 8)
    assert not rows(whole.train) & rows(whole.heldout)
    np.testing.assert_array_equal(few.train, whole.train[:20])
    np.testing.assert_array_equal(few.heldout, whole.heldout)
