"""Flow schedules and laws: diffusers' and MONAI's own draws, densities, directions, gaps."""

import copy
import json
import math
import types

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from geomem.errors import InputError
from geomem.noise import (
    ConfidenceIntervalSampler,
    CosMapSampler,
    DDPMSchedule,
    EDMSchedule,
    FlowSchedule,
    GapSampler,
    LogitNormalSampler,
    LogNormalSampler,
    ModeSampler,
    NoiseLevelSampler,
    UniformFlowSampler,
    UniformTimestepSampler,
    UShapedFlowSampler,
    schedule_of,
)

diffusers = pytest.importorskip("diffusers")
LAWS = [LogitNormalSampler(), LogitNormalSampler(0.5, 0.8, 3), UniformFlowSampler(), UniformFlowSampler(3.16),
        ModeSampler(), ModeSampler(-0.5, 2), ModeSampler(-1), ModeSampler(1.5),
        CosMapSampler(), UShapedFlowSampler(), UShapedFlowSampler(20, 0.3)]
GAPPED = [GapSampler(LogitNormalSampler(shift=3), (0.3, 1.5)), GapSampler(UShapedFlowSampler(), (0.5, 2), keep=0.2),
          GapSampler(GapSampler(ModeSampler(), (0.3, 0.6)), (2, np.inf))]
DRAWS = 1_000_000


def name(value):
    return json.dumps(value.to_dict())[:80]


def sd3(shift=3.0):
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)


def flux(mu=None):
    """FLUX.1's scheduler; with mu its table is shifted as for an image of that size."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)
    if mu is not None:
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 1000, 1000), mu=mu)
    return scheduler


def own_draws(scheduler, weighting, n, **options):
    """The lines of diffusers' train_dreambooth_lora_sd3.py and _flux.py that choose timesteps."""
    from diffusers.training_utils import compute_density_for_timestep_sampling

    u = compute_density_for_timestep_sampling(weighting, n, **options, generator=torch.Generator().manual_seed(0))
    indices = (u * scheduler.config.num_train_timesteps).long()
    return scheduler.timesteps[indices]


def p_value(drawn, probabilities, times):
    """Chi-square test of drawn timesteps, in blocks of levels that hold 25 expected draws or more."""
    order = np.argsort(times)
    level = np.searchsorted(np.asarray(times)[order], drawn)
    assert np.array_equal(np.asarray(times)[order][level], drawn)
    expected = len(drawn) * np.asarray(probabilities)[order]
    block = np.minimum(np.floor(np.cumsum(expected) / 25), np.floor(len(drawn) / 25) - 1).astype(int)
    block = np.unique(block, return_inverse=True)[1]
    counts = np.bincount(block[level], minlength=block.max() + 1)
    return stats.chisquare(counts, np.bincount(block, expected) * len(drawn) / expected.sum()).pvalue


SD3_LOGITS = {"logit_mean": 0.0, "logit_std": 1.0}
OWN = [(sd3(), "logit_normal", SD3_LOGITS, LogitNormalSampler(0, 1, 3)),
       (sd3(), "logit_normal", {"logit_mean": 0.4, "logit_std": 0.7}, LogitNormalSampler(-0.4, 0.7, 3)),
       (sd3(), "mode", {"mode_scale": 1.29}, ModeSampler(1.29, 3)), (sd3(), "none", {}, UniformFlowSampler(3)),
       (flux(), "none", {}, UniformFlowSampler()), (flux(1.15), "none", {}, UniformFlowSampler(math.exp(1.15))),
       (flux(0.8), "logit_normal", SD3_LOGITS, LogitNormalSampler(0, 1, math.exp(0.8)))]


@pytest.mark.parametrize(("scheduler", "weighting", "options", "law"), OWN, ids=range(len(OWN)))
def test_own_draws_of_diffusers_have_our_probabilities(scheduler, weighting, options, law):
    schedule = FlowSchedule.of(scheduler)
    probabilities = law.timestep_probabilities(scheduler)
    assert probabilities.sum() == pytest.approx(1, abs=1e-12)
    drawn = own_draws(scheduler, weighting, DRAWS, **options).numpy()
    assert p_value(drawn, probabilities, schedule.times) > 0.01
    with np.errstate(divide="ignore"):
        wrong = np.diff(1 - law.cdf(1 / schedule.cell_edges))  # flow times counted from the data
    if law.shift != 1 or options.get("logit_mean"):
        assert p_value(drawn, wrong, schedule.times) < 1e-6
    if options.get("logit_mean"):  # of the others u and 1 - u are equally likely
        assert p_value(drawn, probabilities[::-1], schedule.times) < 1e-6  # the table read in the wrong direction
    ours = law.timesteps(100_000, scheduler, torch.Generator().manual_seed(1))
    assert ours.dtype == scheduler.timesteps.dtype
    counts = np.bincount(np.searchsorted(schedule.times, ours.numpy()), minlength=1000)
    assert np.abs(counts - 100_000 * probabilities).max() < 2 + 1e-6  # stratified


