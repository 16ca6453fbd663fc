"""Noise schedules and noise-level samplers: laws against their densities, published constants, rejection."""

import json
import types

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from geomem.errors import InputError
from geomem.noise import (
    ConfidenceIntervalSampler,
    DDPMSchedule,
    GapSampler,
    LogNormalSampler,
    NoiseLevelSampler,
    UniformTimestepSampler,
    contribution,
    contribution_slope,
    edm_steps,
    flow_time_to_sigma,
    sigma_to_flow_time,
)

GAPS = [(0.3, 1.5)], [(1.7, 4.7)], [(0.05, 0.1), (0.4, 0.6), (0.5, 2.0)]
SOFT = GapSampler(LogNormalSampler(), (0.3, 1.5), keep=0.1)
# As diffusers gives it: float32, from another schedule (the one of Stable Diffusion).
SCALED = types.SimpleNamespace(alphas_cumprod=torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0))
CONTINUOUS = [LogNormalSampler(), LogNormalSampler(-0.4, 1.8), *(GapSampler(LogNormalSampler(), gap) for gap in GAPS),
              SOFT, GapSampler(SOFT, [(0.05, 0.4), (2, 3)], keep=0.5), GapSampler(SOFT, (0.5, 2)),
              GapSampler(GapSampler(LogNormalSampler(), (0.3, 1.5)), (1.0, 3.0), keep=0.2),
              GapSampler(LogNormalSampler(), [(0, 0.1), (5, np.inf)])]
DISCRETE = [UniformTimestepSampler(), ConfidenceIntervalSampler(100, 200), ConfidenceIntervalSampler(700, 1000),
            GapSampler(UniformTimestepSampler(), (0.43, 1.405)),
            GapSampler(ConfidenceIntervalSampler(100, 1000), [(0.1, 0.2), (3, 9)]),
            GapSampler(GapSampler(ConfidenceIntervalSampler(100, 1000), (0.43, 1.405)), (1, 5), keep=0.3),
            ConfidenceIntervalSampler.above(0.84)]
SAMPLERS = CONTINUOUS + DISCRETE


def name(sampler):
    return json.dumps(sampler.to_dict())


def independent(sampler, n, seed=0):
    """Plain, not stratified draws: what a Kolmogorov-Smirnov test assumes."""
    return sampler.icdf(np.random.default_rng(seed).uniform(size=n))


@pytest.mark.parametrize("sampler", CONTINUOUS, ids=name)
def test_continuous_law_is_that_of_its_density(sampler):
    grid = np.geomspace(1e-5, 1e4, 400_001)
    density = np.exp(sampler.log_prob(grid))
    cdf = integrate.cumulative_simpson(density * grid, x=np.log(grid), initial=0)
    assert cdf[-1] == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(sampler.cdf(grid[::997]), cdf[::997], atol=2e-5)


@pytest.mark.parametrize("sampler", DISCRETE, ids=name)
def test_discrete_law_is_that_of_its_probabilities(sampler):
    levels = DDPMSchedule().sigmas
    mass = np.exp(sampler.log_prob(levels))
    assert mass.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(sampler.cdf(levels), np.cumsum(mass), atol=1e-12)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
def test_inverse_cdf_inverts_and_sample_is_stratified(sampler):
    levels = DDPMSchedule().sigmas[::7] if sampler.discrete else np.geomspace(0.02, 6, 301)
    drawn = levels[np.isfinite(sampler.log_prob(levels))]
    assert drawn.size > 30
    # A discrete law jumps: below the jump's end it is the level itself. The CDF carries rounding of about 1e-16; where
    # the density of log sigma is 0.02 or more that is 1e-14 in log sigma, and a hair above 1e-12 beside a gap.
    u = sampler.cdf(drawn) - (1e-13 if sampler.discrete else 0)
    np.testing.assert_allclose(sampler.icdf(u), drawn, rtol=1e-9)
    nothing = np.array([-np.inf, -2.0, 0.0])
    np.testing.assert_array_equal(sampler.cdf(nothing), 0)
    np.testing.assert_array_equal(sampler.log_prob(nothing), -np.inf)
    assert (sampler.cdf(np.inf), sampler.cdf(-1)) == (1, 0)
    u = np.linspace(1e-6, 1 - 1e-6, 4001)
    sigma = sampler.icdf(u)
    assert np.all(np.diff(sigma) >= 0)
    assert np.all(sampler.cdf(sigma) >= u - 1e-9)
    assert np.all(sampler.cdf(sigma, inclusive=False) <= u + 1e-9)
    n = 512
    draws = np.sort(sampler.sample(n, np.random.default_rng(1)))
    cells = np.arange(n) / n
    assert np.all(draws >= sampler.icdf(np.clip(cells, 1e-300, 1)) * (1 - 1e-9))
    assert np.all(draws <= sampler.icdf(np.clip(cells + 1 / n, 0, 1 - 1e-16)) * (1 + 1e-9))


