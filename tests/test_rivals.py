"""Each rival of the prevention study trains on what its paper says."""

from dataclasses import replace

import numpy as np
import prevention_study as study
import pytest
import rivals
import torch

from geomem.errors import InputError
from geomem.geometry.zone import DangerZone
from geomem.models import EDMDenoiser
from geomem.training import Trainer, plan_training
from geomem.training.loss import denoising_loss


@pytest.fixture
def plan():
    return plan_training(study.load_data("digits", n_train=60), network="mlp", batch=64, iterations=9, device="cpu",
                         learning_rate=1e-3)


def test_ambient_trains_on_one_noisy_copy_of_each_point_above_its_level(plan):
    trainer = rivals.ambient(plan)
    level, train = trainer.denoiser.level, np.asarray(plan.dataset.train)
    seen: dict[int, torch.Tensor] = {}
    for step in (0, 1, 5):
        ordinary, batch = rivals.plain(plan).batch(step), trainer.batch(step)
        above = batch.sigma > level
        assert 5 < int(above.sum()) < 60
        assert torch.equal(batch.clean[~above], ordinary.clean[~above])
        assert torch.equal(batch.noise[~above], ordinary.noise[~above])
        s = batch.sigma.double()[:, None, None, None]
        noisy = batch.clean + s * batch.noise
        spread = (s**2 - level**2).clamp(min=0).sqrt()
        copies = noisy - spread * ordinary.noise
        for k in np.flatnonzero(above):
            point = int(np.flatnonzero((train == ordinary.clean[k].numpy()).all(axis=(1, 2, 3)))[0])
            torch.testing.assert_close(copies[k], seen.setdefault(point, copies[k]), atol=1e-4, rtol=0)
        # The loss is that of the estimate of the noisy copy, weighed as EDM weighs the clean one.
        with torch.no_grad():
            estimate = trainer.denoiser(noisy.float(), batch.sigma).double()
            mixed = torch.where(s > level, (spread**2 * estimate + level**2 * noisy) / s**2, estimate)
            error = (mixed - torch.where(s > level, copies, ordinary.clean)).square().flatten(1).mean(1)
            expected = (EDMDenoiser.loss_weight(trainer.denoiser, batch.sigma.double()) * error).mean()
            found = denoising_loss(trainer.denoiser, batch.clean, batch.noise, batch.sigma)
        assert float(found) == pytest.approx(float(expected), rel=1e-3)
    drawn = torch.stack([(copy - torch.from_numpy(train[point])) / level for point, copy in seen.items()])
    assert len(seen) > 30
    assert float(drawn.mean()) == pytest.approx(0, abs=4 / drawn.numel()**0.5)
    assert float(drawn.std()) == pytest.approx(1, abs=4 / (2 * drawn.numel())**0.5)


def test_ambient_begins_where_the_curves_cross_and_needs_a_zone(plan, monkeypatch):
    zone = rivals.danger_zone(plan.dataset.train, plan.dataset.validation).zone
    assert isinstance(zone, DangerZone)
    assert rivals.ambient(plan).denoiser.level == zone.crossing
    monkeypatch.setattr(rivals, "danger_zone", lambda *_: type("Report", (), {"zone": None}))
    with pytest.raises(InputError, match="no danger zone"):
        rivals.ambient(plan)


def test_softened_weights_are_those_of_twice_the_temperature(plan):
    train = np.asarray(plan.dataset.train)[:7].astype(np.float64)
    x = torch.randn(5, *train.shape[1:], generator=torch.Generator().manual_seed(0))
    sigma = torch.linspace(0.3, 3, 5)
    found = rivals.SoftenedEmpirical(train, rivals.TEMPERATURE)(x, sigma)
    for k in range(5):
        squared = np.array([((x[k].double().numpy() - point)**2).sum() for point in train])
        weight = np.exp(-(squared - squared.min()) / (2 * 2 * float(sigma[k])**2))
        expected = sum(w * point for w, point in zip(weight / weight.sum(), train, strict=True))
        np.testing.assert_allclose(found[k], expected, atol=1e-5)
    trainer = rivals.softened(plan)
    assert trainer.teacher.factor == rivals.TEMPERATURE**0.5
    trainer.step()


def test_the_network_of_a_clean_prediction_answers_itself(plan):
    denoiser = rivals.clean(plan).denoiser
    x, sigma = torch.randn(3, *plan.dataset.train.shape[1:]), torch.tensor([0.1, 1.0, 10.0])
    denoiser.net.forward = lambda scaled, label, labels: scaled * 0 + label[:, None, None, None]
    assert torch.allclose(denoiser(x, sigma)[:, 0, 0, 0], sigma.log() / 4)


def test_decay_and_width(plan):
    def size(trainer: Trainer) -> int:
        return sum(parameter.numel() for parameter in trainer.denoiser.parameters())

    assert {group["weight_decay"] for group in rivals.decayed(plan).optimizer.param_groups} == {rivals.WEIGHT_DECAY}
    assert size(rivals.slimmed(plan)) < size(rivals.plain(plan)) / 4


@pytest.mark.parametrize("way", [way if way in ("ambient", "clean prediction") else
                                 pytest.param(way, marks=pytest.mark.slow) for way in study.RIVALS])
def test_every_rival_is_trained_and_judged(way, monkeypatch):
    monkeypatch.setitem(study.SETS, "digits", replace(study.SETS["digits"], n_train=60, network="mlp", batch=16,
                                                      iterations=16))
    monkeypatch.setattr(study, "SAMPLES", 12)
    cell = study.study("digits", way, 1, study.load_data("digits", n_train=60), "fp32")
    assert [row["weights"] for row in cell["rows"]] == ["last"] * 4 + ["per level", "early stop"]
    assert all(np.isfinite(row["quality"]["frechet"]) for row in cell["rows"])
