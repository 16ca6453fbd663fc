"""Watching a training that geomem does not run: the looks, the weights that are kept, and that nothing changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import geomem
from geomem.data import StoredPoints
from geomem.errors import InputError
from geomem.memorization import Monitor, Watch
from geomem.memorization.watch import LeaningCheck
from geomem.models import EDMDenoiser, EmpiricalDenoiser, build_network
from geomem.rng import torch_generator
from geomem.training import denoising_loss

RNG = np.random.default_rng(11)
TRAIN, HELDOUT = (RNG.standard_normal((n, 6)).astype(np.float32) for n in (30, 80))


class Shrink(nn.Module):
    """``D(x) = a x``, as good as its one weight suits the noise level: the best is 1 / (1 + sigma^2) for unit data."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(float(a)))

    def forward(self, x, sigma, labels=None):
        return self.a * x


def test_looks_are_those_of_a_watch_at_every_so_many_steps():
    denoiser = EmpiricalDenoiser(torch.from_numpy(TRAIN))
    monitor = Monitor(TRAIN, None, every=3, sigmas=[0.2])
    seen = [monitor(step, denoiser) for step in range(1, 8)]
    assert [step for step, _ in monitor.looks] == [3, 6]
    assert [look is not None for look in seen] == [step in (3, 6) for step in range(1, 8)]
    assert seen[2] == seen[5] == Watch(TRAIN, None, [0.2]).look(denoiser)
    assert seen[2].rate > 0.9


def test_levels_are_around_the_spread_of_the_data():
    look = Monitor(torch.from_numpy(TRAIN), torch.from_numpy(HELDOUT), every=1)(1, Shrink(0.5))
    np.testing.assert_allclose(look.sigma, TRAIN.std(ddof=1) * np.array([0.5, 1, 2]), rtol=1e-6)
    assert len(look.mse_heldout) == 3


def test_points_may_be_stored_or_in_bfloat16():
    pixels = RNG.integers(0, 256, (30, 4, 4, 1), dtype=np.uint8)
    stored = StoredPoints([pixels])
    looks = [Monitor(points, points, every=1)(1, Shrink(0.5))
             for points in (stored, np.asarray(stored), torch.from_numpy(np.asarray(stored)))]
    assert looks[0] == looks[1] == looks[2]
    assert Monitor(torch.from_numpy(TRAIN).bfloat16(), torch.from_numpy(HELDOUT).bfloat16(), every=1)(1, Shrink(0.5))


def test_best_weights_are_those_of_the_smallest_held_out_error_of_each_band():
    """Against a float64 loop over bands and steps, on the same noise."""
    monitor = Monitor(TRAIN, HELDOUT, every=10)
    weights = {10: 1.0, 20: 0.8, 30: 0.5, 40: 0.1, 50: 0.0}
    for step, a in weights.items():
        monitor(step, Shrink(a))
    y = HELDOUT.astype(np.float64)
    z = torch.randn(y.shape, generator=torch_generator(0, "validation noise")).numpy().astype(np.float64)
    chosen = []
    for sigma in monitor.best_weights.centres:
        errors = {step: ((a * (y + sigma * z) - y) ** 2).mean() for step, a in weights.items()}
        chosen.append(next(step for step in weights if errors[step] <= 1.005 * min(errors.values())))
    assert monitor.best_weights.steps == chosen
    assert len(set(chosen)) == 5
    best = monitor.best(Shrink(9.0))
    x = torch.ones(len(chosen), 6)
    answered = best(x, torch.from_numpy(monitor.best_weights.centres).float())[:, 0]
    np.testing.assert_allclose(answered.detach(), [weights[step] for step in chosen], rtol=1e-6)


def test_options_reach_the_watch_and_the_noise():
    monitor = Monitor(TRAIN, HELDOUT, every=1, sigmas=[0.4, 1.0], n=7, seed=5)
    look = monitor(1, Shrink(0.5))
    assert look == Watch(TRAIN, HELDOUT, [0.4, 1.0], n=7, seed=5).look(Shrink(0.5))
    assert look.n == 7
    z = torch.randn(HELDOUT.shape, generator=torch_generator(5, "validation noise")).double().numpy()
    sigma = monitor.best_weights.centres[:, None, None]
    errors = np.square(0.5 * (HELDOUT + sigma * z) - HELDOUT).mean(axis=(1, 2))
    np.testing.assert_allclose(monitor.best_weights.smallest, errors, rtol=1e-5)


def test_no_more_than_500_held_out_points_choose():
    """The largest points come last, and their errors are not counted."""
    heldout = np.random.default_rng(0).standard_normal((510, 6)).astype(np.float32)
    heldout[500:] = 1e4
    monitor = Monitor(TRAIN, heldout, every=1, sigmas=[])
    monitor(1, Shrink(0.0))  # whose error is that of the points' own size
    np.testing.assert_allclose(monitor.best_weights.smallest, np.square(heldout[:500], dtype=float).mean(), rtol=1e-5)