@pytest.mark.parametrize("keep", [0, 0.6])
@pytest.mark.parametrize("base", [LogNormalSampler(), UniformTimestepSampler(),
                                  GapSampler(ConfidenceIntervalSampler(100, 1000), (0.5, 0.9))], ids=name)
def test_gap_is_thinning(base, keep):
    """A draw inside is kept with probability ``keep``: the definition, by an independent coin; rejection for 0."""
    gaps = [(0.1, 0.6), (2.0, 3.0)]
    sampler = GapSampler(base, gaps, keep=keep)
    plain = independent(base, 100_000, seed=6)
    inside = np.any([(plain >= low) & (plain <= high) for low, high in gaps], axis=0)
    kept = ~inside | (np.random.default_rng(7).uniform(size=plain.size) < keep)
    ours = independent(sampler, 100_000, seed=8)
    assert keep or not np.any([(ours >= low) & (ours <= high) for low, high in gaps])
    for measured, stated in ((1 - kept, sampler.removed_mass), (inside, sampler.gap_mass)):
        assert abs(measured.mean() - stated) < 4 * np.sqrt(stated * (1 - stated) / plain.size)
    assert stats.ks_2samp(ours, plain[kept]).pvalue > 1e-3
    points = base.icdf(np.linspace(0.01, 0.99, 199))
    within = np.any([(points >= low) & (points <= high) for low, high in gaps], axis=0)
    ratio = np.exp(sampler.log_prob(points) - base.log_prob(points))
    np.testing.assert_allclose(ratio, np.where(within, keep, 1) / (1 - sampler.removed_mass), rtol=1e-9)


@pytest.mark.parametrize("sampler", [LogNormalSampler(), SOFT, DISCRETE[-2]], ids=name)
def test_torch_generators_give_tensors_of_the_same_law(sampler):
    one, two = (sampler.sample(20_000, torch.Generator().manual_seed(3)) for _ in range(2))
    assert one.dtype == torch.float64
    assert torch.equal(one, two)
    assert not torch.equal(one, sampler.sample(20_000, torch.Generator().manual_seed(4)))
    u = sampler.cdf(one.numpy(), inclusive=False)
    # Stratified: the k-th smallest of n draws lies in the k-th n-th of the law.
    assert np.all(np.sort(u) <= np.arange(1, 20_001) / 20_000 + 1e-9)
    assert np.all(np.sort(sampler.cdf(one.numpy())) >= np.arange(20_000) / 20_000 - 1e-9)
    assert abs(np.corrcoef(np.arange(20_000), one.log().numpy())[0, 1]) < 4 / np.sqrt(20_000)  # in random order
    timesteps = sampler.timesteps(100, SCALED, torch.Generator().manual_seed(3))
    assert (timesteps.dtype, timesteps.shape) == (torch.int64, (100,))
    assert sampler.timesteps(100, SCALED, np.random.default_rng(3)).dtype == np.int64
    assert sampler.sample(0, torch.Generator()).shape == sampler.timesteps(0, None, torch.Generator()).shape == (0,)


def test_a_uniform_number_that_rounds_to_one_gives_a_finite_level():
    """(n - 1 + u) / n is 1 for u just below 1, where the inverse CDF of the lognormal is infinite."""
    class Last(np.random.Generator):
        def uniform(self, low, high, size):
            return np.full(size, 1 - 2.0**-53)

    draws = LogNormalSampler().sample(1000, Last(np.random.PCG64(0)))
    assert np.all(np.isfinite(draws))


def test_a_timestep_owns_the_levels_nearest_to_its_own():
    schedule = DDPMSchedule.of(SCALED)
    sigma = np.exp(np.random.default_rng(0).uniform(np.log(1e-4), np.log(1e4), 5000))
    nearest = np.abs(np.log(sigma)[:, None] - np.log(schedule.sigmas)).argmin(1)
    np.testing.assert_array_equal(schedule.owner(sigma), nearest)
    np.testing.assert_array_equal(schedule.owner(schedule.sigmas), np.arange(1000))
    np.testing.assert_allclose(schedule.snr, schedule.sigmas**-2.0, rtol=1e-9)


@pytest.mark.parametrize(("sampler", "schedule"), [(sampler, [None, SCALED][k % 2]) for k, sampler in
                                                   enumerate(SAMPLERS)], ids=lambda part: str(type(part)))
