"""Noise schedules and noise-level samplers: laws against their densities, published constants, rejection."""

import numpy as np
import pytest
from scipy import integrate, stats

from geomem.errors import InputError
from geomem.noise import (
    ConfidenceIntervalSampler,
    DDPMSchedule,
    GapSampler,
    LogNormalSampler,
    UniformTimestepSampler,
    edm_steps,
    flow_time_to_sigma,
    sigma_to_flow_time,
)

GAPS = [(0.3, 1.5)], [(1.7, 4.7)], [(0.05, 0.1), (0.4, 0.6), (0.5, 2.0)]
CONTINUOUS = [LogNormalSampler(), LogNormalSampler(-0.4, 1.8), *(GapSampler(LogNormalSampler(), gap) for gap in GAPS)]
DISCRETE = [UniformTimestepSampler(), ConfidenceIntervalSampler(100, 200), ConfidenceIntervalSampler(700, 1000),
            GapSampler(UniformTimestepSampler(), (0.43, 1.405)),
            GapSampler(ConfidenceIntervalSampler(100, 1000), [(0.1, 0.2), (3, 9)])]
SAMPLERS = CONTINUOUS + DISCRETE


def independent(sampler, n, seed=0):
    """Plain, not stratified draws: what a Kolmogorov-Smirnov test assumes."""
    return sampler.icdf(np.random.default_rng(seed).uniform(size=n))


@pytest.mark.parametrize("sampler", CONTINUOUS, ids=lambda s: str(s.to_dict()))
def test_continuous_law_is_that_of_its_density(sampler):
    grid = np.geomspace(1e-5, 1e4, 400_001)
    density = np.exp(sampler.log_prob(grid))
    cdf = integrate.cumulative_simpson(density * grid, x=np.log(grid), initial=0)
    assert cdf[-1] == pytest.approx(1, abs=1e-3)
    draws = independent(sampler, 20_000)
    assert stats.kstest(draws, lambda x: np.interp(x, grid, cdf)).pvalue > 1e-3
    np.testing.assert_allclose(sampler.cdf(grid[::997]), cdf[::997], atol=2e-5)


@pytest.mark.parametrize("sampler", DISCRETE, ids=lambda s: str(s.to_dict()))
def test_discrete_law_is_that_of_its_probabilities(sampler):
    levels = DDPMSchedule().sigmas
    mass = np.exp(sampler.log_prob(levels))
    assert mass.sum() == pytest.approx(1, abs=1e-12)
    draws = independent(sampler, 200_000)
    observed = np.bincount(np.searchsorted(levels, draws), minlength=1000)
    assert observed[mass == 0].sum() == 0
    kept = mass * draws.size > 5
    assert stats.chisquare(np.append(observed[kept], observed[~kept].sum() + 1e-9),
                           draws.size * np.append(mass[kept], mass[~kept].sum() + 1e-9 / draws.size)).pvalue > 1e-3
    np.testing.assert_allclose(sampler.cdf(levels), np.cumsum(mass), atol=1e-12)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: str(s.to_dict()))
def test_inverse_cdf_inverts_and_sample_is_stratified(sampler):
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


