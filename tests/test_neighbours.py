"""Neighbours against plain float64 loops, where float32 alone would be wrong and where points tie."""

import sys

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from geomem import InputError
from geomem.geometry import neighbours
from geomem.geometry.neighbours import distinct_points, nearest


def oracle(queries, points, k):
    """All distances in float64; equal ones in the order of the points."""
    distances = cdist(np.asarray(queries, np.float64), np.asarray(points, np.float64))
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, 1), order


def assert_same(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-12, atol=0)
    np.testing.assert_array_equal(found[1], expected[1])
    assert found[0].dtype == np.float64
    assert found[1].dtype == np.int64


@pytest.fixture(params=["faiss", "torch"])
def backend(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setitem(sys.modules, "faiss", None)  # import faiss now fails


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("n", "dimension", "k"), [
    (300, 1, 3), (300, 7, 2), (500, 64, 10), (40, 5, 40), (2, 3, 1)])
def test_against_all_distances(n, dimension, k):
    rng = np.random.default_rng(n)
    points, queries = rng.standard_normal((n, dimension)), rng.standard_normal((70, dimension))
    assert_same(nearest(queries, points, k, device="cpu"), oracle(queries, points, k))


@pytest.mark.usefixtures("backend")
def test_near_duplicates_far_from_the_origin():
    # Points 1e-3 apart on data of norm 50: |q|^2 + |p|^2 - 2 q.p in float32 has an error of about 1e-4 here,
    # far above their squared distances of 1e-6, so a shortlist cut from it would be wrong.
    rng = np.random.default_rng(0)
    centre = rng.standard_normal(200)
    centre *= 50 / np.linalg.norm(centre)
    offsets = rng.standard_normal((400, 200))
    offsets *= 1e-3 * rng.uniform(0.5, 2, (400, 1)) / np.linalg.norm(offsets, axis=1, keepdims=True)
    points = np.concatenate([centre + offsets, -centre + offsets[:100]])
    queries = np.concatenate([centre + 0.1 * offsets[:30], points[:30]])
    assert_same(nearest(queries, points, 5, device="cpu"), oracle(queries, points, 5))


@pytest.mark.usefixtures("backend")
def test_ties_are_ordered_by_index_also_when_many():
    grid = np.stack(np.meshgrid(*[np.arange(5.0)] * 3), -1).reshape(-1, 3)
    points = np.concatenate([grid, grid])  # each query has up to 12 points at the same distance, and copies
    assert_same(nearest(grid, points, 9, device="cpu"), oracle(grid, points, 9))
    found = nearest(np.ones((1, 3)), np.zeros((50, 3)), 4, device="cpu")
    np.testing.assert_array_equal(found[1], [[0, 1, 2, 3]])


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scales_beyond_float32_squares(scale):
    rng = np.random.default_rng(1)
    points, queries = scale * rng.standard_normal((100, 6)), scale * rng.standard_normal((20, 6))
    assert_same(nearest(queries, points, 3, device="cpu"), oracle(queries, points, 3))


def test_unsafe_queries_are_searched_directly_and_others_are_not(monkeypatch):
    asked = []
    search_all = neighbours._search_all
    monkeypatch.setattr(neighbours, "_search_all", lambda *args: asked.append(1) or search_all(*args))
    rng = np.random.default_rng(2)
    points = rng.standard_normal((1000, 32))
    nearest(points[:50] + 0.1, points, 2, device="cpu")
    assert not asked
    points[100:120] = points[0]  # more copies than the shortlist holds
    found = nearest(points[:1], points, 2, device="cpu")
    assert len(asked) == 1
    np.testing.assert_array_equal(found[1], [[0, 100]])


@pytest.mark.parametrize("value", [np.inf, np.nan, 0.0])
def test_a_useless_fast_search_changes_nothing(monkeypatch, value):
    def search(queries):
        return np.full((len(queries), 11), value), np.zeros((len(queries), 11), int)  # k + 8 of them

    monkeypatch.setattr(neighbours, "_fast_search", lambda *_: (search, np.float32))
    points = np.random.default_rng(6).standard_normal((50, 4))
    assert_same(nearest(points[:9], points, 3, device="cpu"), oracle(points[:9], points, 3))


