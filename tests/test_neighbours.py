"""Neighbours against plain float64 loops, where float32 alone would be wrong and where points tie."""

import sys

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import binom

from geomem import InputError
from geomem.geometry import neighbours
from geomem.geometry.neighbours import approximate_nearest, distinct_points, nearest
from geomem.geometry.points import as_source


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


@pytest.fixture(params=["bytes", "faiss", "torch"])
def backend(request, monkeypatch):
    """The filter that is asked first."""
    if request.param == "bytes":
        if not neighbours._byte_products_are_exact():
            pytest.skip("this processor has no units for products of bytes")
        monkeypatch.setattr(neighbours, "_BYTES_PAY", 0)
    elif request.param == "torch":
        monkeypatch.setitem(sys.modules, "faiss", None)  # import faiss now fails
    return request.param


@pytest.fixture
def asked(monkeypatch):
    """Filters asked, each with the number of its queries and of those it left unproven."""
    calls, filtered = [], neighbours._filtered

    def counting(filter, queries, *args):
        result = filtered(filter, queries, *args)
        calls.append((type(filter).__name__, len(queries), int((~result[2]).sum())))
        return result

    monkeypatch.setattr(neighbours, "_filtered", counting)
    return calls


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("n", "dimension", "k"), [
    (300, 1, 3), (300, 7, 2), (300, 16, 3), (500, 64, 10), (40, 5, 40), (2, 3, 1)])
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


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e18, 1e30, 1e150])
def test_scales_beyond_float32_squares(scale):
    rng = np.random.default_rng(1)
    points, queries = scale * rng.standard_normal((100, 16)), scale * rng.standard_normal((20, 16))
    assert_same(nearest(queries, points, 3, device="cpu"), oracle(queries, points, 3))


def test_unsafe_queries_are_searched_directly_and_others_are_not(monkeypatch):
    direct = []
    search_all = neighbours._search_all
    monkeypatch.setattr(neighbours, "_search_all", lambda *args: direct.append(1) or search_all(*args))
    rng = np.random.default_rng(2)
    points = rng.standard_normal((1000, 32))
    nearest(points[:50] + 0.1, points, 2, device="cpu")
    assert not direct
    points[100:120] = points[0]  # more copies than the shortlist holds
    found = nearest(points[:1], points, 2, device="cpu")
    assert len(direct) == 1
    np.testing.assert_array_equal(found[1], [[0, 100]])


@pytest.mark.parametrize("value", [np.inf, np.nan, 0.0])
def test_a_useless_filter_changes_nothing(monkeypatch, value):
    class Useless(neighbours._TorchFilter):
        def search(self, prepared, size):
            return torch.full((len(prepared[0]), size), value), torch.zeros((len(prepared[0]), size), dtype=int)

    monkeypatch.setattr(neighbours, "_FaissFilter", Useless)
    points = np.random.default_rng(6).standard_normal((50, 4))
    assert_same(nearest(points[:9], points, 3, device="cpu"), oracle(points[:9], points, 3))


def test_a_filter_that_finds_nothing_changes_nothing(monkeypatch):
    class Blind(neighbours._TorchFilter):  # as faiss answers where all distances overflow
        def search(self, prepared, size):
            return torch.full((len(prepared[0]), size), 3.4e38), torch.full((len(prepared[0]), size), -1)

    monkeypatch.setattr(neighbours, "_FaissFilter", Blind)
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


@pytest.mark.usefixtures("backend")
def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(4)
    points, queries = rng.standard_normal((150, 18)), rng.standard_normal((33, 18))
    points[70:] = points[:80] + 1e-3 * rng.standard_normal((80, 18))
    whole, groups = nearest(queries, points, 12, device="cpu"), distinct_points(points, 0.01)
    assert_same(whole, oracle(queries, points, 12))
    for name, value in (("_BLOCK_VALUES", 80), ("_BLOCK_POINTS", 17), ("_BLOCK_QUERIES", 5), ("_CACHED_VALUES", 60),
                        ("_HELD_QUERIES", 100)):
        monkeypatch.setattr(neighbours, name, value)
        assert_same(nearest(queries, points, 12, device="cpu"), whole)
        np.testing.assert_array_equal(distinct_points(points, 0.01).group, groups.group)


def pictures(n, dimension, seed, levels=True):
    """Smooth random signals in [-1, 1]; with ``levels`` on the 256 levels of bytes, its ends among them."""
    values = np.cumsum(np.random.default_rng(seed).standard_normal((n, dimension)), axis=1) / np.sqrt(dimension)
    values = values.clip(-1, 1)
    values[0, :2] = -1, 1
    return (np.round((values + 1) * 127.5) / 127.5 - 1 if levels else values).astype(np.float32)


bytes_only = pytest.mark.skipif(not neighbours._byte_products_are_exact(), reason="no units for products of bytes")