@pytest.mark.parametrize("scheduler", [sd3(), flux(), flux(1.15)], ids=["sd3", "flux", "dynamic"])
def test_a_draw_is_an_entry_of_the_table_by_value_by_sigma_and_by_place(scheduler):
    """Equal to the last bit: the scripts look the sigma up by ``timesteps == t``."""
    law = LogitNormalSampler(0.3, 1, 3)
    times, sigmas, places = (draw(500, scheduler, torch.Generator().manual_seed(2))
                             for draw in (law.timesteps, law.sigmas, law.indices))
    assert torch.equal(scheduler.timesteps[places], times)
    assert torch.equal(scheduler.sigmas[places], sigmas)
    high = LogitNormalSampler(8).indices(100, scheduler, np.random.default_rng(0))
    assert high.max() < 100  # much noise stands at the head of the table
    assert high.dtype == np.int64


def test_descending_tables_of_ddpm_and_edm():
    law = LogNormalSampler(4, 0.5)  # much noise
    for scheduler in (diffusers.DDPMScheduler(), diffusers.EulerDiscreteScheduler()):
        t = law.timesteps(50, scheduler, np.random.default_rng(0))
        assert t.dtype == np.int64
        assert t.min() > 700
        np.testing.assert_array_equal(np.asarray(scheduler.timesteps)[
            law.indices(50, scheduler, np.random.default_rng(0))], t)
        np.testing.assert_allclose(law.sigmas(50, scheduler, np.random.default_rng(0)),
                                   schedule_of(scheduler).sigmas[t], rtol=1e-7)
    edm = diffusers.EDMEulerScheduler(num_train_timesteps=100)
    places = LogNormalSampler().indices(50, edm, np.random.default_rng(0))
    sigma = LogNormalSampler().sigmas(50, edm, np.random.default_rng(0))
    np.testing.assert_array_equal(edm.sigmas.numpy()[places], sigma)
    times = LogNormalSampler().timesteps(50, edm, np.random.default_rng(0))
    np.testing.assert_array_equal(edm.timesteps.numpy()[places], times)  # looked up by equality
    assert times.dtype == sigma.dtype == np.float32
    assert EDMSchedule.of(edm).timestep(80.0) == pytest.approx(float(edm.timesteps[0]), rel=1e-6)


class RFlow:
    """The part of MONAI's RFlowScheduler that is read."""

    num_train_timesteps, base_img_size_numel = 1000, 32**3

    def __init__(self, discrete=True, transform=False):
        self.use_discrete_timesteps, self.use_timestep_transform = discrete, transform

    def sample_timesteps(self, x_start):
        raise NotImplementedError


@pytest.mark.parametrize("method", ["logit-normal", "uniform"])
@pytest.mark.parametrize("transform", [False, True])
@pytest.mark.parametrize("discrete", [False, True])
def test_own_draws_of_monai(discrete, transform, method):
    """x_t = (1 - t/T) x + (t/T) noise there, so a large t is much noise, as in diffusers."""
    scheduler = pytest.importorskip("monai.networks.schedulers").RFlowScheduler(
        use_discrete_timesteps=discrete, use_timestep_transform=transform, sample_method=method, loc=0.5, scale=0.8)
    schedule = FlowSchedule.of(scheduler, size=(64, 64, 64) if transform else None)
    assert schedule.shift == (2 if transform else 1)
    law = UniformFlowSampler(schedule.shift) if method == "uniform" else LogitNormalSampler(0.5, 0.8, schedule.shift)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = scheduler.sample_timesteps(torch.zeros(()).expand(DRAWS, 1, 64, 64, 64)).numpy()
    ours = law.timesteps(20_000, schedule, torch.Generator().manual_seed(1))
    if discrete:
        level = np.searchsorted(schedule.times, drawn - 1e-2)
        np.testing.assert_allclose(schedule.times[level], drawn, rtol=1e-6)
        probabilities = law.timestep_probabilities(schedule)
        assert p_value(schedule.times[level], probabilities, schedule.times) > 0.01
        if method != "uniform":  # whose timesteps are all equally likely
            assert p_value(schedule.times[level], probabilities[::-1], schedule.times) < 1e-6
        assert ours.dtype == (torch.float32 if transform else torch.int64)
    else:
        assert stats.kstest(drawn, lambda t: law.cdf(schedule.sigma_of(t))).pvalue > 0.01
        if method != "uniform" or transform:
            assert stats.kstest(1000 - drawn, lambda t: law.cdf(schedule.sigma_of(t))).pvalue < 1e-6
        assert stats.ks_2samp(drawn, ours.numpy()).pvalue > 0.01
        np.testing.assert_allclose(law.sigmas(5, schedule, np.random.default_rng(0)), law.timesteps(
            5, schedule, np.random.default_rng(0)) / 1000, rtol=1e-6)


