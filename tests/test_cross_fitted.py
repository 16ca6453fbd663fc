"""Cross-fitted denoisers against a plain float64 loop, and the folds that they rest on."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from geomem.data import cut_into_folds
from geomem.errors import InputError
from geomem.models import CrossFittedDenoiser, EmpiricalDenoiser, cross_fitted

SIGMAS = [0.02, 0.3, 1.0, 3.0, 80.0]


def points(n, *shape, seed=0):
    return np.random.default_rng(seed).standard_normal((n, *shape)).astype(np.float32)


def weights(query, train, sigma):
    logits = -((query - train) ** 2).sum(1) / (2 * sigma**2)
    found = np.exp(logits - logits.max())
    return found / found.sum()


def by_loop(x, sigma, train, fold, gamma):
    """The empirical denoisers of the points outside each fold, weighted by P_k^gamma; float64."""
    answers = []
    for query, level in zip(x.astype(np.float64), sigma, strict=True):
        w = weights(query, train.astype(np.float64), level)
        share = np.array([w[fold == k].sum() for k in range(fold.max() + 1)])
        share = np.arange(len(share)) == share.argmax() if gamma == math.inf else share**gamma / (share**gamma).sum()
        answers.append(sum(share[k] * weights(query, train[fold != k].astype(np.float64), level) @ train[fold != k]
                           for k in range(len(share))))
    return np.stack(answers)


def without_each_fold(train, fold):
    return [EmpiricalDenoiser(torch.from_numpy(train[fold != k])) for k in range(fold.max() + 1)]


class Scaled(nn.Module):
    """Answers with a multiple of the point and its label, and counts the points that it was asked."""

    def __init__(self, factor):
        super().__init__()
        self.factor, self.asked = factor, 0

    def forward(self, x, sigma, labels=None, offset=0.0):
        self.asked += len(x)
        added = 0 if labels is None else labels.reshape(-1, *[1] * (x.ndim - 1))
        return self.factor * x + added + offset


@pytest.mark.parametrize(("routing", "gamma"), [("soft", 1.0), (2.5, 2.5), ("argmax", math.inf)])
@pytest.mark.parametrize("folds", [3, 12])
def test_empirical_denoisers_left_out_agree_with_a_loop(folds, routing, gamma, monkeypatch):
    """With folds = N too, where every network lacks one point; for any number of points looked at at a time."""
    train = points(12, 2, 3) + 5  # far from the origin, so that centring counts
    fold = np.arange(12) if folds == 12 else np.random.default_rng(1).permutation(12) % folds
    x = np.concatenate([train[k] + sigma * points(4, 2, 3, seed=k) for k, sigma in enumerate(SIGMAS)])
    sigma = np.repeat(SIGMAS, 4)
    expected = by_loop(x.reshape(20, 6), sigma, train.reshape(12, 6), fold, gamma).reshape(x.shape)
    for block in (1 << 22, 41):
        monkeypatch.setattr(cross_fitted, "BLOCK_VALUES", block)
        denoiser = CrossFittedDenoiser(without_each_fold(train, fold), fold, train, routing)
        given = torch.from_numpy(x.astype(np.float32))
        # x in float32 is off by 2^-24 |x|, up to 2e-5 at sigma 80; weights move by that times |x_i - x_j| / sigma^2.
        answer = denoiser(given, torch.from_numpy(sigma))
        assert answer.dtype == torch.float32
        np.testing.assert_allclose(answer, expected, rtol=0, atol=2e-5)
        for k, level in enumerate(SIGMAS):  # a number for all
            part = slice(4 * k, 4 * k + 4)
            np.testing.assert_allclose(denoiser(given[part], level), expected[part], rtol=0, atol=2e-5)


def test_near_a_training_point_the_network_answers_that_has_not_seen_it():
    train, fold = points(30, 5), np.arange(30) % 3
    networks = [Scaled(k) for k in range(3)]
    for routing in ("soft", "argmax"):
        denoiser = CrossFittedDenoiser(networks, fold, train, routing)
        x = torch.from_numpy(train)
        torch.testing.assert_close(denoiser(x, 0.01), x * torch.from_numpy(fold)[:, None], rtol=1e-6, atol=0)
        np.testing.assert_array_equal(denoiser.shares(x, 0.01).argmax(1), fold)
    torch.testing.assert_close(denoiser.shares(torch.zeros(1, 5), 1e6).sum(), torch.tensor(1.0).double())


def test_equal_networks_are_one_network_and_rows_go_with_their_labels():
    train, x = points(40, 1, 4, 4), torch.from_numpy(points(9, 1, 4, 4, seed=1))
    labels, offset = torch.arange(9), torch.arange(9.0).reshape(9, 1, 1, 1)
    fold = cut_into_folds(train, 4)
    for routing in ("soft", "argmax", 3):
        denoiser = CrossFittedDenoiser([Scaled(0.5) for _ in range(4)], fold, train, routing)
        for sigma in (0.1, torch.linspace(0.1, 5, 9)):
            torch.testing.assert_close(denoiser(x, sigma), 0.5 * x, rtol=1e-6, atol=1e-7)
            torch.testing.assert_close(denoiser(x, sigma, labels, offset=offset), Scaled(0.5)(x, sigma, labels, offset),
                                       rtol=1e-6, atol=1e-7)


def test_only_the_networks_that_matter_are_asked():
    train, fold = points(60, 8), np.arange(60) % 4
    x = torch.from_numpy(train + 0.05 * points(60, 8, seed=1))
    for routing, most in (("argmax", 60), ("soft", 70)):
        networks = [Scaled(k) for k in range(4)]
        answer = CrossFittedDenoiser(networks, fold, train, routing)(x, 0.05)
        assert 60 <= sum(network.asked for network in networks) <= most
        assert len(answer) == 60
    networks = [Scaled(k) for k in range(4)]
    soft = CrossFittedDenoiser(networks, fold, train, "soft")
    plain = sum(soft.shares(x, 0.5)[:, k, None] * network(x.double(), 0.5) for k, network in enumerate(networks))
    torch.testing.assert_close(soft(x, 0.5), plain.float(), rtol=1e-6, atol=1e-6)  # 4 x 2^-26 of values up to 12


def test_planted_copies_are_found_and_come_into_one_fold():
    train = points(50, 6)
    train[31], train[7] = train[2], train[2] + np.float32(1e-6)  # in other folds without each other
    fold = cut_into_folds(train, 5)
    assert fold[2] == fold[31] == fold[7]
    assert np.ptp(np.bincount(fold)) <= 1
    alone = cut_into_folds(np.delete(train, [31, 7], axis=0), 5)
    assert len(set(alone.tolist())) == 5


def test_folds_are_seeded_and_of_one_size():
    train = points(103, 4)
    cuts = [cut_into_folds(train, 4, seed) for seed in range(20)]
    assert all(sorted(np.bincount(cut).tolist()) == [25, 26, 26, 26] for cut in cuts)
    np.testing.assert_array_equal(cuts[3], cut_into_folds(train, 4, 3))
    together = np.mean([[cut[0] == cut[k] for k in range(1, 103)] for cut in cuts])
    assert together == pytest.approx(25 / 102, abs=3 * (0.25 * 0.75 / 20 / 102) ** 0.5 * 2)
    copies = np.concatenate([np.repeat(train[:1], 40, axis=0), train[1:21]])  # two thirds are one point
    assert sorted(np.bincount(cut_into_folds(copies, 3)).tolist()) == [10, 10, 40]
    np.testing.assert_array_equal(np.sort(cut_into_folds(train[:7], 7)), np.arange(7))


@pytest.mark.parametrize(("n", "folds", "words"), [
    (9, 1, "1 fold: give at least 2"), (9, 10, "at most one fold per point"), (12, 11, "only 9 are distinct")])
def test_folds_that_cannot_be_cut_are_refused(n, folds, words):
    train = points(n, 3)
    train[9:] = train[0]
    with pytest.raises(InputError, match=words):
        cut_into_folds(train, folds)


@pytest.mark.parametrize(("change", "words"), [
    ({"denoisers": [Scaled(1)]}, "at least 2 networks"), ({"folds": [0, 1]}, "one for each of the 6"),
    ({"folds": [0, 1, 2, 0, 1, 2]}, "integers 0 to 1"), ({"folds": [0] * 6}, "none may be empty"),
    ({"folds": [0.0, 1.0] * 3}, "integers"),
    ({"routing": "sharp"}, "argmax, soft"), ({"routing": 0}, "above 0"), ({"routing": math.nan}, "above 0")])
def test_networks_folds_and_points_that_do_not_fit_are_refused(change, words):
    given = {"denoisers": [Scaled(1), Scaled(2)], "folds": [0, 1] * 3, "train": points(6, 2), **change}
    with pytest.raises(InputError, match=words):
        CrossFittedDenoiser(**given)


def test_points_of_another_shape_are_refused():
    denoiser = CrossFittedDenoiser([nn.Flatten(), nn.Flatten()], [0, 1] * 3, points(6, 2, 2))
    with pytest.raises(InputError, match=r"points of shape \(4,\)"):
        denoiser(torch.zeros(1, 4), 1.0)

    class Cut(nn.Module):
        def forward(self, x, sigma, labels=None):
            return x[:, :1]

    with pytest.raises(InputError, match=r"network 0 answers points of shape \(2, 2\) with \(1, 2\)"):
        CrossFittedDenoiser([Cut(), Cut()], [0, 1] * 3, points(6, 2, 2))(torch.zeros(1, 2, 2), 1.0)