@bytes_only
@pytest.mark.parametrize("dimension", [17, 33, 784])
@pytest.mark.parametrize("levels", [True, False])
def test_bytes_bound_what_they_claim(dimension, levels):
    points, queries = pictures(300, dimension, 0, levels), 1.2 * pictures(40, dimension, 1, levels=False)
    source = as_source("points", points)
    found = neighbours._ByteFilter(source)
    found.hold(points)
    prepared = found.prepare(queries)
    rough, place = found.search(prepared, 300)
    lower, upper = found.bounds(prepared, rough.double().numpy())
    true = np.take_along_axis(cdist(queries.astype(np.float64), points.astype(np.float64)) ** 2, place.numpy(), 1)
    assert (lower <= true).all()
    assert (true <= upper).all()
    assert (np.diff(lower) >= 0).all()
    inside = queries[:, None].clip(-1, 1) == queries[:, None]
    span = 2 * np.sqrt(dimension) / 255  # each of two points is moved by at most half a level in each value
    narrow = inside.all(axis=(1, 2))
    assert ((np.sqrt(upper) - np.sqrt(lower))[narrow] <= 2 * span).all()
    if levels:
        assert found.moved < 1e-4 * np.sqrt(dimension)


@bytes_only
def test_bytes_bound_what_float32_rounds():
    rng = np.random.default_rng(0)
    points, queries = 1e4 + 1e-2 * rng.standard_normal((300, 16)), 1e4 + 1e-2 * rng.standard_normal((40, 16))
    found = neighbours._ByteFilter(as_source("points", points))
    found.hold(points)
    prepared = found.prepare(queries)
    rough, place = found.search(prepared, 300)
    lower, upper = found.bounds(prepared, rough.double().numpy())
    true = np.take_along_axis(cdist(queries, points) ** 2, place.numpy(), 1)
    assert (lower <= true).all()
    assert (true <= upper).all()


@bytes_only
def test_bytes_prove_images_and_measure_few(monkeypatch, asked):
    monkeypatch.setattr(neighbours, "_BYTES_PAY", 0)
    measured, rank = [], neighbours._rank

    def counting(queries, points, candidates, possible, k):
        measured.append(possible.sum())
        return rank(queries, points, candidates, possible, k)

    monkeypatch.setattr(neighbours, "_rank", counting)
    points, queries = pictures(2000, 300, 0), pictures(200, 300, 1, levels=False)
    queries[:20] = points[:20] + np.float32(1e-4)
    assert_same(nearest(queries, points, 2, device="cpu"), oracle(queries, points, 2))
    (name, count, unproven), = asked
    assert (name, count, unproven) == ("_ByteFilter", 200, 0)
    assert sum(measured) < 10 * 200  # distances measured again, of the 42 in each shortlist


@bytes_only
def test_bytes_hand_on_what_they_cannot_prove(monkeypatch, asked):
    monkeypatch.setattr(neighbours, "_BYTES_PAY", 0)
    points, queries = pictures(500, 50, 0, levels=False), pictures(60, 50, 1, levels=False)
    # A cluster as wide as two levels: within reach of rounding there are more points than the shortlist holds.
    points[:200] = 0.5 + 0.015 * np.random.default_rng(0).standard_normal((200, 50))
    queries[7:9] = 0.5
    assert_same(nearest(queries, points, 2, device="cpu"), oracle(queries, points, 2))
    assert asked == [("_ByteFilter", 60, 2), ("_FaissFilter", 2, 0)]


@bytes_only
def test_byte_products_that_go_wrong_are_noticed(monkeypatch, asked):
    monkeypatch.setattr(neighbours, "_BYTES_PAY", 0)
    neighbours._byte_products_are_exact()  # while they are
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: torch.zeros(len(a), b.shape[1], dtype=torch.int32))
    points, queries = pictures(300, 20, 0), pictures(30, 20, 1)
    assert_same(nearest(queries, points, 2, device="cpu"), oracle(queries, points, 2))
    assert asked == [("_ByteFilter", 30, 30), ("_FaissFilter", 30, 0)]


@bytes_only
def test_bytes_where_an_outlier_sets_the_levels(monkeypatch, asked):
    monkeypatch.setattr(neighbours, "_BYTES_PAY", 0)
    points, queries = pictures(300, 20, 0, levels=False), pictures(30, 20, 1, levels=False)
    points[3, 4] = 1e6  # all others fall on one level
    assert_same(nearest(queries, points, 2, device="cpu"), oracle(queries, points, 2))
    assert asked[0] == ("_ByteFilter", 30, 30)


def test_bytes_are_not_asked_in_vain(asked):
    points = pictures(200, 20, 0)
    nearest(points[:9], points, 2, device="cpu")  # too few for it to pay
    assert [name for name, _, _ in asked] == ["_FaissFilter"]