@pytest.mark.parametrize("law", [*LAWS, *GAPPED], ids=name)
def test_law_is_that_of_its_density_and_inverse(law):
    grid = np.geomspace(1e-7, 1e7, 100_001)
    density = np.exp(law.log_prob(grid))
    cdf = integrate.cumulative_simpson(density * grid, x=np.log(grid), initial=0) + law.cdf(grid[0])
    np.testing.assert_allclose(law.cdf(grid[::997]), cdf[::997], atol=1e-4)
    u = np.concatenate([np.geomspace(1e-12, 0.5, 200), 1 - np.geomspace(1e-12, 0.5, 200)])
    np.testing.assert_allclose(law.cdf(law.icdf(u)), u, rtol=1e-9, atol=1e-12)
    assert np.all(np.diff(law.icdf(np.sort(u))) >= 0)
    assert np.all(np.isfinite(law.icdf(np.array([np.finfo(float).tiny, 1 - 2.0**-53]))))
    np.testing.assert_array_equal(law.cdf(np.array([-1.0, 0.0, np.inf])), [0, 0, 1])
    assert np.all(np.isfinite(law.cdf(law.icdf(np.array([0.5]))) + law.log_prob(law.icdf(np.array([0.25, 0.75])))))
    np.testing.assert_array_equal(law.log_prob(np.array([-1.0, 0.0])), -np.inf)
    again = NoiseLevelSampler.from_dict(json.loads(json.dumps(law.to_dict())))
    np.testing.assert_array_equal(again.icdf(u), law.icdf(u))


def test_laws_by_their_definitions():
    """In s, with numpy and scipy: SD3's Eq. 19 to 21, the hyperbolic cosine, and the shift as one of sigma."""
    u = np.linspace(0.01, 0.99, 99)
    s = {"mode": 1 - u - 1.29 * (np.cos(np.pi / 2 * u) ** 2 - 1 + u), "cosmap": 1 - 1 / (np.tan(np.pi / 2 * u) + 1),
         "logit-normal": 1 / (1 + np.exp(-stats.norm.ppf(u))), "uniform": u}
    for law, times in ((ModeSampler(), s["mode"][::-1]), (CosMapSampler(), s["cosmap"]),
                       (LogitNormalSampler(), s["logit-normal"]), (UniformFlowSampler(), s["uniform"])):
        np.testing.assert_allclose(law.icdf(u), times / (1 - times), rtol=1e-9)
        np.testing.assert_allclose(type(law)(shift=3).icdf(u), 3 * law.icdf(u))
    grid = np.linspace(0.001, 0.999, 999)
    shape = np.cosh(4 * (grid - 0.5))
    shape /= integrate.quad(lambda s: np.cosh(4 * (s - 0.5)), 0, 1)[0]
    np.testing.assert_allclose(np.exp(UShapedFlowSampler().log_prob(grid / (1 - grid))) / (1 - grid) ** 2, shape)
    t = FlowSchedule(shift=3)
    np.testing.assert_allclose(UniformFlowSampler(3).timestep_probabilities(t), 1e-3, atol=1e-14)
    np.testing.assert_allclose(UniformTimestepSampler(t).timestep_probabilities(t), 1e-3, atol=1e-14)


@pytest.mark.parametrize("scheduler", [sd3(), flux(1.15), RFlow(), RFlow(discrete=False), diffusers.DDPMScheduler()],
                         ids=["sd3", "flux", "rflow", "rflow-continuous", "ddpm"])
@pytest.mark.parametrize("base", [LogitNormalSampler(shift=3), LogNormalSampler(), UShapedFlowSampler()], ids=name)
def test_no_draw_in_the_gap(base, scheduler):
    """Also where the gap ends inside a cell, and for the float32 that a network is given."""
    low, high = 0.3, 1.5
    schedule, law = schedule_of(scheduler), GapSampler(base, (low, high))
    drawn = law.timesteps(4000, scheduler, torch.Generator().manual_seed(0)).double().numpy()
    sigma = schedule.sigmas[drawn.astype(int)] if isinstance(schedule, DDPMSchedule) else (
        schedule.sigma_of(np.minimum(drawn, 999.9999)))
    assert not np.any((sigma >= low) & (sigma <= high))
    probabilities = law.timestep_probabilities(schedule)
    inside = (schedule.sigmas >= low) & (schedule.sigmas <= high)
    assert probabilities[inside].max() == 0
    np.testing.assert_allclose(probabilities[~inside] / probabilities.sum(), base.timestep_probabilities(schedule)[
        ~inside] / base.timestep_probabilities(schedule)[~inside].sum(), atol=1e-14)


