"""Neighbours against plain float64 loops, where float32 alone would be wrong and where points tie."""

import sys

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from test_points import Store

from geomem import InputError
from geomem import points as stored_points
from geomem.geometry import filters, neighbours
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


@pytest.fixture(params=["faiss", "torch", "projected, faiss", "projected, torch"])
def backend(request, monkeypatch):
    """The filter that is asked first, and what multiplies. The projected one is asked wherever it can be."""
    if "projected" in request.param:
        monkeypatch.setattr(filters, "_projection_pays", lambda *sizes: True)
        monkeypatch.setattr(filters, "_KEPT_VARIANCE", 0.0)
        monkeypatch.setattr(filters, "_VALUES_PER_DIRECTION", 1)
        monkeypatch.setattr(filters.Projected, "extra", 8)
    if "torch" in request.param:
        monkeypatch.setitem(sys.modules, "faiss", None)  # import faiss now fails
    return request.param


@pytest.fixture
def asked(monkeypatch):
    """Filters asked, each with the number of its queries and of those it left unproven."""
    calls, filtered = [], neighbours._filtered

    def counting(filter, queries, *args):
        result = filtered(filter, queries, *args)
        calls.append((type(filter).__name__, queries.shape[0], int((~result[2]).sum())))
        return result

    monkeypatch.setattr(neighbours, "_filtered", counting)
    return calls


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("n", "dimension", "k"), [
    (300, 1, 3), (300, 2, 3), (300, 7, 2), (300, 16, 3), (500, 64, 10), (40, 5, 40), (2, 3, 1)])
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


DATA = [lattice, copies, near_copies, far_away, low_rank, tight_clusters]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("directions", [1, 4, 255])
def test_data_that_are_hard_to_tell_apart(monkeypatch, data, directions):
    monkeypatch.setattr(filters, "_DIRECTIONS", directions)
    points, queries = data(np.random.default_rng(0))
    assert_same(nearest(queries, points, 3, device="cpu"), oracle(queries, points, 3))


class Float32Products(filters.TorchProducts):
    """The expansion in float32, all of whose errors faiss may make, though it does not always."""

    precision = np.float32


@pytest.mark.parametrize("backend", ["faiss", "projected, faiss"], indirect=True)
def test_a_broken_bound_gives_wrong_answers(monkeypatch, backend):
    # Two clusters 100 apart, and from within each all its points at about the same distance of 1.
    rng = np.random.default_rng(0)
    centre, offsets, moves = (rng.standard_normal((n, 200)) for n in (1, 100, 100))
    centre, offsets, moves = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (centre, offsets, moves))
    points, queries = np.concatenate([50 * centre + offsets, -50 * centre + offsets]), 50 * centre + 0.02 * moves
    monkeypatch.setattr(neighbours, "_FaissProducts", Float32Products)
    monkeypatch.setattr(filters.Whole, "extra", 1)
    monkeypatch.setattr(filters.Projected, "extra", 1)
    assert_same(nearest(queries, points, 1, device="cpu"), oracle(queries, points, 1))
    lower = filters.Whole.lower
    for sign in (0, -1):  # no rounding is allowed for; the upper bound is taken for the lower one
        monkeypatch.setattr(filters.Whole, "lower", lambda self, norms, rough, sign=sign:
                            rough + sign * (lower(self, norms, rough) - rough))
        assert not np.array_equal(nearest(queries, points, 1, device="cpu")[1], oracle(queries, points, 1)[1])


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


@pytest.mark.parametrize(("value", "place"), [(np.inf, 0), (np.nan, 0), (0.0, 0), (3.4e38, -1)])
def test_useless_products_change_nothing(monkeypatch, value, place):
    class Useless(filters.TorchProducts):
        def smallest(self, queries, size):  # with place -1 as faiss answers where all distances overflow
            return torch.full((len(queries), size), value), torch.full((len(queries), size), place)

    monkeypatch.setattr(neighbours, "_FaissProducts", Useless)
    points = np.random.default_rng(6).standard_normal((50, 4))
    assert_same(nearest(points[:9], points, 3, device="cpu"), oracle(points[:9], points, 3))