def test_the_bound_covers_the_error_it_bounds():
    # Squared distances by the float32 expansion, as a fast search may compute them, against float64.
    rng = np.random.default_rng(3)
    points, queries = rng.standard_normal((200, 3072)), rng.standard_normal((50, 3072))
    p, q = points.astype(np.float32), queries.astype(np.float32)
    approximate = (q**2).sum(1)[:, None] + (p**2).sum(1) - 2 * q @ p.T
    norms = np.linalg.norm(queries, axis=1) + np.linalg.norm(points, axis=1).max()
    bound = neighbours._squared_error(norms, 3072, np.float32)
    error = np.abs(approximate - cdist(queries, points) ** 2).max(axis=1)
    assert (error < bound).all()
    assert (bound < 0.25 * 2 * 3072).all()  # and is small beside a squared distance, or it would be useless


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(4)
    points, queries = rng.standard_normal((150, 9)), rng.standard_normal((33, 9))
    points[70:] = points[:80] + 1e-3 * rng.standard_normal((80, 9))
    whole, groups = nearest(queries, points, 12, device="cpu"), distinct_points(points, 0.01)
    monkeypatch.setattr(neighbours, "_BLOCK_VALUES", 40)
    assert_same(nearest(queries, points, 12, device="cpu"), whole)
    np.testing.assert_array_equal(distinct_points(points, 0.01).group, groups.group)
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert_same(nearest(queries, points, 12, device="cpu"), whole)


def test_shapes_and_types():
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
    expected = oracle(images[:7].reshape(7, -1), images.reshape(60, -1), 3)
    assert_same(nearest(images[:7], images, 3, device="cpu"), expected)
    tensors = torch.tensor(images[:7]).bfloat16(), torch.tensor(images).float()
    assert_same(nearest(*tensors, 3, device="cpu"), expected)


@pytest.mark.parametrize(("queries", "points", "k", "words"), [
    (np.zeros((2, 3)), np.zeros((4, 3)), 5, "k = 5"),
    (np.zeros((2, 3)), np.zeros((4, 3)), 0, "k = 0"),
    (np.zeros((2, 3)), np.zeros((4, 2)), 1, "3 values"),
    (np.full((2, 3), np.nan), np.zeros((4, 3)), 1, "queries holds NaN"),
    (np.zeros((2, 3)), np.full((4, 3), np.inf), 1, "points holds NaN"),
    (np.zeros((2, 3)), np.zeros((0, 3)), 1, "at least one point"),
])
def test_wrong_input(queries, points, k, words):
    with pytest.raises(InputError, match=words):
        nearest(queries, points, k)


def components(points, tolerance):
    """Lowest index of each point's connected component, by spreading labels until nothing changes."""
    close = (cdist(points, points) <= tolerance) | (points[:, None] == points[None]).all(-1)
    label = np.arange(len(points))
    while True:
        spread = np.where(close, label, len(points)).min(axis=1)
        if (spread == label).all():
            return label
        label = spread


@pytest.mark.parametrize("dimension", [1, 2, 30])
@pytest.mark.parametrize("tolerance", [0.0, 1e-3, 0.05, 100.0])
def test_distinct_points_are_connected_components(dimension, tolerance):
    rng = np.random.default_rng(dimension)
    points = rng.standard_normal((120, dimension)) + 50
    points = np.concatenate([points, points[:20], points[10:40] + 2e-4 / np.sqrt(dimension)])
    points = points[rng.permutation(len(points))]
    found, label = distinct_points(points, tolerance), components(points, tolerance)
    np.testing.assert_array_equal(found.index[found.group], label)
    np.testing.assert_array_equal(found.index, np.unique(label))
    assert found.merged == len(points) - len(found.index)


def test_distinct_points_at_the_tolerance_and_along_chains():
    line = np.array([[0.0], [1.0], [2.0], [4.0], [-0.0]])
    assert distinct_points(line, 1.0).group.tolist() == [0, 0, 0, 1, 0]
    assert distinct_points(line, 0.999).group.tolist() == [0, 1, 2, 3, 0]
    assert distinct_points(line, 0).merged == 1
    rng = np.random.default_rng(0)
    for _ in range(50):  # a distance is within itself, however the filter rounds
        points = 50 + rng.standard_normal((12, 3))
        tolerance = np.sqrt(((points[3] - points[8]) ** 2).sum())
        found = distinct_points(points, tolerance)
        assert found.group[3] == found.group[8]
    for tolerance in (-1, np.nan):
        with pytest.raises(InputError, match="tolerance"):
            distinct_points(line, tolerance)