def test_leaning_is_limited_by_as_many_training_points():
    """A network that knows its training points by heart is taken nowhere but above their spacing."""
    copies, calm = EmpiricalDenoiser(torch.from_numpy(TRAIN)), Shrink(0.2)
    for denoiser in (copies, calm):
        denoiser.register_buffer("which", torch.tensor(float(denoiser is copies)))
    for lean in (None, 1.5):
        monitor = Monitor(TRAIN, HELDOUT, every=None, lean=lean)
        for step, denoiser in ((1, calm), (2, copies)):
            monitor.evaluate(step, denoiser)
            if monitor._training is not None:
                losses = monitor._training.losses(denoiser, [0.3])
                noisy = monitor._training.clean + 0.3 * monitor._training.noise
                expected = (denoiser(noisy, 0.3) - monitor._training.clean).square().mean().item()
                assert losses[0] == pytest.approx(expected)
                assert {row.tobytes() for row in monitor._training.clean.numpy()} == {row.tobytes() for row in TRAIN}
        steps = dict(zip(monitor.best_weights.centres, monitor.best_weights.steps, strict=True))
        assert all(step == 2 for sigma, step in steps.items() if 3 < sigma < 20)
        at_half = steps[min(steps, key=lambda sigma: abs(sigma - 0.5))]
        assert at_half == (1 if lean else 2)
    with pytest.raises(InputError, match="needs training and validation points"):
        Monitor(None, HELDOUT, every=None, lean=1.2)


def test_leaning_ends_a_training_where_it_is_asked_to(monkeypatch):
    """Not where the interval holds 1/2: 55% of few samples says nothing."""
    copies, chance = EmpiricalDenoiser(torch.from_numpy(TRAIN)), LeaningCheck(0.55, 0.4, 0.7, 64, 30, None, "test")
    for limit in (None, 0.53):
        monitor = Monitor(TRAIN, HELDOUT, every=1, stop_at_leaning=limit)
        assert not monitor(1, copies).scalars().keys() ^ {f"geomem/{name}" for name in (
            "memorized", "memorized_low", "memorized_high", "memorized_heldout", "leaning", "leaning_low",
            "leaning_high")}
        assert monitor.should_stop == (limit is not None)
        monitor.should_stop, look = False, replace(monitor.looks[0][1], leaning=chance)
        monkeypatch.setattr(monitor.watch, "look", lambda denoiser, look=look: look)
        found = monitor(2, copies).scalars()
        assert (found["geomem/memorized"], found["geomem/leaning_low"]) == (look.rate, 0.4)
        assert not monitor.should_stop
    assert "geomem/leaning" not in Monitor(TRAIN, None, every=1)(1, copies).scalars()


def trained(monitor):
    """Weights after four steps of a network with dropout, a look between backward and step; the next global numbers."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 the global numbers are what is looked at
    denoiser = EDMDenoiser(build_network("mlp", (6,), dropout=0.3), 1.0)
    next(denoiser.net.children()).eval()  # a part that its owner put in another mode
    modes = [module.training for module in denoiser.modules()]
    optimizer = torch.optim.SGD(denoiser.parameters(), lr=0.05)
    clean = torch.from_numpy(TRAIN)
    for step in range(1, 5):
        denoising_loss(denoiser, clean, torch.randn_like(clean), torch.rand(len(clean)) + 0.1).backward()
        if monitor is not None:
            monitor(step, denoiser)
        optimizer.step()
        optimizer.zero_grad()
        assert [module.training for module in denoiser.modules()] == modes
    weights = torch.cat([p.detach().flatten() for p in denoiser.parameters()])
    return weights, float(torch.rand(1)), float(np.random.rand())  # noqa: NPY002


def test_a_training_does_not_notice():
    monitor = Monitor(TRAIN, HELDOUT, every=2)
    with_looks, without = trained(monitor), trained(None)
    assert len(monitor.looks) == 2
    assert torch.equal(with_looks[0], without[0])
    assert with_looks[1:] == without[1:]


def test_weights_before_copies_are_those_of_half_the_steps():
    """Copies are seen at step 40, by a denoiser that returns training points: of 10, 20, 30 the half is 20."""
    class Turning(nn.Module):
        def __init__(self):
            super().__init__()
            self.step = nn.Parameter(torch.tensor(0.0))
            self.copies = [EmpiricalDenoiser(torch.from_numpy(TRAIN))]

        def forward(self, x, sigma, labels=None):
            return self.copies[0](x, sigma) if self.step >= 40 else 0.5 * x

    denoiser, monitor = Turning(), Monitor(TRAIN, None, every=10)
    for step in range(1, 61):
        if step == 35:
            with pytest.raises(InputError, match="no look has seen copies"):
                monitor.before_copies(denoiser)
        with torch.no_grad():
            denoiser.step.fill_(step)
        look = monitor(step, denoiser)
        if look is not None:
            assert look.shows_copies() == (step >= 40)
    assert float(monitor.before_copies(denoiser).step.detach()) == 20
    assert float(denoiser.step.detach()) == 60


def test_wrong_use_is_refused():
    with pytest.raises(InputError, match="1 or more"):
        Monitor(TRAIN, HELDOUT, every=0)
    monitor = geomem.Monitor(TRAIN, None, every=1)
    with pytest.raises(InputError, match="held-out"):
        monitor.best(Shrink(1))
    with pytest.raises(InputError, match="at least one update"):
        Monitor(TRAIN, HELDOUT, every=1).best(Shrink(1))