def test_timesteps_have_the_stated_probabilities(sampler, schedule):
    probabilities = sampler.timestep_probabilities(schedule)
    assert probabilities.sum() == pytest.approx(1, abs=1e-12)
    assert probabilities.min() > -1e-15
    # Stratified draws: a timestep holds all the n-ths of the law inside its cell and a part of two more.
    n = 50_000
    counts = np.bincount(sampler.timesteps(n, schedule, np.random.default_rng(2)), minlength=1000)
    assert np.abs(counts - n * probabilities).max() < 2 + 1e-6
    assert counts[probabilities < 1e-13].sum() == 0


def test_timestep_probabilities_are_the_masses_of_the_cells():
    """Written out: normal masses between the midpoints of log sigma_t, and a timestep law keeps its own."""
    log_sigma = np.log(DDPMSchedule.of(SCALED).sigmas)
    middles = np.concatenate([[-np.inf], (log_sigma[1:] + log_sigma[:-1]) / 2, [np.inf]])
    np.testing.assert_allclose(LogNormalSampler().timestep_probabilities(SCALED),
                               np.diff(stats.norm(-1.2, 1.2).cdf(middles)), atol=1e-14)
    for sampler in (UniformTimestepSampler(SCALED), ConfidenceIntervalSampler(100, 400, schedule=SCALED)):
        np.testing.assert_allclose(sampler.timestep_probabilities(SCALED), sampler.probabilities, atol=1e-14)
    np.testing.assert_allclose(UniformTimestepSampler(SCALED).timestep_probabilities(SCALED), 1e-3, atol=1e-14)


@pytest.mark.parametrize(("first", "last"), [(125, 325), (0, 10), (900, 999), (17, 17)])
@pytest.mark.parametrize("base", [LogNormalSampler(0.5), UniformTimestepSampler(), ConfidenceIntervalSampler(0, 1000)],
                         ids=name)
def test_gap_in_timesteps_takes_out_exactly_these(base, first, last):
    plain = base.timestep_probabilities()
    sampler = GapSampler(base, DDPMSchedule().sigma_range(first, last))
    inside = (np.arange(1000) >= first) & (np.arange(1000) <= last)
    assert sampler.removed_mass == pytest.approx(plain[inside].sum(), rel=1e-9)
    np.testing.assert_allclose(sampler.timestep_probabilities(),
                               np.where(inside, 0, plain) / (1 - plain[inside].sum()), atol=1e-14)


def test_schedule_of_diffusers_and_zero_terminal_signal():
    assert DDPMSchedule.of(None) == DDPMSchedule()
    read = DDPMSchedule.of(SCALED)
    np.testing.assert_array_equal(read.alpha_bar, SCALED.alphas_cumprod.numpy().astype(float))
    assert DDPMSchedule.of(read) is read
    assert DDPMSchedule.from_dict(json.loads(json.dumps(read.to_dict()))) == read
    assert DDPMSchedule.from_dict(DDPMSchedule(100).to_dict()) == DDPMSchedule(100)
    dark = DDPMSchedule.of(types.SimpleNamespace(alphas_cumprod=[0.9, 0.5, 0.0]))
    assert dark.sigmas[-1] == pytest.approx(4096, rel=1e-7)


@pytest.mark.parametrize("sampler", [*SAMPLERS, ConfidenceIntervalSampler(5, 50, 0.7, DDPMSchedule(100)),
                                     GapSampler(UniformTimestepSampler(SCALED), (1, 2))], ids=lambda s: name(s)[:80])
def test_description_makes_the_same_sampler_again(sampler):
    again = NoiseLevelSampler.from_dict(json.loads(json.dumps(sampler.to_dict(), allow_nan=False)))
    u = np.linspace(1e-6, 1 - 1e-6, 999)
    np.testing.assert_array_equal(again.icdf(u), sampler.icdf(u))
    assert again.to_dict() == sampler.to_dict()


@pytest.mark.parametrize("coverage", [0.5, 0.9])
@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.84, 1.6, 4.7, 20.0])
def test_interval_above_the_zone_draws_more_noise(sigma, coverage):
    sampler = ConfidenceIntervalSampler.above(sigma, coverage)
    quiet = DDPMSchedule().sigmas <= sigma
    assert sampler.c_low == quiet.sum()
    assert (sampler.c_high, sampler.coverage) == (1000, coverage)
    share = sampler.probabilities[quiet].sum()
    assert share <= (1 - coverage) * (0.5 + sampler.c_low / 1000)
    if coverage == 0.9 and sampler.c_low > 56:
        assert share < quiet.mean()
    assert sampler.probabilities.min() > 0