@pytest.mark.usefixtures("backend")
def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(4)
    points, queries = rng.standard_normal((150, 18)), rng.standard_normal((33, 18))
    points[70:] = points[:80] + 1e-3 * rng.standard_normal((80, 18))
    whole, groups = nearest(queries, points, 12, device="cpu"), distinct_points(points, 0.01)
    assert_same(whole, oracle(queries, points, 12))
    for module, name, value in (
            (neighbours, "BLOCK_VALUES", 80), (stored_points, "BLOCK_VALUES", 80), (neighbours, "_BLOCK_POINTS", 17),
            (neighbours, "_BLOCK_QUERIES", 5),
            (neighbours, "CACHED_VALUES", 60), (filters, "CACHED_VALUES", 60), (neighbours, "_HELD_VALUES", 100),
            (stored_points, "_SAMPLED_POINTS", 40)):
        monkeypatch.setattr(module, name, value)
        assert_same(nearest(queries, points, 12, device="cpu"), whole)
        np.testing.assert_array_equal(distinct_points(points, 0.01).group, groups.group)


def pictures(n, dimension, seed):
    """Smooth random signals in [-1, 1]: an eighth as many directions keep over 95% of their variance."""
    values = np.cumsum(np.random.default_rng(seed).standard_normal((n, dimension)), axis=1) / np.sqrt(dimension)
    return values.clip(-1, 1).astype(np.float32)


def projected(points, basis, products):
    found = filters.Projected(points.mean(axis=0), basis, products(len(basis) + 1, torch.device("cpu")))
    found.hold(points)
    return found


def lower_bounds(filter, queries, n):
    """Of the squared distances to all n points, in their order, (Q, n)."""
    coordinates, norms = filter.prepare(queries)
    rough, place = filter.products.smallest(coordinates, n)
    lower = np.empty((len(queries), n))
    np.put_along_axis(lower, place.numpy(), filter.lower(norms, rough.double().numpy()), 1)
    return lower


PRODUCTS = [filters.TorchProducts, neighbours._FaissProducts]


@pytest.mark.parametrize("products", PRODUCTS)
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("count", [1, 3, 1000])
def test_projection_bounds_from_below(data, count, products):
    rng = np.random.default_rng(1)
    points, queries = data(rng)
    basis = np.linalg.qr(rng.standard_normal((points.shape[1], min(count, points.shape[1]))))[0].T
    true = cdist(queries, points) ** 2
    lower = lower_bounds(projected(points, basis, products), queries, len(points))
    assert (lower <= true).all()
    if count == 1000:  # all directions: then the bound is the distance but for the rounding that is allowed for
        scale = 4 * np.linalg.norm(points - points.mean(0), axis=1).max() ** 2
        assert (lower > true - 1e-3 * scale).all()


@pytest.mark.parametrize("products", PRODUCTS)
def test_projection_bounds_with_directions_that_are_not_orthonormal(products):
    points, queries = low_rank(np.random.default_rng(0))
    basis = np.linalg.svd(points, full_matrices=False)[2][:3]
    found = projected(points, 1.001 * basis, products)  # lengthens all differences by 0.1%
    true = cdist(queries, points) ** 2
    assert (lower_bounds(found, queries, len(points)) <= true).all()
    found.slack = 0.0  # then it does not bound them
    assert (lower_bounds(found, queries, len(points)) > true).any()
    assert projected(points, 1.1 * basis, products).slack == np.inf


def test_a_point_left_out_at_the_same_distance_is_looked_for():
    points, queries = as_points("points", np.array([[0.0], [1.0], [1.0]])), np.zeros((1, 1))
    *_, proven = neighbours._proven(queries, points, np.array([[0, 2]]), np.array([[0.0, 1.0]]), 2)
    assert not proven[0]  # point 1 may be there, and comes before point 2
    points = as_points("points", np.array([[2.0], [1.0], [1.0]]))
    _, index, proven = neighbours._proven(queries, points, np.array([[2, 1, 0]]), np.array([[0.9, 1.0, 3.0]]), 1)
    assert (index[0, 0], proven[0]) == (1, True)