class Store:
    """Points that can only be had a few rows at a time."""

    def __init__(self, array, most):
        self._array, self.shape, self.dtype, self._most = array, array.shape, array.dtype, most

    def __len__(self):
        return len(self._array)

    def __getitem__(self, index):
        rows = self._array[index]
        assert len(rows) <= self._most
        return rows


@pytest.mark.usefixtures("backend")
def test_stored_points_are_never_read_whole(monkeypatch):
    for name, value in (("_BLOCK_VALUES", 18 * 10), ("_HELD_QUERIES", 18 * 10)):
        monkeypatch.setattr(neighbours, name, value)
    monkeypatch.setattr("geomem.geometry.points._CHUNK_BYTES", 18 * 8 * 10)
    rng = np.random.default_rng(7)
    points, queries = rng.standard_normal((200, 18)), rng.standard_normal((50, 18))
    points[100:110] = points[:10]
    stored = Store(points, 40), Store(queries, 10)
    assert_same(nearest(stored[1], stored[0], 3, device="cpu"), oracle(queries, points, 3))
    for tolerance in (0.0, 0.3):
        np.testing.assert_array_equal(distinct_points(stored[0], tolerance).group,
                                      distinct_points(points, tolerance).group)


# Approximate


@pytest.mark.parametrize("index", ["ivf", "hnsw"])
def test_approximate_neighbours_are_real_and_never_nearer(index):
    points, queries = pictures(3000, 16, 0, levels=False), pictures(400, 16, 1, levels=False)
    true, _ = oracle(queries, points, 4)
    few = approximate_nearest(queries, points, 4, index=index, effort=1, checked=400)
    many = approximate_nearest(queries, points, 4, index=index, effort=200, checked=400)
    for found in (few, many):
        assert (found.distances >= true * (1 - 1e-12)).all()
        assert (np.diff(found.distances) >= 0).all()
        assert all(len(set(row)) == 4 for row in found.indices)
        direct = np.linalg.norm(queries[:, None].astype(np.float64) - points[found.indices], axis=2)
        np.testing.assert_allclose(found.distances, direct, rtol=1e-12)
        share = (found.distances <= true * (1 + 1e-9)).mean(axis=0)
        np.testing.assert_allclose(found.recall.share, share, rtol=1e-12)  # all queries were checked
    assert (few.recall.share < many.recall.share).all()
    assert many.recall.share.min() > 0.97
    again = approximate_nearest(queries, points, 4, index=index, effort=1, checked=400)
    np.testing.assert_array_equal(again.indices, few.indices)


def test_cells_that_hold_too_few_points():
    points = np.concatenate([np.zeros((400, 2)), [[100.0, 100.0], [101.0, 100.0], [100.0, 101.0]]])
    points[:400] += np.random.default_rng(0).standard_normal((400, 2))
    queries = points[-3:] + 0.1
    found = approximate_nearest(queries, points, 9, effort=1)
    assert_same((found.distances, found.indices), oracle(queries, points, 9))


def test_recall_interval():
    # Each end leaves 2.5% of a binomial distribution beyond the count that was seen.
    recall = neighbours._recall(np.array([0, 7, 93, 100]), 100)
    np.testing.assert_array_equal(recall.share, [0, 0.07, 0.93, 1])
    np.testing.assert_allclose(binom.sf(np.array([7, 93, 100]) - 1, 100, recall.low[1:]), 0.025, rtol=1e-9)
    np.testing.assert_allclose(binom.cdf(np.array([0, 7, 93]), 100, recall.high[:3]), 0.025, rtol=1e-9)
    assert (recall.low[0], recall.high[3]) == (0, 1)


def test_recall_is_measured_on_a_sample():
    points = pictures(3000, 16, 0, levels=False)
    one, other = (approximate_nearest(points[:500] + 0.01, points, 2, effort=1, checked=50, seed=s) for s in (0, 1))
    assert one.recall.checked == 50
    assert (one.recall.low < one.recall.share).all()
    assert not np.array_equal(one.distances, other.distances)  # another partition


@pytest.mark.parametrize(("options", "words"), [
    ({"index": "lsh"}, "lsh"), ({"effort": 0}, "effort = 0"), ({"checked": 0}, "checked = 0"), ({"k": 9}, "k = 9")])
def test_wrong_approximate_search(options, words):
    with pytest.raises(InputError, match=words):
        approximate_nearest(np.zeros((2, 3)), np.eye(5, 3), **{"k": 1} | options)


def test_approximate_search_without_faiss(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match="faiss-cpu"):
        approximate_nearest(np.zeros((2, 3)), np.eye(5, 3), 1)


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
    (np.full((2, 3), np.nan), np.zeros((4, 3)), 1, "queries has NaN"),
    (np.zeros((2, 3)), np.full((4, 3), np.inf), 1, "points has NaN"),
    (np.zeros((2, 3)), np.zeros((0, 3)), 1, "shape \\(0, 3\\)"),
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