@pytest.mark.parametrize("schedule", [FlowSchedule(), FlowSchedule(shift=3), FlowSchedule(50, 2, "down"),
                                      FlowSchedule.of(sd3())], ids=name)
def test_levels_cells_and_times(schedule):
    total = schedule.timesteps
    assert np.all(np.diff(schedule.sigmas) > 0)
    assert np.all(np.isfinite(schedule.sigmas) & (schedule.sigmas > 0))
    np.testing.assert_array_equal(schedule.owner(schedule.sigmas), np.arange(total))
    np.testing.assert_allclose(schedule.sigma_of(schedule.timestep([0.01, 1, 50])), [0.01, 1, 50], rtol=1e-12)
    assert FlowSchedule.from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule
    law = UniformFlowSampler(schedule.shift)
    for first, last in ((0, 4), (10, 20), (total - 3, total - 1)):
        gap = GapSampler(law, schedule.sigma_range(first, last))
        inside = (np.arange(total) >= first) & (np.arange(total) <= last)
        np.testing.assert_array_equal(gap.timestep_probabilities(schedule) > 1e-9, ~inside)
    ci = ConfidenceIntervalSampler(total // 10, total // 2, schedule=schedule)
    np.testing.assert_allclose(ci.timestep_probabilities(schedule), ci.probabilities, atol=1e-14)
    assert NoiseLevelSampler.from_dict(json.loads(json.dumps(ci.to_dict()))).to_dict() == ci.to_dict()


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_mu_shifts_a_table_as_the_scheduler_would(kind):
    plain, moved = (diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind)
                    for _ in range(2))
    moved.set_timesteps(sigmas=np.linspace(1, 1 / 1000, 1000), mu=1.7)
    np.testing.assert_allclose(FlowSchedule.of(plain, mu=1.7).flow_times, FlowSchedule.of(moved).flow_times, rtol=1e-6)
    law = UniformFlowSampler(FlowSchedule.of(plain, mu=1.7).shift)
    np.testing.assert_allclose(law.timestep_probabilities(moved), 1e-3, rtol=1e-3)


@pytest.mark.parametrize(("scheduler", "n"), [(sd3(), 28), (sd3(1.0), 10)])
def test_steps_of_generation_are_those_of_diffusers(scheduler, n):
    scheduler, schedule = copy.deepcopy(scheduler), FlowSchedule.of(scheduler)
    sigma = schedule.steps(n)
    scheduler.set_timesteps(n)
    np.testing.assert_allclose(sigma / (1 + sigma), scheduler.sigmas[:-1].numpy(), rtol=1e-6)


def used():
    scheduler = sd3()
    scheduler.set_timesteps(28)
    return scheduler


@pytest.mark.parametrize(("make", "arguments", "word"), [
    (FlowSchedule.of, (used(),), "before set_timesteps"), (FlowSchedule.of, (diffusers.DDPMScheduler(),), "flow times"),
    (FlowSchedule.of, (diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True),), "invert_sigmas"),
    (lambda: FlowSchedule.of(sd3(), mu=1.0), (), "use_dynamic_shifting"),
    (FlowSchedule.of, (RFlow(transform=True),), "size="),
    (schedule_of, (types.SimpleNamespace(step=1),), "SimpleNamespace lacks"),
    (schedule_of, (diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),),
     "use_flow_sigmas"),
    (FlowSchedule, (1,), "2 to"), (FlowSchedule, (1000, -1), "shift"), (FlowSchedule, (1000, 1.0, "off"), "rounded"),
    (FlowSchedule.from_dict, ({"kind": "flow", "steps": 2},), "flow times"),
    (FlowSchedule, (2, 1.0, "up", (0.7, 0.2)), "increase inside"), (EDMSchedule, ((2.0, 1.0),), "distinct positive"),
    (LogitNormalSampler, (0, 0), "std > 0"), (LogitNormalSampler, (0, 1, 0), "shift"), (ModeSampler, (1.8,), "scale"),
    (UShapedFlowSampler, (0,), "sharpness"), (UniformFlowSampler, ("3",), "'3'"),
    (LogNormalSampler().indices, (4, FlowSchedule(), np.random.default_rng(0)), "draw timesteps"),
    (LogNormalSampler().indices, (4, used(), np.random.default_rng(0)), "before set_timesteps"),
    (GapSampler(LogNormalSampler(), (0.3, 9)).timestep_probabilities, (FlowSchedule.from_dict(
        {"timesteps": 3, "given": [0.3, 0.5, 0.8]}),), "leaves no timestep"),
    (NoiseLevelSampler.from_dict, ({"kind": "mode", "width": 1},), "not the description")])
def test_wrong_input(make, arguments, word):
    with pytest.raises(InputError, match=word) as caught:
        make(*arguments)
    assert "\n" not in str(caught.value)
