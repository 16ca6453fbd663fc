"""Neighbours against plain float64 loops, where float32 alone would be wrong and where points tie."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from test_points import Store

from geomem import InputError
from geomem import points as stored_points
from geomem.geometry import neighbours
from geomem.geometry.neighbours import approximate_nearest, nearest
from geomem.points import as_points, distinct_points


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


@pytest.fixture(params=[torch.bfloat16, torch.float32, torch.float64])
def precision(request, monkeypatch):
    """Of the products that are asked first."""
    if request.param == torch.bfloat16:
        coarse_first(monkeypatch)
    else:
        monkeypatch.setattr(neighbours, "product_precision", lambda device: request.param)
    return request.param


def coarse_first(monkeypatch):
    """As a large search is on a CPU with units for bfloat16."""
    assert neighbours._sums_in_float32()
    monkeypatch.setattr(neighbours, "_LARGE", 0)
    monkeypatch.setattr(neighbours, "_bfloat16_pays", lambda: True)


@pytest.fixture
def asked(monkeypatch):
    """(queries, points proposed for each, precision) of every search by products; queries of every direct one."""
    calls, proposed, search_all = [], neighbours._proposed, neighbours._search_all

    def products(queries, points, size, centre, precision, device):
        calls.append((len(queries), size, precision))
        return proposed(queries, points, size, centre, precision, device)

    monkeypatch.setattr(neighbours, "_proposed", products)
    monkeypatch.setattr(neighbours, "_search_all", lambda *args: calls.append(len(args[0])) or search_all(*args))
    return calls


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize(("n", "dimension", "k"), [
    (300, 1, 3), (300, 2, 3), (300, 7, 2), (300, 16, 3), (500, 64, 10), (40, 5, 40), (10, 5, 2), (11, 5, 2),
    (2, 3, 1)])
def test_against_all_distances(n, dimension, k):
    rng = np.random.default_rng(n)
    points, queries = rng.standard_normal((n, dimension)), rng.standard_normal((70, dimension))
    assert_same(nearest(queries, points, k, device="cpu"), oracle(queries, points, k))


def lattice(rng):
    points = rng.integers(-1, 2, (400, 6)).astype(float)  # 729 places: many points at equal distances, and copies
    return points, points[:60]


def copies(rng):
    points = rng.standard_normal((400, 24))
    points[100:160] = points[:60]
    return points, np.concatenate([points[:30], rng.standard_normal((30, 24))])


def near_copies(rng):
    points = rng.standard_normal((400, 24))
    points[100:400] = np.tile(points[:50], (6, 1)) + 1e-3 * rng.standard_normal((300, 24))
    return points, points[:60] + 1e-4 * rng.standard_normal((60, 24))


def far_away(rng):
    points = 1e4 + rng.standard_normal((400, 24))
    return points, 1e4 + rng.standard_normal((60, 24))


def farther_away(rng):
    points = np.array([1e9, -1e12, 3.0]) + rng.standard_normal((400, 3))
    return points, points[:60] + 0.01 * rng.standard_normal((60, 3))


def far_away_in_float32(rng):
    return tuple(rows.astype(np.float32) for rows in far_away(rng))


def one_far_point(rng):
    points = rng.standard_normal((400, 24))
    points[7] = 1e6
    return points, rng.standard_normal((60, 24))


def constant(rng):
    return np.full((100, 24), 1 / 3), np.concatenate([np.full((5, 24), 1 / 3), rng.standard_normal((5, 24))])


def two_types(rng):
    points = rng.standard_normal((400, 24)).astype(np.float32)
    return points, points[:60] + 1e-9 * rng.standard_normal((60, 24))


def low_rank(rng):
    mix = rng.standard_normal((3, 24))
    return rng.standard_normal((400, 3)) @ mix, rng.standard_normal((60, 3)) @ mix


def tight_clusters(rng):
    # Points 1e-3 apart on data of norm 50: |q|^2 + |x|^2 - 2 q.x in float32 has an error of about 1e-4 here,
    # far above their squared distances of 1e-6, so a shortlist cut from it would be wrong.
    centre = rng.standard_normal(200)
    centre *= 50 / np.linalg.norm(centre)
    offsets = rng.standard_normal((400, 200))
    offsets *= 1e-3 * rng.uniform(0.5, 2, (400, 1)) / np.linalg.norm(offsets, axis=1, keepdims=True)
    points = np.concatenate([centre + offsets, -centre + offsets[:100]])
    return points, np.concatenate([centre + 0.1 * offsets[:30], points[:30]])


DATA = [lattice, copies, near_copies, far_away, farther_away, far_away_in_float32, one_far_point, constant, two_types,
        low_rank, tight_clusters]


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize("data", DATA)
def test_data_that_are_hard_to_tell_apart(data):
    points, queries = data(np.random.default_rng(0))
    assert_same(nearest(queries, points, 3, device="cpu"), oracle(queries, points, 3))


def rounding(queries, points, precision, reach):
    """Errors (Q, N) of the squared distances by products, and their bounds (Q,) for points within ``reach``."""
    queries, points = as_points("queries", queries), as_points("points", points)
    centre = np.asarray(points).mean(axis=0)
    found = neighbours._proposed(queries, points, len(points), centre, precision, torch.device("cpu"))
    true = cdist(np.asarray(queries, np.longdouble), np.asarray(points, np.longdouble)) ** 2
    error = abs(found.rough - np.take_along_axis(true, found.places, 1))
    within = np.take_along_axis(true, found.places, 1) <= reach
    return np.where(within, error, 0), neighbours._rounding(found, np.full(len(queries), reach))


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("reach", [1.0, np.inf])
def test_rounding_is_within_its_bound(precision, data, reach):
    points, queries = data(np.random.default_rng(1))
    error, bound = rounding(queries, points, precision, reach)
    assert (error <= bound[:, None]).all()
    largest = ((np.linalg.norm(queries - points.mean(axis=0), axis=1)
                + np.linalg.norm(points - points.mean(axis=0), axis=1).max()) ** 2).max()
    assert bound.max() < 200 * torch.finfo(precision).eps * (largest + 1e-30)


def test_a_broken_bound_gives_wrong_answers(monkeypatch):
    # Two clusters 100 apart, and from within each all its points at about the same distance of 1.
    rng = np.random.default_rng(0)
    centre, offsets, moves = (rng.standard_normal((n, 200)) for n in (1, 100, 100))
    centre, offsets, moves = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (centre, offsets, moves))
    points, queries = np.concatenate([50 * centre + offsets, -50 * centre + offsets]), 50 * centre + 0.02 * moves
    monkeypatch.setattr(neighbours, "_EXTRA", 1)
    assert_same(nearest(queries, points, 1, device="cpu"), oracle(queries, points, 1))
    monkeypatch.setattr(neighbours, "_rounding", lambda proposed, reach: np.zeros(len(reach)))
    assert not np.array_equal(nearest(queries, points, 1, device="cpu")[1], oracle(queries, points, 1)[1])


def test_near_copies_that_float32_confuses(monkeypatch, asked):
    # 14 near-copies of each image, of which 11 are proposed: their distances are far below the errors of float32.
    rng = np.random.default_rng(3)
    points = np.repeat(rng.standard_normal((20, 300)), 14, axis=0) + 1e-4 * rng.standard_normal((280, 300))
    queries = points[::7] + 1e-4 * rng.standard_normal((40, 300))
    expected = oracle(queries, points, 3)
    single, among = (torch.tensor(rows, dtype=torch.float32) for rows in (queries, points))
    expanded = single.square().sum(1)[:, None] + among.square().sum(1) - 2 * single @ among.T
    alone = expanded.clamp(min=0).sqrt().min(1).values.double().numpy()
    assert abs(alone / expected[0][:, 0] - 1).max() > 0.2
    assert_same(nearest(queries, points, 3, device="cpu"), expected)
    assert asked == [(40, 11, torch.float32), (40, 44, torch.float64)]
    monkeypatch.setattr(neighbours, "_rounding", lambda proposed, reach: np.zeros(len(reach)))
    assert not np.array_equal(nearest(queries, points, 3, device="cpu")[1], expected[1])


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e18, 1e30, 1e150])
def test_scales_beyond_float32_squares(scale):
    rng = np.random.default_rng(1)
    points, queries = scale * rng.standard_normal((100, 16)), scale * rng.standard_normal((20, 16))
    assert_same(nearest(queries, points, 3, device="cpu"), oracle(queries, points, 3))


def test_longer_lists_for_unproven_queries_only(asked):
    rng = np.random.default_rng(2)
    points = rng.standard_normal((1000, 32))
    nearest(points[:50] + 0.1, points, 2, device="cpu")
    assert asked == [(50, 10, torch.float32)]
    for copied, further in ((30, []), (100, [(1, 160, torch.float64)]), (700, [(1, 160, torch.float64),
                                                                               (1, 640, torch.float64), 1])):
        asked.clear()
        points[100:100 + copied] = points[0]
        found = nearest(points[:50], points, 2, device="cpu")
        assert asked == [(50, 10, torch.float32), (1, 40, torch.float64), *further]
        np.testing.assert_array_equal(found[1][0], [0, 100])
        assert_same(found, oracle(points[:50], points, 2))


def test_float32_where_few_digits_tell_too_little(monkeypatch, asked):
    coarse_first(monkeypatch)
    monkeypatch.setattr(neighbours, "_BLOCK_QUERIES", 20)
    rng = np.random.default_rng(3)
    points = rng.standard_normal((1000, 32))
    queries = points[:50] + 0.1
    assert_same(nearest(queries, points, 2, device="cpu"), oracle(queries, points, 2))
    assert [call[:2] for call in asked[:2]] == [(20, 40), (30, 40)]
    assert {call[2] for call in asked[:2]} == {torch.bfloat16}
    asked.clear()
    queries, points = queries + 100 * (np.arange(50) % 2)[:, None], points + 100 * (np.arange(1000) % 2)[:, None]
    assert_same(nearest(queries, points, 2, device="cpu"), oracle(queries, points, 2))
    assert asked[:2] == [(20, 40, torch.bfloat16), (50, 10, torch.float32)]


@pytest.mark.parametrize("value", [np.nan, 0.0, -1.0])
def test_useless_products_change_nothing(monkeypatch, asked, value):
    proposed = neighbours._proposed
    monkeypatch.setattr(neighbours, "_proposed", lambda *args: replace(
        proposed(*args), rough=np.full((9, args[2]), value), places=np.zeros((9, args[2]), dtype=np.int64)))
    points = np.random.default_rng(6).standard_normal((50, 4))
    assert_same(nearest(points[:9], points, 3, device="cpu"), oracle(points[:9], points, 3))
    assert asked[-1] == 9


def test_products_that_torch_may_round_to_bfloat16():
    points, queries = near_copies(np.random.default_rng(0))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = nearest(queries, points, 3, device="cpu")
    finally:
        torch.set_float32_matmul_precision(before)
    assert_same(found, oracle(queries, points, 3))


@pytest.mark.usefixtures("precision")
def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(4)
    points, queries = rng.standard_normal((150, 18)), rng.standard_normal((33, 18))
    points[70:] = points[:80] + 1e-3 * rng.standard_normal((80, 18))
    whole, groups = nearest(queries, points, 12, device="cpu"), distinct_points(points, 0.01)
    assert_same(whole, oracle(queries, points, 12))
    for module, name, value in (
            (neighbours, "BLOCK_VALUES", 80), (stored_points, "BLOCK_VALUES", 80), (neighbours, "_BLOCK_POINTS", 17),
            (neighbours, "_BLOCK_QUERIES", 5), (neighbours, "_CACHED_VALUES", 60), (neighbours, "_HELD_VALUES", 100),
            (stored_points, "_SAMPLED_POINTS", 40)):
        monkeypatch.setattr(module, name, value)
        assert_same(nearest(queries, points, 12, device="cpu"), whole)
        np.testing.assert_array_equal(distinct_points(points, 0.01).group, groups.group)


def pictures(n, dimension, seed):
    """Smooth random signals in [-1, 1]: an eighth as many directions keep over 95% of their variance."""
    values = np.cumsum(np.random.default_rng(seed).standard_normal((n, dimension)), axis=1) / np.sqrt(dimension)
    return values.clip(-1, 1).astype(np.float32)


def test_a_point_left_out_at_the_same_distance_is_looked_for():
    def proven(points, places, rough, k):
        given = neighbours._Proposed(np.array([places]), np.array([rough]), np.zeros(1), 0.0, 1, torch.float64)
        among = as_points("points", np.array(points)[:, None])
        return neighbours._proven(as_points("queries", np.zeros((1, 1))), among, k, given)

    assert not proven([0.0, 1.0, 1.0], [0, 2], [0.0, 1.0], 2)[2]  # point 1 may be there, and comes before point 2
    _, index, sure = proven([2.0, 1.0, 1.0], [2, 1, 0], [0.9, 1.0, 3.0], 1)
    assert (index[0, 0], sure[0]) == (1, True)


@pytest.mark.usefixtures("precision")
def test_stored_points_are_never_read_whole(monkeypatch):
    for module, name in ((neighbours, "BLOCK_VALUES"), (stored_points, "BLOCK_VALUES"), (neighbours, "_HELD_VALUES")):
        monkeypatch.setattr(module, name, 18 * 10)
    monkeypatch.setattr("geomem.points.CHUNK_BYTES", 18 * 8 * 10)
    rng = np.random.default_rng(7)
    points, queries = rng.standard_normal((200, 18)), rng.standard_normal((50, 18))
    points[100:110] = points[:10]
    stored = Store(points), Store(queries)
    assert_same(nearest(stored[1], stored[0], 3, device="cpu"), oracle(queries, points, 3))
    for tolerance in (0.0, 0.3):
        np.testing.assert_array_equal(distinct_points(stored[0], tolerance).group,
                                      distinct_points(points, tolerance).group)
    assert stored[0].most <= 40
    assert stored[1].most <= 10


# Approximate


@pytest.mark.parametrize("index", ["ivf", "hnsw"])
def test_approximate_neighbours_are_real_and_never_nearer(index):
    points, queries = pictures(3000, 16, 0), pictures(400, 16, 1)
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


def test_recall_is_measured_on_a_sample():
    points = pictures(3000, 16, 0)
    one, other = (approximate_nearest(points[:500] + 0.01, points, 2, effort=1, checked=50, seed=s) for s in (0, 1))
    assert one.recall.checked == 50
    assert (one.recall.low < one.recall.share).all()
    assert not np.array_equal(one.distances, other.distances)  # another partition


@pytest.mark.parametrize(("options", "words"), [
    ({"index": "lsh"}, "lsh"), ({"effort": 0}, "effort = 0"), ({"checked": 0}, "checked = 0"), ({"k": 9}, "k = 9"),
    ({"index": "without faiss"}, "faiss-cpu")])
def test_wrong_approximate_search(options, words, monkeypatch):
    if words == "faiss-cpu":
        monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=words):
        approximate_nearest(np.zeros((2, 3)), np.eye(5, 3), **{"k": 1} | options)


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