@pytest.fixture
def paying(monkeypatch):
    """The projected filter is asked of sets of any size; pairs measured by the call."""
    monkeypatch.setattr(filters, "_projection_pays", lambda *sizes: True)
    monkeypatch.setattr(filters.Projected, "extra", 60)
    measured, measure = [], neighbours._measure

    def counting(squared, queries, points, candidates, wanted):
        measured.append(int(np.broadcast_to(wanted, candidates.shape).sum()))
        measure(squared, queries, points, candidates, wanted)

    monkeypatch.setattr(neighbours, "_measure", counting)
    return measured


@pytest.mark.parametrize("products", ["faiss", "torch"])
def test_projection_proves_images_and_measures_few(monkeypatch, asked, paying, products):
    if products == "torch":
        monkeypatch.setitem(sys.modules, "faiss", None)
    points, queries = pictures(2000, 300, 0), pictures(200, 300, 1)
    queries[:20] = points[:20] + np.float32(1e-4)
    assert_same(nearest(queries, points, 2, device="cpu"), oracle(queries, points, 2))
    assert asked == [("Projected", 200, 0)]
    assert sum(paying) < 10 * 200


def test_projection_hands_on_what_it_cannot_prove(asked, paying):
    points, queries = pictures(500, 80, 0), pictures(60, 80, 1)
    # Noise in all directions: few of them cannot tell which of 200 points is the nearest.
    noisy = 1.2 + 0.1 * np.random.default_rng(0).standard_normal((202, 80))
    points[:200], queries[7:9] = noisy[:200], noisy[200:]
    assert_same(nearest(queries, points, 2, device="cpu"), oracle(queries, points, 2))
    assert asked == [("Projected", 60, 2), ("Whole", 2, 0)]
    paying.clear()
    nearest(queries[7:9], points, 2, device="cpu")
    assert paying[:3] == [4, 44, 0]  # then it gives up, before the other 38 in each shortlist
    asked.clear()
    points[:200] = queries[7] = queries[8]  # more copies than any shortlist holds
    assert_same(nearest(queries, points, 2, device="cpu"), oracle(queries, points, 2))
    assert asked == [("Projected", 60, 2), ("Whole", 2, 2)]


@pytest.mark.usefixtures("paying")
def test_projection_is_given_up_where_a_few_queries_show_that_it_proves_little(monkeypatch, asked):
    monkeypatch.setattr(neighbours, "_PILOT_QUERIES", 10)
    points = pictures(500, 80, 0)
    noise = 30 * np.random.default_rng(0).standard_normal((90, 80))
    queries = (points[:90] + noise).astype(np.float32)  # nearly as far from all
    assert_same(nearest(queries, points, 2, device="cpu"), oracle(queries, points, 2))
    (name, tried, left), (last, rest, _) = asked
    assert (name, tried, last, rest) == ("Projected", 10, "Whole", 80 + left)
    assert left > 5
    asked.clear()
    clear = pictures(90, 80, 1)
    assert_same(nearest(clear, points, 2, device="cpu"), oracle(clear, points, 2))
    assert asked[:2] == [("Projected", 10, 0), ("Projected", 80, 0)]
    asked.clear()
    nearest(queries[:79], points, 2, device="cpu")  # too few to try it on fewer
    assert asked[0][:2] == ("Projected", 79)


def test_projection_is_asked_where_it_pays(monkeypatch, asked):
    # 2 x 3072 x 255 (Q + N + 4 x 2048) + 255 Q N products against half of 3072 Q N.
    pays = filters._projection_pays
    assert pays(50_000, 50_000, 3072, 255, 2048)
    assert pays(2_000, 50_000, 3072, 255, 2048)
    assert not pays(1_000, 50_000, 3072, 255, 2048)
    assert not pays(500, 500, 3072, 62, 500)
    points = pictures(600, 80, 0)
    nearest(points[:9], points, 2, device="cpu")
    assert [name for name, _, _ in asked] == ["Whole"]
    monkeypatch.setattr(filters, "_projection_pays", lambda *sizes: True)
    nearest(points[:9], points, 2, device="cpu")
    assert [name for name, _, _ in asked][1] == "Projected"
    for flat in (np.random.default_rng(0).standard_normal((600, 160)), np.ones((600, 160))):  # noise, constants
        asked.clear()
        nearest(flat[:9], flat, 2, device="cpu")
        assert [name for name, _, _ in asked] == ["Whole"]


@pytest.mark.usefixtures("backend")
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
