"""Kernel distance, precision and recall, one-dimensional distances by definition; what a Judge makes of them."""

import json

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import norm
from sklearn.decomposition import PCA

from geomem import InputError
from geomem.quality import (
    METRICS,
    InceptionFeatures,
    Judge,
    frechet_distance,
    jensen_shannon,
    kernel_distance,
    manifold,
    mean_training_distance,
    precision_recall,
    wasserstein_1,
)
from geomem.quality.distributions import bin_edges
from geomem.quality.frechet import frechet_with_stderr
from geomem.rng import generator


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def fidelity():
    try:
        from torch_fidelity import metric_kid, metric_prc
    except Exception as error:  # absent, or a torchvision for another torch
        pytest.skip(f"torch-fidelity cannot be imported here ({type(error).__name__})")
    return metric_kid, metric_prc


def unbiased_mmd(a, b):
    def kernel(x, y):
        return (sum(x * y) / len(x) + 1) ** 3

    own = [np.mean([kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (a, b)]
    return own[0] + own[1] - 2 * np.mean([kernel(x, y) for x in a for y in b])


def test_kernel_distance_by_definition_and_its_error_by_deletion(rng):
    a, b = rng.standard_normal((12, 3)), rng.standard_normal((9, 3)) + 0.5
    value, stderr = kernel_distance(a, b)
    assert value == pytest.approx(unbiased_mmd(a, b), rel=1e-10)
    left_out = np.array([unbiased_mmd(np.delete(a, i, 0), b) for i in range(12)])
    assert stderr == pytest.approx(np.sqrt(11 / 12 * np.square(left_out - left_out.mean()).sum()), rel=1e-9)


def test_kernel_distance_is_unbiased_in_one_dimension(rng):
    """(x y + 1)^3 = sum_j C(3, j) x^j y^j, so MMD^2 = sum_j C(3, j) (E x^j - E y^j)^2, here of N(1, 1) and N(0, 1):
    moments 1, 2, 4 and 0, 1, 0. The mean of 400 estimates is within 4 of its standard errors.
    """
    for shift, truth in ((1, 3 * 1 + 3 * 1 + 16), (0, 0)):
        values = np.array([kernel_distance(rng.standard_normal((20, 1)) + shift, rng.standard_normal((25, 1)))[0]
                           for _ in range(400)])
        assert abs(values.mean() - truth) < 4 * values.std() / 20
    assert (values < 0).mean() > 0.2  # unbiased around 0


def test_kernel_blocks_and_types_do_not_matter(rng, monkeypatch):
    from geomem.quality import kernel

    a, b = rng.standard_normal((30, 2, 3)).astype(np.float32), rng.standard_normal((20, 2, 3))
    whole = kernel_distance(a, b)
    monkeypatch.setattr(kernel, "_BLOCK_ENTRIES", 41)
    assert kernel_distance(torch.from_numpy(a), b) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("dimension", [5, 300])
def test_kid_and_prc_of_torch_fidelity_on_the_same_arrays(rng, fidelity, dimension):
    metric_kid, metric_prc = fidelity
    a, b = rng.standard_normal((150, dimension)), 1.1 * rng.standard_normal((150, dimension)) + 0.1
    theirs = metric_kid.kid_features_to_metric(torch.from_numpy(a), torch.from_numpy(b), kid_subsets=1,
                                               kid_subset_size=150, verbose=False)
    assert kernel_distance(a, b)[0] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    theirs = metric_prc.prc_features_to_metric(torch.from_numpy(a), torch.from_numpy(b[:100]), verbose=False)
    ours = precision_recall(a, b[:100])
    assert (ours.precision, ours.recall) == pytest.approx((theirs["precision"], theirs["recall"]), abs=1e-6)


def by_loops(points, centres, k=3):
    radii = [np.sort(np.linalg.norm(centres - c, axis=1))[k] for c in centres]
    return np.mean([any(np.linalg.norm(point - c) <= radius for c, radius in zip(centres, radii, strict=True))
                    for point in points])


@pytest.mark.parametrize(("n", "m", "dimension"), [(30, 40, 1), (40, 25, 3), (20, 20, 40)])
def test_precision_and_recall_by_definition(rng, monkeypatch, n, m, dimension):
    samples, reference = rng.standard_normal((n, dimension)), rng.standard_normal((m, dimension)) * 1.3
    for entries in (2**22, 9 * dimension):  # blocks do not matter
        monkeypatch.setattr(manifold, "_BLOCK_ENTRIES", entries)
        found = precision_recall(samples, reference)
        assert found.precision == pytest.approx(by_loops(samples, reference))
        assert found.recall == pytest.approx(by_loops(reference, samples))
    assert found.precision_low <= found.precision <= found.precision_high


def test_what_is_generated_and_what_is_real_do_not_swap(rng):
    wide, tight = rng.standard_normal((300, 4)), 0.1 * rng.standard_normal((200, 4))
    found, back = precision_recall(tight, wide), precision_recall(wide, tight)
    assert (found.precision, found.n, found.reference_n) == (1, 200, 300)  # good samples
    assert found.recall < 0.2  # of a small part of the data
    assert (back.precision, back.recall) == (found.recall, found.precision)


def test_precision_and_recall_of_the_data_of_far_points_and_of_copies(rng):
    data = rng.standard_normal((60, 8)) + 1e3
    same = precision_recall(data[::-1], data)
    assert (same.precision, same.recall, same.precision_high) == (1, 1, 1)
    far = precision_recall(data + 100, data)
    assert (far.precision, far.recall) == (0, 0)
    # Four equal points are a ball of radius 0: only an exact copy lies in it.
    equal = np.repeat(data[:1], 4, axis=0)
    assert precision_recall(np.concatenate([data[:1], data[:1] + 1e-6, data[1:4] + 50]), equal).precision == 0.2
    train, heldout = rng.standard_normal((8, 6)), rng.standard_normal((200, 6))
    copies = train[rng.integers(0, 8, 200)] + 1e-3 * rng.standard_normal((200, 6))
    found, floor = precision_recall(copies, heldout), precision_recall(rng.standard_normal((200, 6)), heldout)
    assert found.precision > floor.precision - 0.15
    assert found.recall < 0.05 < 0.6 < floor.recall


def test_wasserstein_of_a_shift_and_a_scale_is_exact(rng):
    x = rng.standard_normal(200)
    assert wasserstein_1(x + 3, x)[0] == pytest.approx(3)
    assert wasserstein_1(3 * x, x)[0] == pytest.approx(2 * abs(x).mean())  # sorted points stay in order
    assert wasserstein_1(x, np.concatenate([x, x]))[0] == pytest.approx(0, abs=1e-12)


def test_errors_of_one_dimensional_distances_are_their_spread(rng):
    reference = rng.standard_normal(2000)
    edges = bin_edges(reference)
    for distance in (wasserstein_1, lambda x, y: jensen_shannon(x, y, edges)):
        values, stderrs = np.transpose([distance(rng.standard_normal(150) + 0.5, reference) for _ in range(40)])
        assert 0.65 < stderrs.mean() / values.std(ddof=1) < 1.5


def test_jensen_shannon_by_definition(rng):
    a, b, edges = np.array([0.1, 0.2, 0.9, 7.0]), np.array([-5.0, 0.5]), np.array([0.0, 0.5, 1.0])
    assert jensen_shannon(a, b, edges)[0] == 0  # two in each bin, beyond the edges too; 0.5 is in the second
    p, q = np.array([0.75, 0.25]), np.array([0.25, 0.75])
    middle = (p + q) / 2
    divergence = sum(0.5 * np.sum(x * np.log2(x / middle)) for x in (p, q))
    found, _ = jensen_shannon(np.array([0, 0, 0, 1.0]), np.array([0, 1, 1, 1.0]), edges)
    assert found == pytest.approx(divergence**0.5)
    assert jensen_shannon(np.zeros(5), np.ones(3), edges)[0] == pytest.approx(1)
    # All values of a point count together; the error knows that they belong together.
    points = np.repeat(rng.standard_normal((50, 1)), 20, axis=1)
    reference = rng.standard_normal(500)
    together, alone = (jensen_shannon(x, reference, bin_edges(reference)) for x in (points, points[:, 0]))
    assert together == pytest.approx(alone)
    shuffled = jensen_shannon(points.reshape(-1, 1), reference, bin_edges(reference))
    assert shuffled[0] == pytest.approx(together[0])
    assert shuffled[1] < 0.5 * together[1]


def test_bins_of_a_constant_reference_tell_what_differs():
    edges = bin_edges(np.zeros(7))
    for value, expected in ((0, 0), (-100.0, 1), (-1e-300, 1), (1e-300, 1), (100.0, 1), ([-1, 1, -1, 1, 1.0], 1)):
        samples = np.broadcast_to(value, 5).astype(float)
        assert jensen_shannon(samples, np.zeros(7), edges)[0] == pytest.approx(expected)


def test_mean_distance_is_that_of_scipy(rng, monkeypatch):
    from geomem.quality import distributions

    samples, train = rng.standard_normal((25, 2, 3)) + 1e6, rng.standard_normal((40, 2, 3)) + 1e6
    train[3] = samples[4]
    expected = cdist(samples.reshape(25, 6), train.reshape(40, 6)).mean(axis=1)
    np.testing.assert_allclose(mean_training_distance(samples, train), expected, rtol=1e-7)
    monkeypatch.setattr(distributions, "BLOCK_ENTRIES", 7 * 6)
    np.testing.assert_allclose(mean_training_distance(torch.from_numpy(samples), train), expected, rtol=1e-7)


class Colours(torch.nn.Module):
    """In the place of Inception: quadratic functions of the pixels."""

    def forward(self, x):
        assert x.dtype == torch.uint8
        assert x.shape[1] == 3
        flat = x.flatten(1).float() / 255
        mix = torch.randn(flat.shape[1], 2048, generator=torch.Generator().manual_seed(0))
        return ((flat @ mix).square() / 100,)


def inception(standard=True):
    return InceptionFeatures(Colours(), "6726825d" + 56 * "0", standard, torch.device("cpu"))


@pytest.fixture
def images(rng):
    return [rng.uniform(-1, 1, (n, 1, 3, 3)) for n in (40, 60, 121)]  # samples, train, heldout


def test_judge_measures_everything_beside_its_floor(images):
    samples, train, heldout = images
    judge = Judge(train, heldout, METRICS, features="pca:3", inception=inception(), seed=5)
    found = {(figure.name, figure.features): figure for figure in judge.measure(samples)}
    assert list(found) == [
        ("Frechet distance", "pca:3"), ("kernel distance", "pca:3"), ("precision", "pca:3"), ("recall", "pca:3"),
        ("Wasserstein-1", "component 1"), ("Jensen-Shannon", "component 1"), ("Wasserstein-1", "component 2"),
        ("Jensen-Shannon", "component 2"), ("Jensen-Shannon", "pixels"), ("mean distance", "pixels"),
        ("FID", "Inception"), ("KID", "Inception"), ("precision", "Inception"), ("recall", "Inception")]
    some, rest = np.split(generator(5, "floor").permutation(121), [40])
    pca = PCA(3, svd_solver="full").fit(train.reshape(60, -1))
    a, b = (pca.transform(x.reshape(len(x), -1)) for x in (samples, heldout))
    frechet, second = found["Frechet distance", "pca:3"], found["Wasserstein-1", "component 2"]
    assert (frechet.n, frechet.reference, frechet.reference_n, frechet.floor_n) == (40, "held-out", 121, (40, 81))
    assert (frechet.value, frechet.floor, frechet.at_floor_size) == pytest.approx(
        (frechet_distance(a, b), frechet_distance(b[some], b[rest]), frechet_distance(a, b[rest])))
    assert (second.value, second.floor) == pytest.approx(
        (wasserstein_1(a[:, 1], b[:, 1])[0], wasserstein_1(b[some, 1], b[rest, 1])[0]))
    assert {name for (name, _), figure in found.items() if figure.better == "higher"} == {"precision", "recall"}
    mean = found["mean distance", "pixels"]
    assert (mean.reference, mean.reference_n, mean.floor_n, mean.better) == ("training", 60, (40, 60), "near the floor")
    assert mean.floor == pytest.approx(mean_training_distance(heldout[some], train).mean())
    a, b = (inception()(x) for x in (samples, heldout))
    assert a.shape == (40, 2048)
    assert [found[name, "Inception"].value for name in ("FID", "KID", "precision")] == pytest.approx(
        [frechet_distance(a, b), kernel_distance(a, b)[0], precision_recall(a, b).precision])
    assert all(figure.low <= figure.value <= figure.high for figure in found.values())
    json.dumps([figure.to_dict() for figure in found.values()], allow_nan=False)
    again = Judge(train, heldout, METRICS, features="pca:3", inception=inception(), seed=5)
    again.measure(samples[:10])  # another floor, kept apart
    assert again.measure(samples) == list(found.values())


def test_held_out_samples_reach_the_floor_and_the_held_out_points_themselves_are_perfect(rng):
    """Two sets of 300 points of one law differ by sampling alone, with twice the variance of one; the standard error
    at 300 against 300 is nearly that of the interval.
    """
    train, heldout, fresh = (rng.standard_normal((n, 12)) for n in (100, 600, 300))
    judge = Judge(train, heldout, METRICS[:6])
    for figure in judge.measure(fresh):
        assert abs(figure.at_floor_size - figure.floor) < 4 * 2**0.5 * figure.stderr, figure
    perfect = {"precision": 1, "recall": 1, "mean distance": cdist(heldout, train).mean()}
    for figure in judge.measure(heldout):
        if figure.name == "kernel distance":
            assert figure.value <= 0  # its own points count in the cross term alone
        else:
            assert figure.value == pytest.approx(perfect.get(figure.name, 0), abs=1e-9), figure


def test_intervals_by_definition_and_cut_to_what_can_be(rng):
    train, heldout = rng.standard_normal((20, 1)), rng.standard_normal((50, 1))
    z = norm.ppf(0.975)
    near = heldout[:40] + 0.05
    found = {figure.name: figure for figure in Judge(train, heldout, ["frechet", "mmd", "mean-distance"]).measure(near)}
    each = cdist(near, train).mean(axis=1)
    for name, (value, stderr), least in (
            ("Frechet distance", frechet_with_stderr(near, heldout), 0), ("kernel distance", kernel_distance(
                near, heldout), -np.inf), ("mean distance", (each.mean(), each.std(ddof=1) / 40**0.5), 0)):
        figure = found[name]
        assert (figure.value, figure.low, figure.high) == pytest.approx(
            (value, max(least, value - z * stderr), value + z * stderr))
    assert found["Frechet distance"].low == 0
    assert found["kernel distance"].low < 0  # unbiased: it may lie below 0
    edges = bin_edges(heldout)  # of all held-out values, for the floor too
    empty = np.flatnonzero(np.histogram(heldout, edges)[0] == 0)[0]
    far = np.concatenate([heldout[:1], np.full((5, 1), edges[empty:empty + 2].mean())])
    orders = {seed: generator(seed, "floor").permutation(50) for seed in range(99)}
    seed = next(seed for seed, order in orders.items() if heldout.argmax() in order[:6])  # not in the floor's reference
    for figure in Judge(train, heldout, ["values", "components"], seed=seed).measure(far):
        some, rest = np.split(orders[seed], [6])
        if figure.name == "Jensen-Shannon":
            value, stderr = jensen_shannon(far, heldout, edges, seed=seed)
            assert value + z * stderr > 1
            assert (figure.value, figure.low, figure.high) == pytest.approx((value, value - z * stderr, 1))
            assert figure.floor == pytest.approx(jensen_shannon(heldout[some], heldout[rest], edges)[0])


@pytest.mark.parametrize(("n", "dimension"), [(2, 3), (20, 1)])
def test_two_training_points_or_one_value_per_point_have_one_component(rng, n, dimension):
    train, heldout = rng.standard_normal((n, dimension)), rng.standard_normal((30, dimension))
    found = Judge(train, heldout, ["components"]).measure(np.eye(5, dimension))
    assert [figure.features for figure in found] == ["component 1", "component 1"]


def test_inception_is_shown_bytes_in_three_channels_and_every_batch():
    """Halves are rounded to the even byte, and what lies beyond the range is clipped."""
    class Shown(torch.nn.Module):
        def forward(self, x):
            assert x.shape[1:] == (3, 1, 3)
            assert torch.equal(x[:, 0], x[:, 1])
            return (torch.nn.functional.pad(x[:, 2].flatten(1).float(), (0, 2045)),)

    images = np.tile(np.array([-1.0, 0.0, 1.0]), (70, 1, 1, 1))
    images[69] = [[-7.0, 0.5, 7.0]]
    found = InceptionFeatures(Shown(), "", False, torch.device("cpu"))(images)[:, :3]
    assert (found[:69] == [0, 128, 255]).all()
    assert found[69].tolist() == [0, 191, 255]  # 1.5 x 127.5 = 191.25


def test_another_network_is_never_called_fid(images):
    samples, train, heldout = images
    other, pixels = ({figure.name for figure in Judge(train, heldout, metrics, inception=network).measure(samples)}
                     for metrics, network in ((["fid", "kid"], inception(False)), (["frechet", "mmd"], None)))
    assert other == pixels == {"Frechet distance", "kernel distance"}


def test_few_held_out_points_give_a_floor_at_half_of_them(rng):
    samples, train, heldout = (rng.standard_normal((n, 3)) for n in (50, 20, 30))
    found = Judge(train, heldout, ["frechet"]).measure(samples)[0]
    order, few = (generator(0, purpose).permutation(n)
                  for purpose, n in (("floor", 30), ("samples at the size of the floor", 50)))
    assert (found.n, found.reference_n, found.floor_n) == (50, 30, (15, 15))
    assert found.at_floor_size == pytest.approx(frechet_distance(samples[few[:15]], heldout[order[15:]]))


def test_wrong_input(images):
    samples, train, heldout = images
    zeros = np.zeros
    for call, words in [
        (lambda: kernel_distance(zeros((5, 3)), zeros((5, 4))), "must agree"),
        (lambda: kernel_distance(zeros((2, 3)), zeros((5, 3))), "needs 3 and 2"),
        (lambda: kernel_distance(np.eye(5, 3) * 1e30, zeros((5, 3))), r"overflows at values as large as 1e\+30"),
        (lambda: kernel_distance(np.eye(5, 3, dtype=np.float32), np.eye(5, 3) * 1e160), "overflows"),
        (lambda: precision_recall(zeros((5, 3)), zeros((5, 4))), "must agree"),
        (lambda: precision_recall(zeros((3, 3)), zeros((5, 3))), "3-th nearest"),
        (lambda: precision_recall(zeros((5, 3)), zeros((5, 3)), neighbours=0), "1 at least"),
        (lambda: mean_training_distance(zeros((5, 3)), zeros((5, 4))), "must agree"),
        (lambda: bin_edges(zeros(3), 0), "bins"),
        (lambda: wasserstein_1(np.array([1, np.nan]), zeros(3)), "samples holds NaN"),
        (lambda: wasserstein_1(zeros(3), np.array([np.inf])), "reference holds NaN"),
        (lambda: wasserstein_1(zeros(0), zeros(3)), "samples has shape"),
        (lambda: wasserstein_1(zeros(1), zeros(3)), "1 sample;"),
        (lambda: wasserstein_1(zeros((3, 2)), zeros(3)), "one for each point"),
        (lambda: jensen_shannon(np.array([1, np.nan]), zeros(3), np.arange(3)), "samples holds NaN"),
        (lambda: jensen_shannon(zeros(3), zeros(0), np.arange(3)), "reference has shape"),
        (lambda: jensen_shannon(zeros(1), zeros(3), np.arange(3)), "1 sample;"),
        (lambda: Judge(train, heldout, ["is"]), "unknown metric 'is'"),
        (lambda: Judge(train, heldout, ["mmd"], features="pca:0"), "0 principal"),
        (lambda: Judge(train, heldout, ["mmd"], features="dino"), "pca:K"),
        (lambda: Judge(train, heldout, ["kid"]), "kid: give the Inception"),
        (lambda: Judge(train, heldout[:7], ["mmd"]), "at least 8"),
        (lambda: Judge(train, heldout, ["mmd"]).measure(samples[:, 0]), "bring both to one"),
        (lambda: Judge(train, heldout, ["mmd"]).measure(samples[:3]), "at least 4"),
        (lambda: Judge(zeros((9, 5)), zeros((9, 5)), ["fid"], inception=inception()), "are for images"),
        (lambda: Judge(train, heldout, ["fid"], inception=inception()).measure(samples * np.nan), "NaN"),
    ]:
        with pytest.raises(InputError, match=words):
            call()
