"""Equal and near-equal points: the tolerance, the groups, and a split that keeps each group on one side."""

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist

from geomem import load_data
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
    asked = np.unique(np.linspace(0, len(points) - 1, 1000).astype(int))
    tenth = np.sort(cdist(points[asked], points), axis=1)[:, min(10, len(points) - 1)]
    doubled = np.concatenate([points, points])  # a copy is no neighbour
    for given in (points, doubled):
        assert default_tolerance(given) == pytest.approx(1e-3 * np.median(tenth), rel=1e-9)
        assert tolerance_of_the_rule(given) == pytest.approx(1e-3 * np.median(tenth), rel=1e-9)


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
