"""EDM's sampler against an ODE with a known solution and scipy, and one seed per sample."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.integrate import solve_ivp

from geomem.errors import InputError
from geomem.generation import Samples, edm_sample, generate, latents
from geomem.models import EDMDenoiser, EmpiricalDenoiser, GaussianDenoiser, build_network
from geomem.noise import edm_steps


def gaussian(variance):
    """Optimal denoiser of N(0, variance): the ODE's solution is ``x(s) = x(S) sqrt((v + s^2)/(v + S^2))``."""
    return lambda x, sigma, labels=None: x * variance / (variance + sigma**2)


@pytest.mark.parametrize(("method", "order"), [("heun", 2), ("euler", 1)])
def test_order_of_convergence_to_the_exact_flow(method, order):
    latent = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    exact = latent * 80 * np.sqrt(0.25 / (0.25 + 80**2))
    errors = []
    for n in (64, 128, 256):
        # The denoiser sees float32, so the finest grid keeps well above its rounding.
        sample = edm_sample(gaussian(0.25), latent, edm_steps(n), method=method).double()
        errors.append(float((sample - exact).abs().max()))
    rates = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all(np.abs(rates - order) < 0.25), (rates, errors)


def test_against_scipy_on_a_nonlinear_denoiser():
    """Empirical optimal denoiser of five points in the plane, integrated by an adaptive solver as well."""
    rng = np.random.default_rng(0)
    denoiser = EmpiricalDenoiser(torch.from_numpy(rng.normal(size=(5, 2))))

    def slope(sigma, x):
        noisy = torch.from_numpy(x.reshape(1, 2))
        return ((noisy - denoiser(noisy, float(sigma)).double()) / sigma).numpy().ravel()

    for latent in rng.normal(size=(3, 2)):
        reference = solve_ivp(slope, (80, 0.002), 80 * latent, rtol=1e-6, atol=1e-8).y[:, -1]
        ours = edm_sample(denoiser, torch.from_numpy(latent[None]), edm_steps(300)).numpy().ravel()
        np.testing.assert_allclose(ours, reference, atol=5e-3)


def test_empirical_denoiser_generates_training_points():
    rng = np.random.default_rng(1)
    train = rng.normal(size=(30, 8)).astype(np.float32)
    samples = generate(EmpiricalDenoiser(torch.from_numpy(train)), range(64), (8,))
    distances = np.linalg.norm(samples[:, None] - train[None], axis=-1)
    assert np.median(distances.min(1)) < 1e-3


def test_gaussian_denoiser_generates_its_covariance():
    rng = np.random.default_rng(2)
    train = rng.normal(size=(500, 3)) @ np.array([[1.0, 0, 0], [0.8, 0.5, 0], [0.2, 0.1, 0.3]]) + 1
    samples = generate(GaussianDenoiser(torch.from_numpy(train)), range(4000), (3,), sigmas=edm_steps(64))
    cov = np.cov(train.T, ddof=0)
    # A covariance entry of n draws has standard deviation sqrt((c_ii c_jj + c_ij^2) / n); allow 4 and 2% of bias.
    spread = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / 4000)
    assert np.all(np.abs(np.cov(samples.T) - cov) < 4 * spread + 0.02 * np.sqrt(np.outer(np.diag(cov), np.diag(cov))))
    np.testing.assert_allclose(samples.mean(0), train.mean(0), atol=4 * np.sqrt(cov.max() / 4000) + 0.02)


def test_sample_depends_on_its_seed_alone():
    torch.manual_seed(0)
    denoiser = EDMDenoiser(build_network("unet-tiny", (1, 8, 8)))
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    denoiser.eval()
    together = generate(denoiser, range(10, 17), (1, 8, 8), batch=256)
    apart = generate(denoiser, [16, 12, 10], (1, 8, 8), batch=2)
    # Convolutions of other batch sizes sum in another order: float32 rounding, amplified over 35 evaluations.
    np.testing.assert_allclose(apart, together[[6, 2, 0]], rtol=0, atol=1e-3)
    np.testing.assert_array_equal(latents([16, 12], (3,)), latents(range(10, 17), (3,))[[6, 2]])
    np.testing.assert_array_equal(generate(denoiser, range(10, 17), (1, 8, 8)), together)


def test_latents_are_standard_normal():
    values = latents(range(2000), (16,))
    assert values.dtype == np.float32
    assert abs(values.mean()) < 4 / np.sqrt(values.size)
    assert abs(values.std() - 1) < 4 / np.sqrt(2 * values.size)


def test_unknown_method():
    with pytest.raises(InputError, match="heun or euler"):
        edm_sample(gaussian(1.0), torch.zeros(1, 1), method="rk4")


def test_pictures_are_the_samples_and_nothing_else_becomes_one(tmp_path):
    values = np.random.default_rng(0).uniform(-1.2, 1.2, (3, 3, 5, 4)).astype(np.float32)
    Samples(values, {}).save_pictures(tmp_path / "colour")
    for name, value in zip(("000000", "000001", "000002"), values, strict=True):
        drawn = np.asarray(Image.open(tmp_path / "colour" / f"{name}.png")).transpose(2, 0, 1) / 127.5 - 1
        assert np.abs(drawn - value.clip(-1, 1)).max() <= 0.5 / 127.5 + 1e-6
    for shape in ((7,), (2, 7), (4, 5, 4)):
        with pytest.raises(InputError, match="no images of 1 or 3 channels"):
            Samples(np.zeros((2, *shape), np.float32), {}).save_pictures(tmp_path / "other")
        assert not (tmp_path / "other").exists()
