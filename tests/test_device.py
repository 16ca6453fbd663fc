"""On a device apart from the host: the results of the CPU, and how often the host waits.

On the device in Python (``python_device``) everywhere, on a GPU where there is one. Results agree to rounding: off the
CPU products are not split into pieces for its cores, and no level is left out early.
"""

from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import python_device
import torch
from python_device import NAME, counted

import geomem
from geomem.generation import generate, sampler_levels
from geomem.geometry import coverage_bounds
from geomem.memorization import (
    auth_pct,
    leaning,
    membership,
    memorization_per_noise_level,
    memorization_rate,
    near_copies,
)
from geomem.models import (
    CrossFittedDenoiser,
    EDMDenoiser,
    EmpiricalDenoiser,
    EpsilonDenoiser,
    GaussianDenoiser,
    PiecewiseDenoiser,
    VelocityDenoiser,
    build_network,
)
from geomem.models.denoiser import TimestepOfSigma
from geomem.noise import DDPMSchedule, GapSampler, LogitNormalSampler, LogNormalSampler, UniformTimestepSampler
from geomem.quality import precision_recall
from geomem.theory import pixel_sensitivity
from geomem.training import Monitor, Trainer, TrainingSettings
from geomem.training.trainer import bfloat16_products

RNG = np.random.default_rng(0)
TRAIN, HELDOUT = (RNG.standard_normal((n, 1, 8, 8), dtype=np.float32) for n in (60, 50))
SAMPLES = np.concatenate([TRAIN[:6] + np.float32(0.01) * RNG.standard_normal((6, 1, 8, 8), dtype=np.float32),
                          RNG.standard_normal((30, 1, 8, 8), dtype=np.float32)])
LABELS = np.arange(60) % 3
WITHOUT_FLOAT64 = "without float64"  # the device in Python as Apple's mps is


@pytest.fixture
def without_float64():
    with python_device.present(float64=False):
        yield