def test_same_generator_gives_the_same_levels():
    sampler = GapSampler(LogNormalSampler(), (0.3, 1.5))
    one, two = (sampler.sample(100, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("base", [LogNormalSampler(), UniformTimestepSampler(), ConfidenceIntervalSampler(100, 1000)])
@pytest.mark.parametrize("gap", GAPS)
def test_gap_equals_rejection_and_reports_the_mass_it_removes(base, gap):
    sampler = GapSampler(base, gap)
    plain = independent(base, 100_000, seed=4)
    inside = np.any([(plain >= low) & (plain <= high) for low, high in gap], axis=0)
    spread = np.sqrt(sampler.removed_mass * (1 - sampler.removed_mass) / plain.size)
    assert abs(inside.mean() - sampler.removed_mass) < 4 * spread
    ours = independent(sampler, 100_000, seed=5)
    assert stats.ks_2samp(ours, plain[~inside]).pvalue > 1e-3
    assert not np.any([(ours >= low) & (ours <= high) for low, high in gap])


def test_gap_edges_are_closed_for_discrete_laws():
    levels = DDPMSchedule().sigmas
    sampler = GapSampler(UniformTimestepSampler(), (levels[100], levels[200]))
    assert sampler.removed_mass == pytest.approx(0.101, abs=1e-12)
    draws = independent(sampler, 100_000)
    assert not np.any((draws >= levels[100]) & (draws <= levels[200]))
    assert {levels[99], levels[201]} <= set(draws.tolist())


def test_gap_takes_zones_pairs_and_lists_and_merges_overlaps():
    class Zone:
        sigma_low, sigma_high = 0.4, 0.8

    assert GapSampler(LogNormalSampler(), Zone()).gaps == ((0.4, 0.8),)
    assert GapSampler(LogNormalSampler(), [Zone(), (0.7, 1.0), (2, 3)]).gaps == ((0.4, 1.0), (2.0, 3.0))


def test_cifar10_zone_holds_five_to_six_percent_of_edm_draws():
    """With the zone [1.7, 4.7] of [G] on 1,000 CIFAR-10 images, and the exact lognormal mass."""
    sampler = GapSampler(LogNormalSampler(), (1.7, 4.7))
    exact = stats.norm.cdf((np.log(4.7) + 1.2) / 1.2) - stats.norm.cdf((np.log(1.7) + 1.2) / 1.2)
    assert sampler.removed_mass == pytest.approx(exact, rel=1e-12)
    assert 0.05 < sampler.removed_mass < 0.065


@pytest.mark.parametrize(("low", "high", "std", "inside"), [(100, 200, 74.13, 0.978), (700, 1000, 222.39, 0.750),
                                                            (100, 1000, 667.17, 0.545)])
def test_confidence_interval_constants(low, high, std, inside):
    """[C] Eq. 9-12 with half of the normal inside the interval, checked figures for T = 1000."""
    sampler = ConfidenceIntervalSampler(low, high)
    assert sampler.mean == (low + high) / 2
    assert round(sampler.std, 2) == std
    assert round(sampler.inside_mass, 3) == inside
    assert sampler.probabilities.sum() == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize(("low", "high"), [(100, 200), (700, 1000), (100, 1000)])
def test_confidence_interval_is_equation_12(low, high):
    """``lam p_trunc(t) + (1 - lam)/T`` written out with scipy's truncated normal, integrated over each timestep."""
    sampler = ConfidenceIntervalSampler(low, high)
    a, b = (0 - sampler.mean) / sampler.std, (1000 - sampler.mean) / sampler.std
    truncated = stats.truncnorm(a, b, loc=sampler.mean, scale=sampler.std)
    lam = sampler.inside_mass
    expected = lam * np.diff(truncated.cdf(np.arange(1001))) + (1 - lam) / 1000
    np.testing.assert_allclose(sampler.probabilities, expected, atol=1e-13)
    t = np.linspace(0, 1000, 41)
    np.testing.assert_allclose(np.exp(sampler.log_density(t)), lam * truncated.pdf(t) + (1 - lam) / 1000, rtol=1e-10)


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


@pytest.mark.parametrize(("make", "word"), [
    (lambda: GapSampler(LogNormalSampler(), (1.5, 0.3)), "low < high"),
    (lambda: GapSampler(LogNormalSampler(), (-0.1, 0.3)), "0 <= low"),
    (lambda: GapSampler(LogNormalSampler(), (float("nan"), 0.3)), "low < high"),
    (lambda: GapSampler(LogNormalSampler(), (1e6, 1e7)), "outside"),
    (lambda: GapSampler(UniformTimestepSampler(), (200, 300)), "outside"),
    (lambda: GapSampler(LogNormalSampler(), (1e-9, 1e9)), "no noise level"),
    (lambda: GapSampler(LogNormalSampler(), []), "at least one"),
    (lambda: ConfidenceIntervalSampler(200, 100), "low < high"),
    (lambda: ConfidenceIntervalSampler(0, 1001), "low < high"),
    (lambda: ConfidenceIntervalSampler(0, 100, coverage=1), "central coverage"),
    (lambda: LogNormalSampler(std=0), "std"),
    (lambda: edm_steps(1), "2 steps"),
])
def test_wrong_input(make, word):
    with pytest.raises(InputError, match=word) as caught:
        make()
    assert "\n" not in str(caught.value)
