"""The ratio rule on constructed sets, its interval, and per-level curves of denoisers with known answers."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from geomem import InputError, load_data
from geomem.generation import generate
from geomem.memorization import memorization_per_noise_level, memorization_rate
from geomem.models import EmpiricalDenoiser, GaussianDenoiser
from geomem.statistics import wilson_interval


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_copies_are_memorized_and_fresh_points_are_not(rng):
    train, fresh = rng.standard_normal((300, 1, 8, 8)), rng.standard_normal((200, 1, 8, 8))
    copies = memorization_rate(train[::-1] + 1e-3, train)
    assert (copies.rate, copies.count, copies.n, copies.high) == (1.0, 300, 300, 1.0)
    np.testing.assert_array_equal(copies.nearest, np.arange(300)[::-1])
    np.testing.assert_allclose(copies.nearest_distance, 8e-3)  # sqrt(64) x 1e-3
    floor = memorization_rate(fresh, train)
    assert floor.rate == floor.low == 0
    mixed = memorization_rate(np.concatenate([train[:60], fresh[:140]]), train)
    assert mixed.rate == 0.3
    assert mixed.low < 0.3 < mixed.high
    np.testing.assert_array_equal(mixed.memorized, np.arange(200) < 60)


def test_distances_are_not_squared_and_the_inequality_is_strict():
    train = np.array([[0.0], [8.0]])
    # d1/d2 is 3/5: of the squares 9/25, just above 1/3; 1/3 exactly at 2; 2.5/5.5 squared is 0.2, below 1/3.
    found = memorization_rate(np.array([[3.0], [2.5], [2.0], [1.99], [-4.1], [-3.9]]), train, tolerance=0)
    assert found.memorized.tolist() == [False, False, False, True, False, True]
    np.testing.assert_allclose(found.ratios, [3 / 5, 2.5 / 5.5, 1 / 3, 1.99 / 6.01, 4.1 / 12.1, 3.9 / 11.9])
    assert memorization_rate(np.array([[2.5]]), train, ratio=0.5).rate == 1


def test_samples_come_first_and_training_points_second():
    samples, train = np.array([[0.1]]), np.array([[0.0], [10.0], [20.0]])
    found = memorization_rate(samples, train)
    assert (found.n, found.rate, found.nearest.tolist()) == (1, 1.0, [0])
    with pytest.raises(InputError, match="needs two"):
        memorization_rate(train, samples)


def test_duplicates_do_not_switch_the_rule_off(rng):
    base = rng.standard_normal((100, 20))
    train = np.concatenate([base, base[:50], base[:50] + 1e-6])
    found = memorization_rate(base + 1e-3 * rng.standard_normal(base.shape), train)
    assert (found.merged, found.rate) == (100, 1.0)
    np.testing.assert_array_equal(found.nearest, np.arange(100))
    exact_only = memorization_rate(base + 1e-3 * rng.standard_normal(base.shape), train, tolerance=0)
    assert (exact_only.merged, exact_only.tolerance) == (50, 0)
    np.testing.assert_array_equal(exact_only.memorized, np.arange(100) >= 50)  # near duplicates silence it


def test_nearest_counts_in_the_array_given(rng):
    base = 10 * np.arange(5.0)[:, None]
    train = np.concatenate([base[:1], base[:1], base])  # points 1 and 2 are copies of 0
    assert memorization_rate(base + 0.1, train).nearest.tolist() == [0, 3, 4, 5, 6]


def test_default_tolerance_scales_with_the_data(rng):
    train = rng.standard_normal((400, 10))
    one, ten = (memorization_rate(scale * train, scale * train) for scale in (1.0, 10.0))
    assert ten.tolerance == pytest.approx(10 * one.tolerance)
    asked = train[np.linspace(0, 399, 256).astype(int)]
    gaps = np.sort(np.linalg.norm(asked[:, None] - train[None], axis=-1), axis=1)[:, 10]
    assert one.tolerance == pytest.approx(1e-3 * np.median(gaps))


def test_rate_does_not_depend_on_units_origin_or_array_type(rng):
    train = rng.standard_normal((100, 6))
    samples = train[:50] + rng.uniform(0, 1, (50, 1)) * rng.standard_normal((50, 6))
    found = memorization_rate(samples, train)
    assert 0.1 < found.rate < 0.9
    moved = memorization_rate(100 + 7 * samples, 100 + 7 * train)
    np.testing.assert_allclose(moved.ratios, found.ratios, rtol=1e-9)
    tensors = memorization_rate(torch.tensor(samples), torch.tensor(train))
    np.testing.assert_array_equal(tensors.ratios, found.ratios)


def test_json_record(rng):
    found = memorization_rate(rng.standard_normal((50, 4)), rng.standard_normal((30, 4)))
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert {"rate", "low", "high", "n", "count", "tolerance", "merged"} <= record.keys()
    assert record["quantiles"]["ratio"][10] == pytest.approx(np.median(found.ratios))
    assert len(record["quantiles"]["probability"]) == len(record["quantiles"]["nearest_distance"]) == 21


@pytest.mark.parametrize(("samples", "train", "options", "words"), [
    (np.full((3, 2), np.nan), np.eye(2), {}, "samples holds NaN"),
    (np.zeros((3, 2)), np.full((3, 2), np.inf), {}, "train holds NaN"),
    (np.zeros((3, 1, 2)), np.zeros((3, 2)), {}, "one shape"),
    (np.zeros((3, 2)), np.ones((5, 2)), {}, "only 1 distinct"),
    (np.zeros((3, 2)), np.eye(2), {"tolerance": 5.0}, "only 1 distinct"),
    (np.zeros((3, 2)), np.eye(2), {"ratio": 0}, "ratio is 0"),
    (np.zeros((3, 2)), np.eye(2), {"tolerance": -1.0}, "tolerance is -1"),
])
def test_wrong_input(samples, train, options, words):
    with pytest.raises(InputError, match=words):
        memorization_rate(samples, train, **options)


def shrink(x, sigma, labels=None):
    """The optimal denoiser of N(0, I): perfect generalization when that is where the data come from."""
    return x / (1 + sigma.reshape(-1, *[1] * (x.ndim - 1)) ** 2)


@pytest.fixture
def data(rng):
    return rng.standard_normal((200, 16)), rng.standard_normal((600, 16))


def test_empirical_optimal_memorizes_and_the_true_denoiser_does_not(data):
    sigmas = [0.02, 0.1, 0.3]
    copied = memorization_per_noise_level(EmpiricalDenoiser(torch.from_numpy(data[0])), *data, sigmas)
    assert (copied.rate[:2] > 0.99).all()
    assert (copied.mse_train[:2] < 1e-6).all()  # it gives back the training point itself
    assert (copied.mse_heldout > 0.5).all()
    assert (copied.n_train, copied.n_heldout) == (200, 512)
    honest = memorization_per_noise_level(shrink, *data, sigmas)
    assert (honest.rate < 0.01).all()
    assert (honest.low <= honest.rate).all()
    assert (honest.rate <= honest.high).all()


def test_near_copies_in_a_mixture_are_counted_exactly(rng):
    train = rng.standard_normal((150, 64))
    copies = train[rng.integers(0, 150, 400)] + 0.1 * rng.standard_normal((400, 64))
    samples = np.concatenate([copies, rng.standard_normal((400, 64))])
    found = memorization_rate(samples, train)
    np.testing.assert_array_equal(found.memorized, np.arange(800) < 400)
    assert (found.low, found.high) == wilson_interval(400, 800)


def test_trajectories_of_the_empirical_optimal_denoiser_are_copies_and_held_out_digits_are_not():
    data = load_data("digits", n_train=200)
    train, shape = torch.from_numpy(data.train), data.train.shape[1:]
    copied = memorization_rate(generate(EmpiricalDenoiser(train), range(100), shape), data.train)
    assert copied.rate == 1
    assert len(np.unique(copied.nearest)) > 50  # of all the points, not of a few
    assert memorization_rate(generate(GaussianDenoiser(train), range(100), shape), data.train).rate < 0.02
    assert memorization_rate(data.test, data.train).rate < 0.01


def test_mse_of_a_linear_denoiser_is_the_closed_form(data):
    # D(x + s Z) - x = (s Z - s^2 x) / (1 + s^2), so the squared error per value, x ~ N(0, I), has mean
    # s^2 / (1 + s^2) =: m. Each of the n d values is a squared N(0, m), with variance 2 m^2: at n = 512 and
    # d = 16 the mean has standard deviation m sqrt(2 / 8192) = 0.0156 m. Five of them.
    sigmas = np.array([0.05, 0.5, 1.0, 4.0])
    found = memorization_per_noise_level(shrink, *data, sigmas)
    m = sigmas**2 / (1 + sigmas**2)
    np.testing.assert_allclose(found.mse_heldout, m, rtol=5 * 0.0156)
    np.testing.assert_allclose(found.mse_heldout_stderr, 0.0156 * m, rtol=0.2)
    # For training points the mean given the data: (s^2 + s^4 |x|^2 / d) / (1 + s^2)^2, x the 200 points.
    power = (data[0] ** 2).mean()
    given = (sigmas**2 + sigmas**4 * power) / (1 + sigmas**2) ** 2
    np.testing.assert_allclose(found.mse_train, given, rtol=5 * np.sqrt(2 / 3200))


def test_noise_is_common_to_levels_and_parts(data):
    seen = []

    def record(x, sigma, labels=None):
        assert x.dtype == torch.float32
        assert sigma.shape == (len(x),)
        seen.append(x)
        return x

    train = np.arange(12.0).reshape(4, 3)
    memorization_per_noise_level(record, train, np.zeros((4, 3)), [1.0, 2.0])
    noise = seen[1]  # held out, all zero, sigma 1
    torch.testing.assert_close(seen[3], 2 * noise)
    centred = (seen[0] - noise).numpy()  # training points in some order
    np.testing.assert_allclose(np.sort(centred[:, 0]), [0, 3, 6, 9], atol=1e-5)


def test_seed_batch_size_and_n(data):
    first = memorization_per_noise_level(shrink, *data, [0.5, 1.0], n=100)
    again = memorization_per_noise_level(shrink, *data, [1.0], n=100, batch_size=7)
    assert again.mse_heldout[0] == pytest.approx(first.mse_heldout[1], rel=1e-6)
    other = memorization_per_noise_level(shrink, *data, [1.0], n=100, seed=1)
    assert other.mse_heldout[0] != pytest.approx(first.mse_heldout[1], rel=1e-6)
    json.dumps(first.to_dict(), allow_nan=False)


def test_modules_run_in_evaluation_mode_and_are_put_back(data):
    dropout, frozen = nn.Dropout(0.5), nn.Dropout(0.5).eval()
    net = nn.ModuleList([dropout, frozen])
    net.forward = lambda x, sigma, labels=None: frozen(dropout(x))
    found = memorization_per_noise_level(net, *data, [0.1])
    assert found.mse_train[0] == pytest.approx(0.01, rel=0.1)  # the identity's sigma^2; dropout would add 1
    assert (net.training, dropout.training, frozen.training) == (True, True, False)


@pytest.mark.parametrize(("change", "words"), [
    ({"sigmas": []}, "positive noise levels"), ({"sigmas": [0.0]}, "positive noise levels"),
    ({"heldout": np.zeros((5, 3))}, "one shape"), ({"n": 1}, "at least 2"), ({"batch_size": 0}, "batch_size"),
    ({"denoiser": lambda x, sigma: x * torch.nan}, "output at sigma = 1"),
    ({"denoiser": lambda x, sigma: x.mean(0, keepdim=True)}, "1 points of 16 values for 200 of 16"),
    ({"denoiser": lambda x, sigma: x[:, :3]}, "200 points of 3 values for 200 of 16"),
])
def test_wrong_input_per_level(data, change, words):
    arguments = {"denoiser": shrink, "train": data[0], "heldout": data[1], "sigmas": [1.0], **change}
    with pytest.raises(InputError, match=words):
        memorization_per_noise_level(**arguments)