@pytest.mark.parametrize("sampler", [LogNormalSampler(), SOFT, ConfidenceIntervalSampler(100, 200)], ids=name)
def test_contribution_is_probability_times_signal_to_noise(sampler):
    product, expected = 1.0, []
    for beta, p in zip(np.linspace(1e-4, 0.02, 1000), sampler.timestep_probabilities(), strict=True):
        product *= 1 - beta
        expected.append(p * product / (1 - product))
    np.testing.assert_allclose(contribution(sampler), expected, rtol=1e-9)
    assert contribution(sampler, SCALED).shape == (1000,)


@pytest.mark.parametrize(("low", "high"), [(100, 200), (700, 1000), (100, 1000), (0.5, 3)])
def test_contribution_slope_by_finite_differences(low, high):
    """The interval moved by h at its width. Central differences err by h^2/6 times the third derivative in mu of a
    cell's mass, a difference of two second derivatives of the normal density: at most 0.58 / s^3, the tails' part a
    thousandth of that."""
    low, high, h = low + 0.1, high - 0.1, 1e-2
    sampler = ConfidenceIntervalSampler(low, high)
    up, down = (contribution(ConfidenceIntervalSampler(low + step, high + step)) for step in (h, -h))
    error = np.abs((up - down) / (2 * h) - contribution_slope(sampler)) / DDPMSchedule().snr
    assert error.max() < 0.581 / sampler.std**3 * h**2 / 6 + 1e-13
    assert np.abs(sampler.probability_slope()).max() > 1e3 * error.max()
    assert sampler.probability_slope().sum() == pytest.approx(0, abs=1e-15)


def test_gap_edges_are_closed_for_discrete_laws():
    levels = DDPMSchedule().sigmas
    sampler = GapSampler(UniformTimestepSampler(), (levels[100], levels[200]))
    assert sampler.removed_mass == pytest.approx(0.101, abs=1e-12)
    assert GapSampler(LogNormalSampler(), (1.7, 4.7)).removed_mass == pytest.approx(
        np.diff(stats.norm(-1.2, 1.2).cdf(np.log([1.7, 4.7])))[0], rel=1e-12)
    draws = independent(sampler, 100_000)
    assert not np.any((draws >= levels[100]) & (draws <= levels[200]))
    assert {levels[99], levels[201]} <= set(draws.tolist())


def test_gap_takes_zones_pairs_and_lists_and_merges_overlaps():
    class Zone:
        sigma_low, sigma_high = 0.4, 0.8

    assert GapSampler(LogNormalSampler(), Zone()).gaps == ((0.4, 0.8),)
    assert GapSampler(LogNormalSampler(), [Zone(), (0.7, 1.0), (2, 3)]).gaps == ((0.4, 1.0), (2.0, 3.0))


@pytest.mark.parametrize(("low", "high", "std", "inside"), [(100, 200, 74.13, 0.978), (700, 1000, 222.39, 0.750),
                                                            (100, 1000, 667.17, 0.545)])
def test_confidence_interval_is_equation_12(low, high, std, inside):
    """``lam p_trunc(t) + (1 - lam)/T`` written out with scipy's truncated normal, integrated over each timestep; the
    published constants for T = 1000.
    """
    sampler = ConfidenceIntervalSampler(low, high)
    assert (sampler.mean, round(sampler.std, 2), round(sampler.inside_mass, 3)) == ((low + high) / 2, std, inside)
    a, b = (0 - sampler.mean) / sampler.std, (1000 - sampler.mean) / sampler.std
    truncated = stats.truncnorm(a, b, loc=sampler.mean, scale=sampler.std)
    lam = sampler.inside_mass
    expected = lam * np.diff(truncated.cdf(np.arange(1001))) + (1 - lam) / 1000
    np.testing.assert_allclose(sampler.probabilities, expected, atol=1e-13)


def test_ddpm_schedule_is_that_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    reference = diffusers.DDPMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02)
    schedule = DDPMSchedule()
    # diffusers accumulates 1000 factors in float32
    np.testing.assert_allclose(schedule.alpha_bar, reference.alphas_cumprod.numpy(), rtol=1000 * 2**-23)
    assert [round(float(schedule.sigmas[t]), 3) for t in (125, 325)] == [0.430, 1.405]
    np.testing.assert_allclose(schedule.timestep(schedule.sigmas[[0, 17, 999]]), [0, 17, 999], atol=1e-9)
    assert schedule.timesteps_within(0.43, 1.41) == (126, 325)
    assert schedule.timesteps_within(0.4300, 0.4301) is None