@pytest.fixture(scope="module", params=[NAME, WITHOUT_FLOAT64, pytest.param("cuda", marks=[
    pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")])])
def device(request):
    with python_device.present(float64=request.param != WITHOUT_FLOAT64):
        yield NAME if request.param == WITHOUT_FLOAT64 else request.param


@contextmanager
def no_wait(device):
    """Within it the host waits for the device nowhere."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
    else:
        with counted() as counts:
            yield
        assert counts.waits == {}


# The device in Python itself

@pytest.fixture
def here():
    with python_device.present():
        yield


@pytest.mark.usefixtures("here")
def test_it_is_apart():
    here, there = torch.ones(3, 2), torch.ones(3, 2, device=NAME)
    assert there.device.type == NAME
    for mixed in (lambda: here + there, lambda: there @ here.T, lambda: torch.cat([there, here])):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    with pytest.raises((RuntimeError, TypeError)):
        there.numpy()
    assert (there + 1).cpu().tolist() == [[2, 2]] * 3
    assert (there * torch.tensor(2.0)).device.type == NAME  # a number on the host may be used, as on other devices


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("what", "waits"), [
    (lambda x: x.cpu(), 1), (lambda x: x.sum().item(), 1), (lambda x: bool((x > 0).all()), 1),
    (lambda x: x[x > 0], 1), (lambda x: x.nonzero(), 1), (lambda x: x.to("cpu", non_blocking=True), 0),
    (lambda x: (x @ x.T).softmax(1)[:, 0].sort(), 0), (lambda x: x.add_(1)[1:].mul_(2), 0)])
def test_waits_are_counted(what, waits):
    x = torch.ones(3, 2, device=NAME)
    with counted() as counts:
        what(x)
    assert sum(counts.waits.values()) == waits


@pytest.mark.usefixtures("without_float64")
def test_it_has_no_float64():
    here, there = torch.ones(3, dtype=torch.float64), torch.ones(3, device=NAME)
    for wide in (lambda: here.to(NAME), lambda: there.double(), lambda: here.to(NAME, torch.float32),
                 lambda: there.to("cpu", torch.float64), lambda: torch.zeros(3, dtype=torch.float64, device=NAME),
                 lambda: torch.nn.BatchNorm1d(3).double().to(NAME), lambda: there.sum(dtype=torch.float64),
                 lambda: torch.rand(3, dtype=torch.float64, device=NAME), lambda: there.copy_(here)):
        with pytest.raises(TypeError, match="float64"):
            wide()
    assert (2.0 * there).cpu().double().tolist() == [2] * 3


# Geometry, memorization, quality

def numbers(result):
    """Every number of a result, in order."""
    if hasattr(result, "to_dict"):
        result = result.to_dict()
    elif hasattr(result, "__dataclass_fields__"):
        result = vars(result)
    if isinstance(result, dict):
        return [x for key, value in result.items() if key != "seconds" for x in numbers(value)]
    if isinstance(result, (list, tuple)):
        return [x for value in result for x in numbers(value)]
    if isinstance(result, np.ndarray):
        return result.astype(np.float64).ravel().tolist()
    return [float(result)] if isinstance(result, (int, float, np.number)) else []


def denoiser_on(device, kind="edm", labels=None):
    torch.manual_seed(0)
    net = build_network("unet-tiny", (1, 8, 8), classes=labels)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    kinds = {"edm": lambda: EDMDenoiser(net, 1.0), "epsilon": lambda: EpsilonDenoiser(net),
             "velocity": lambda: VelocityDenoiser(net, time_scale=1)}
    return kinds[kind]().to(device)


def gaussian_on(device):
    return GaussianDenoiser(torch.from_numpy(TRAIN)).to(device)


CALLS = {
    "danger zone": lambda device: geomem.danger_zone(TRAIN, HELDOUT, sigmas=8, device=device),
    "curves": lambda device: geomem.geometry_curves(TRAIN, HELDOUT, sigmas=[0.3, 1.0, 3.0], device=device),
    "max posterior weight": lambda device: geomem.max_posterior_weight(TRAIN, [0.3, 1.0, 3.0], device=device),
    "shell coverage": lambda device: geomem.shell_coverage(TRAIN, HELDOUT, [0.3, 1.0, 3.0], device=device),
    "equal points": lambda device: geomem.geometry_curves(np.concatenate([TRAIN, TRAIN[:9]]), HELDOUT,
                                                          sigmas=[0.5, 2.0], device=device),
    "thresholds": lambda device: geomem.concentration_thresholds(TRAIN, device=device),
    "bounds": lambda device: coverage_bounds(TRAIN, HELDOUT, [0.5, 2.0], device=device),
    "ratio rule": lambda device: memorization_rate(SAMPLES, TRAIN, device=device),
    "ratio rule, mirrored": lambda device: memorization_rate(SAMPLES, TRAIN, mirrored=True, device=device),
    "leaning": lambda device: leaning(SAMPLES, TRAIN, HELDOUT, device=device),
    "near-copies": lambda device: near_copies(SAMPLES, TRAIN, HELDOUT, device=device),
    "authenticity": lambda device: auth_pct(SAMPLES, TRAIN, device=device),
    "precision and recall": lambda device: precision_recall(SAMPLES, HELDOUT, device=device),
    "per level": lambda device: memorization_per_noise_level(gaussian_on(device), TRAIN, HELDOUT, [0.5, 2.0],
                                                             device=device),
    "membership": lambda device: membership(gaussian_on(device), TRAIN, HELDOUT, [0.5, 2.0], n=40, device=device),
    "sensitivity": lambda device: pixel_sensitivity(EmpiricalDenoiser(torch.from_numpy(TRAIN)).to(device),
                                                    torch.from_numpy(HELDOUT[:2]).to(device), 1.0, 9),
}


@pytest.mark.parametrize("name", CALLS)
def test_same_result(name, device):
    there, here = numbers(CALLS[name](device)), numbers(CALLS[name]("cpu"))
    assert len(there) > 0
    np.testing.assert_allclose(there, here, rtol=2e-5, atol=2e-6)


@pytest.mark.usefixtures("here")
def test_a_sweep_waits_for_its_tiles_alone():
    """For the close pairs of a tile and a block, and for what each tile has found; not at every level or draw."""
    def waits(points, levels, draws):
        train, heldout = (RNG.standard_normal((points, 64), dtype=np.float32) for _ in range(2))
        with counted() as counts:
            geomem.geometry_curves(train, heldout, sigmas=np.geomspace(0.3, 3, levels), posterior_draws=draws,
                                   coverage_draws=draws, device=NAME)
        return sum(counts.waits.values()), counts.copies

    one_tile = waits(100, 4, 2)
    assert one_tile[0] <= 20
    assert waits(100, 12, 2)[0] == waits(100, 4, 8)[0] == waits(200, 4, 2)[0] == one_tile[0]
    assert waits(600, 4, 2)[0] <= 3 * one_tile[0]


# Denoisers, generation, training

def denoisers(device):
    points = torch.from_numpy(TRAIN)
    folds = np.arange(60) % 3
    return {
        "edm": denoiser_on(device), "epsilon": denoiser_on(device, "epsilon"),
        "velocity": denoiser_on(device, "velocity"),
        "empirical": EmpiricalDenoiser(points).to(device), "gaussian": gaussian_on(device),
        "piecewise": PiecewiseDenoiser([denoiser_on(device), gaussian_on(device)], [1.0]).to(device),
        "cross-fitted": CrossFittedDenoiser([EmpiricalDenoiser(points[folds != k]) for k in range(3)], folds,
                                            TRAIN, "soft").to(device)}


@pytest.mark.parametrize("name", ["edm", "epsilon", "velocity", "empirical", "gaussian", "piecewise",
                                  "cross-fitted"])
@pytest.mark.parametrize("sigma", [0.7, torch.linspace(0.3, 2.0, 50)])
def test_a_forward_pass_does_not_wait(name, sigma, device):
    """But a cross-fitted denoiser asks once which of its networks are needed, and one in closed form computes on the
    CPU where the device has no float64.
    """
    x, there = torch.from_numpy(HELDOUT), denoisers(device)[name]
    level = sigma.to(device) if isinstance(sigma, torch.Tensor) else sigma
    with torch.inference_mode():
        remote = x.to(device)
        there(remote, level)  # what is done once only
        closed = geomem.devices.widest_float(remote.device) == torch.float32 and name in (
            "empirical", "gaussian", "piecewise")
        with nullcontext() if name == "cross-fitted" or closed else no_wait(device):
            result = there(remote, level)
        assert result.device.type == device
        torch.testing.assert_close(result.cpu(), denoisers("cpu")[name](x, sigma), rtol=2e-5, atol=2e-6)


@pytest.mark.usefixtures("here")
def test_a_cross_fitted_denoiser_asks_once():
    with counted() as counts:
        denoisers(NAME)["cross-fitted"](torch.from_numpy(HELDOUT).to(NAME), 0.7)
    assert sum(counts.waits.values()) == 1


@pytest.mark.parametrize("method", ["heun", "euler", "ddim", "ddpm", "flow-euler", "flow-heun"])
def test_generation(method, device):
    kind = {"heun": "edm", "euler": "edm", "ddim": "epsilon", "ddpm": "epsilon"}.get(method, "velocity")
    there, here = (generate(denoiser_on(on, kind), range(12), (1, 8, 8), sigmas=sampler_levels(method, 6),
                            method=method, batch=6) for on in (device, "cpu"))
    np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("method", ["heun", "ddpm", "flow-euler"])
def test_generation_waits_once_for_each_batch(method):
    with counted() as counts:
        generate(denoiser_on(NAME), range(12), (1, 8, 8), sigmas=sampler_levels(method, 6), method=method, batch=6)
    assert counts.waits == {"aten._to_copy.default": 2}


def trainer_on(device, *, sampler=None, kind="edm", labels=None, **options):
    settings = TrainingSettings(iterations=4, batch=6, flip=True, **options.pop("settings", {}))
    return Trainer(denoiser_on(device, kind, None if labels is None else 3), sampler or LogNormalSampler(), TRAIN,
                   settings, labels, **options)


TRAININGS = {
    "edm": {}, "ddpm": {"kind": "epsilon", "sampler": UniformTimestepSampler()},
    "flow": {"kind": "velocity", "sampler": LogitNormalSampler()},
    "gap": {"sampler": GapSampler(LogNormalSampler(), [(0.3, 1.5)])}, "classes": {"labels": LABELS},
    "pieces of a batch": {"accumulate": 2}, "channels innermost": {"channels_last": True},
}


@pytest.mark.parametrize("name", TRAININGS)
def test_training_steps_do_not_wait(name, device, monkeypatch):
    """Noise is drawn where it is needed, so a GPU draws other noise; here it draws the CPU's."""
    if device == "cuda":
        monkeypatch.setattr(torch, "randn", lambda shape, generator, device: torch.from_numpy(
            np.random.default_rng(generator.initial_seed()).standard_normal(shape, np.float32)).to(device))
    there, here = (trainer_on(on, **TRAININGS[name]) for on in (device, "cpu"))
    there.step()
    with no_wait(device) if device == NAME else nullcontext():
        there.step()
        there.step()
    for _ in range(3):
        here.step()
    for one, other in ((there.denoiser, here.denoiser), (there.ema, here.ema)):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert a.device.type == device
            torch.testing.assert_close(a.detach().cpu(), b.detach(), rtol=1e-4, atol=1e-5)
    assert [float(loss) for loss in there.losses] == pytest.approx([float(loss) for loss in here.losses], rel=1e-4)


@pytest.mark.usefixtures("here")
def test_what_a_wait_or_a_tensor_on_the_host_would_do(monkeypatch):
    """The two ways in which code for the CPU goes wrong on a device, put into the training step."""
    trainer = trainer_on(NAME)
    denoise = EDMDenoiser.forward
    monkeypatch.setattr(EDMDenoiser, "forward", lambda self, x, sigma, *rest:
                        denoise(self, x, sigma.cpu().to(NAME), *rest))
    with counted() as counts:
        trainer.step()
    assert counts.waits == {"aten._to_copy.default": 1}
    monkeypatch.setattr(EDMDenoiser, "forward", lambda self, x, sigma, *rest:
                        denoise(self, x, sigma, *rest) + torch.zeros(6, 1, 8, 8))
    with pytest.raises(RuntimeError, match="same device"):
        trainer.step()


@pytest.mark.usefixtures("without_float64")
def test_float64_in_the_training_step(monkeypatch):
    trainer = trainer_on(NAME)
    denoise = EDMDenoiser.forward
    monkeypatch.setattr(EDMDenoiser, "forward", lambda self, x, sigma, *rest: denoise(self, x, sigma.double(), *rest))
    with pytest.raises(TypeError, match="float64"):
        trainer.step()


@pytest.mark.usefixtures("without_float64")
@pytest.mark.parametrize("law", [LogNormalSampler(), UniformTimestepSampler(), LogitNormalSampler()])
def test_noise_levels_without_float64(law):
    """One in each of the cells of equal probability, as everywhere."""
    drawn = law.sample(20, torch.Generator(NAME).manual_seed(0))
    assert (drawn.device.type, drawn.dtype) == (NAME, torch.float32)
    cells = law.cdf(np.sort(drawn.cpu().double().numpy()) * (1 + 1e-6)) * 20
    assert (cells >= np.arange(20)).all()
    assert (law.cdf(np.sort(drawn.cpu().double().numpy()) * (1 - 1e-6)) * 20 <= np.arange(1, 21)).all()


@pytest.mark.usefixtures("without_float64")
def test_timesteps_without_float64():
    """Tables come back from the device as they were."""
    schedule = DDPMSchedule()
    sigma = np.r_[schedule.sigmas, np.sqrt(schedule.sigmas[1:] * schedule.sigmas[:-1])].astype(np.float32)
    table = TimestepOfSigma(schedule).to(NAME)
    there = table(torch.from_numpy(sigma).to(NAME)).cpu().numpy()
    np.testing.assert_allclose(there, schedule.timestep(sigma.astype(np.float64)), atol=2e-4)
    assert torch.equal(table.cpu()(torch.from_numpy(sigma)), TimestepOfSigma(schedule)(torch.from_numpy(sigma)))


@pytest.mark.usefixtures("without_float64")
def test_the_edges_between_denoisers_without_float64():
    """The levels of float32 at an edge and on both sides of it have the denoiser that they have on the CPU."""
    edges = [0.1, 0.3, 0.7, 1.0]
    near = torch.tensor(edges)
    sigma = torch.cat([near, near.nextafter(near + 1), near.nextafter(near - 1)])
    points = torch.from_numpy(TRAIN)
    parts = [GaussianDenoiser(points + k) for k in range(5)]
    x = torch.zeros(len(sigma), 1, 8, 8)
    here = PiecewiseDenoiser(parts, edges)(x, sigma)
    torch.testing.assert_close(PiecewiseDenoiser(parts, edges).to(NAME)(x.to(NAME), sigma.to(NAME)).cpu(), here)


def test_the_device_of_auto(monkeypatch):
    """A network is put on mps where there is no CUDA, but not by several processes; geometry stays on the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert geomem.devices.resolve_device().type == "mps"
    geomem.geometry_curves(TRAIN, HELDOUT, sigmas=[1.0])  # would fail here, where mps is not
    assert memorization_rate(SAMPLES, TRAIN).n == len(SAMPLES)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert geomem.devices.resolve_device().type == "cpu"
    with bfloat16_products(torch.device("mps")):
        assert torch.is_autocast_enabled("mps")


def test_a_network_elsewhere_than_the_distances(device):
    found = [numbers(memorization_per_noise_level(denoiser_on(on), TRAIN, HELDOUT, [0.5], device=other))
             for on, other in (("cpu", device), (device, "cpu"))]
    np.testing.assert_allclose(*found, rtol=2e-5, atol=2e-6)


def test_monitor(device):
    """Looks, held-out losses and the best weights per noise level."""
    found = {}
    for on in (device, "cpu"):
        trainer = trainer_on(on)
        monitor = Monitor(TRAIN, HELDOUT, every=2, test=HELDOUT, n=16, device=on)
        for step in range(1, 5):
            trainer.step()
            monitor(step, trainer.ema)
        best = monitor.best(trainer.ema).to(on)
        with torch.inference_mode():
            answer = best(torch.from_numpy(HELDOUT).to(on), 0.7).cpu()
        found[on] = [numbers(look) for _, look in monitor.looks], answer
    np.testing.assert_allclose(found[device][0], found["cpu"][0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[device][1], found["cpu"][1], rtol=1e-3, atol=1e-4)