def test_lognormal_moves_with_the_scale_of_the_data():
    """Data and noise times k are the same problem: the law of sigma / k must not change; EDM's own at 0.5."""
    assert LogNormalSampler.for_data(0.5).to_dict() == LogNormalSampler().to_dict()
    u = np.linspace(0.01, 0.99, 9)
    np.testing.assert_allclose(LogNormalSampler.for_data(1.7).icdf(u) / 1.7, LogNormalSampler().icdf(u) / 0.5)


def test_edm_steps():
    """Karras et al. 2022, Eq. 5; the values that [G]'s windows name."""
    steps = edm_steps()
    assert len(steps) == 18
    assert (steps[0], steps[-1]) == (80.0, 0.002)
    assert [round(float(s), 3) for s in steps[[5, 6]]] == [12.910, 8.401]
    np.testing.assert_allclose(np.diff(steps ** (1 / 7)), (0.002 ** (1 / 7) - 80 ** (1 / 7)) / 17, rtol=1e-9)


def test_flow_time():
    t = np.linspace(0.01, 1, 50)
    np.testing.assert_allclose(sigma_to_flow_time(flow_time_to_sigma(t)), t, rtol=1e-14)
    assert flow_time_to_sigma(0.25) == 3


GAP, LAW = GapSampler, LogNormalSampler()
HALF = GapSampler(LAW, (0.3, np.inf))


@pytest.mark.parametrize(("make", "arguments", "word"), [
    *[(GAP, (LAW, gap), word) for gap, word in (
        ((1.5, 0.3), "low < high"), ((-0.1, 0.3), "0 <= low"), ((float("nan"), 0.3), "low < high"),
        ((1e6, 1e7), "outside"), ((1e-9, 1e9), "no noise level"), ([], "at least one"), (None, "None is no gap"),
        (torch.tensor([0.3, 1.5]), "a Tensor is no gap"), ((torch.tensor(0.3), torch.tensor(1.5)), "not by a Tensor"),
        ("0.3:1.5", "read_zone"), (("0.3", "1.5"), "'0.3' is no gap"), ({"low": 1}, "a dict is no gap"),
        (0.3, "0.3 is no gap"), ([(0.3, 1.5), None], "None is no gap"))],
    (GAP, (UniformTimestepSampler(), (200, 300)), "outside"), (GAP, ("lognormal", (0.3, 1.5)), "not a str"),
    (GAP, (HALF, (0.4, 0.6)), "outside"), (GAP, (HALF, (0, 0.3)), "no noise level"),
    *[(lambda keep: GAP(LAW, (0.3, 1.5), keep=keep), (keep,), word)
      for keep, word in ((1, "keeps"), (-0.1, "keeps"), ("half", "'half'"))],
    *[(ConfidenceIntervalSampler, arguments, word) for arguments, word in (
        ((200, 100), "low < high"), ((0, 1001), "low < high"), ((0, 100, 1), "central coverage"),
        (("100", 200), "'100'"))],
    *[(ConfidenceIntervalSampler.above, (sigma,), "no timestep") for sigma in (1e3, float("nan"))],
    (LogNormalSampler, (0, 0), "std"), (LogNormalSampler, ("wide",), "'wide'"),
    (LogNormalSampler.for_data, (-1,), "positive"), (UniformTimestepSampler, ("ddpm",), "alphas_cumprod"),
    *[(UniformTimestepSampler, (types.SimpleNamespace(alphas_cumprod=values),), "decrease")
      for values in (torch.ones(9), [0.9, 0.5, -0.1])],
    (LAW.timestep_probabilities, (SCALED.alphas_cumprod,), "which Tensor lacks"), (LAW.sample, (4, 0), "generator"),
    *[(LAW.sample, (n, np.random.default_rng(0)), str(n)) for n in (-4, 2.5)],
    (DDPMSchedule().sigma_range, (5, 4), "first <= last"), (DDPMSchedule().sigma_range, (5, 1000), "<= 999"),
    (contribution_slope, (UniformTimestepSampler(),), "UniformTimestepSampler"),
    *[(NoiseLevelSampler.from_dict, (document,), word) for document, word in (
        ({"kind": "cosine"}, "cosine"), ({"kind": "lognormal"}, "mean"), (["lognormal"], "not the description"),
        ({"kind": "gap", "gaps": [1], "keep": 0}, "not the description"),
        ({"kind": "uniform", "schedule": {"steps": 9}}, "schedule"))],
    (edm_steps, (1,), "2 steps")])
def test_wrong_input(make, arguments, word):
    with pytest.raises(InputError, match=word) as caught:
        make(*arguments)
    assert "\n" not in str(caught.value)
