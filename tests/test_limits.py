"""The Gaussian law, and the sensitivity bound against dense Jacobians of truly circulant data."""

import numpy as np
import pytest
import torch

from geomem import InputError
from geomem.models import EDMDenoiser, EmpiricalDenoiser, GaussianDenoiser, build_network
from geomem.theory import circulant_eigenvalues, gaussian_law, pixel_sensitivity, sensitivity_bound


@pytest.fixture
def rng():
    return np.random.default_rng(50)


def shifts(points):
    """All wrap-around shifts of each signal (n, L) or image (n, H, W): their covariance is circulant."""
    axes = tuple(range(1, points.ndim))
    return np.concatenate([np.roll(points, step, axes) for step in np.ndindex(points.shape[1:])])


def dense_jacobian(train, sigma):
    flat = train.reshape(len(train), -1)
    covariance = np.cov(flat.T, bias=True)
    return covariance, covariance @ np.linalg.inv(covariance + sigma**2 * np.eye(len(covariance)))


@pytest.mark.parametrize("shape", [(9,), (8,), (6, 8), (5, 7)])
def test_eigenvalues_and_bound_of_circulant_data(rng, shape):
    points = rng.standard_normal((2, *shape))
    points = points + np.roll(points, 1, -1) + np.roll(points, 2, -1)  # neighbours correlate
    train = shifts(points)
    covariance, _ = dense_jacobian(train, 1.0)
    given = train if len(shape) == 1 else train[:, None]
    eigenvalues = circulant_eigenvalues(given)
    np.testing.assert_allclose(np.sort(eigenvalues.ravel()), np.linalg.eigvalsh(covariance), atol=1e-12)
    for sigma in (0.3, 1.0, 4.0):
        _, jacobian = dense_jacobian(train, sigma)
        bound = sensitivity_bound(eigenvalues, sigma)
        place = np.array(list(np.ndindex(shape)))
        offset = abs(place[:, None] - place)
        distance = np.minimum(offset, np.array(shape) - offset).max(axis=2)
        assert bound.distance.tolist() == list(range(1, distance.max() + 1))
        for r, sharp, simple in zip(bound.distance, bound.sharp, bound.simple, strict=True):
            assert abs(jacobian[distance == r]).max() <= sharp * (1 + 1e-12) <= simple * (1 + 2e-12)


def low_pass(d, passed):
    """Eigenvalues that make rho 1 for the ``passed`` lowest frequencies (an odd number) and 0 for the others."""
    lam = np.zeros(d)
    lam[np.arange(-(passed // 2), passed // 2 + 1)] = 1e12
    return lam


@pytest.mark.parametrize(("d", "passed", "r"), [(12, 3, 2), (20, 5, 2), (36, 9, 2), (30, 5, 3)])
def test_bound_is_attained(d, passed, r):
    """A low-pass rho has J_r = sin(pi m r/d) / (d sin(pi r/d)), m frequencies; where the sine above is 1 the bound with
    TV = 2 is J itself, so no smaller constant is true; on images with constant columns too.
    """
    assert abs(np.sin(np.pi * passed * r / d)) == pytest.approx(1)
    lam = low_pass(d, passed)
    jacobian = abs(np.fft.ifft(lam / (lam + 1)))
    bound = sensitivity_bound(lam, 1.0)
    assert bound.variation == pytest.approx(2)
    assert bound.sharp[r - 1] == pytest.approx(jacobian[r])
    assert bound.sharp[r - 1] == pytest.approx(1 / (d * np.sin(np.pi * r / d)))
    assert bound.simple[r - 1] == pytest.approx(2 / (4 * r))
    # An image with this law along its width, the same in each of 4 rows of frequencies: J_(0,r) is that of the signal.
    image = sensitivity_bound(np.tile(lam, (4, 1)), 1.0)
    assert image.sharp[r - 1] == pytest.approx(jacobian[r])


def test_short_axis_does_not_loosen_the_bound_beyond_its_reach(rng):
    """In 3 rows no two pixels are more than 1 apart, so from distance 2 on the width alone bounds."""
    lam = rng.exponential(size=(3, 20))
    bound = sensitivity_bound(lam, 0.5)
    rho = lam / (lam + 0.25)
    variation = abs(np.diff(rho, axis=1, append=rho[:, :1])).sum(axis=1).mean()
    r = np.arange(2, 11)
    np.testing.assert_allclose(bound.sharp[1:], variation / (40 * np.sin(np.pi * r / 20)))
    np.testing.assert_allclose(bound.simple[1:], variation / (4 * r))


def test_eigenvalues_of_real_data_are_the_averaged_covariance(rng):
    """The nearest circulant matrix averages the covariance along its wrapped diagonals; its eigenvalues are the DFT."""
    train = rng.standard_normal((40, 3, 7)) @ rng.standard_normal((7, 7))
    diagonals = np.zeros(7)
    for channel in range(3):
        covariance, _ = dense_jacobian(train[:, channel], 1.0)
        diagonals += [np.mean([covariance[p, (p + r) % 7] for p in range(7)]) / 3 for r in range(7)]
    np.testing.assert_allclose(circulant_eigenvalues(train), np.fft.fft(diagonals).real, atol=1e-12)


@pytest.mark.parametrize("shape", [(10,), (2, 6), (2, 4, 5)])
def test_measured_jacobian_of_the_gaussian_denoiser(rng, shape):
    """float32 denoiser: 1e-5."""
    train = rng.standard_normal((30, *shape))
    sigma = 0.7
    _, jacobian = dense_jacobian(train, sigma)
    index = tuple((size - 1) // 3 for size in shape)
    flat = int(np.ravel_multi_index(index, shape))
    x = rng.standard_normal((3, *shape))
    got = pixel_sensitivity(GaussianDenoiser(torch.from_numpy(train)), x, sigma, index)
    assert got.jacobian.shape == x.shape
    np.testing.assert_allclose(got.jacobian.reshape(3, -1), np.tile(jacobian[flat], (3, 1)), atol=1e-5)
    np.testing.assert_array_equal(
        pixel_sensitivity(GaussianDenoiser(torch.from_numpy(train)), x, sigma, flat).jacobian, got.jacobian)
    space = shape if len(shape) == 1 else shape[1:]
    centre = index[-len(space):]
    values = {}
    for place in np.ndindex(shape):
        offset = np.abs(np.array(place[-len(space):]) - centre)
        wrapped = np.minimum(offset, np.array(space) - offset)
        values.setdefault(int(wrapped.max()), []).append(abs(got.jacobian[(0, *place)]))
    assert got.distance.tolist() == sorted(values)
    np.testing.assert_allclose(got.mean, [np.mean(values[r]) for r in got.distance], rtol=1e-6)
    np.testing.assert_allclose(got.largest, [np.max(values[r]) for r in got.distance], rtol=1e-6)
    assert got.count.tolist() == [len(values[r]) for r in got.distance]


def test_measured_jacobian_of_a_network_is_a_finite_difference(rng):
    torch.manual_seed(0)
    denoiser = EDMDenoiser(build_network("mlp", (1, 4, 4))).eval()
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
        parameter.requires_grad_(False)
    x = torch.randn(1, 1, 4, 4)
    got = pixel_sensitivity(denoiser, x, 0.5, (0, 1, 2)).jacobian[0]
    step = 1e-2
    for place in [(0, 1, 2), (0, 3, 0)]:
        moved = torch.zeros_like(x)
        moved[(0, *place)] = step
        difference = (denoiser(x + moved, 0.5) - denoiser(x - moved, 0.5))[0, 0, 1, 2] / (2 * step)
        assert got[place] == pytest.approx(float(difference), rel=1e-2, abs=1e-4)


def test_gaussian_law_has_slope_minus_2_for_skewed_data_and_minus_3_for_symmetric(rng):
    """The leading term is the third cumulant over sigma^2; a set symmetric about its mean has none, so -3 is next."""
    skewed = rng.exponential(size=(200, 3))
    got = gaussian_law(skewed, [0.5, 50.0], draws=8)
    assert got.slope == pytest.approx(-2, abs=0.03)
    assert got.slope_low <= got.slope <= got.slope_high
    symmetric = np.concatenate([skewed, -skewed])
    assert gaussian_law(symmetric, [1.0], draws=8).slope == pytest.approx(-3, abs=0.03)


def test_difference_is_that_of_the_two_denoisers(rng):
    """Measured at the same noise but without centring: float32 outputs of size about 10."""
    train = rng.exponential(size=(40, 3)) + 10
    got = gaussian_law(train, [0.5, 2.0], draws=3, seed=4)
    from geomem.rng import generator

    noise = generator(4, "gaussian law noise").standard_normal((3, 40, 3))
    for level, sigma in enumerate([0.5, 2.0]):
        x = torch.from_numpy(train + sigma * noise).flatten(0, 1)
        empirical, linear = (denoiser(torch.from_numpy(train))(x, sigma).double()
                             for denoiser in (EmpiricalDenoiser, GaussianDenoiser))
        difference = float((empirical - linear).norm(dim=1).mean())
        assert got.difference[level] == pytest.approx(difference, rel=1e-4)
        length = float((linear - torch.from_numpy(train.mean(axis=0))).norm(dim=1).mean())
        assert got.relative[level] == pytest.approx(difference / length, rel=1e-4)


@pytest.mark.parametrize(("call", "what"), [
    (lambda x: gaussian_law(np.ones((4, 2)), [1.0]), "distinct"), (lambda x: gaussian_law(x, [-1.0]), "sigmas"),
    (lambda x: gaussian_law(x, [1.0], points=0), "points"), (lambda x: circulant_eigenvalues(x[:, 0]), "shape"),
    (lambda x: sensitivity_bound([1.0, -1.0], 1.0), "eigenvalues"),
    (lambda x: sensitivity_bound([1.0, 1.0], 0.0), "sigmas"),
    (lambda x: pixel_sensitivity(GaussianDenoiser(torch.from_numpy(x)), x, 1.0, 99), "index"),
    (lambda x: pixel_sensitivity(GaussianDenoiser(torch.from_numpy(x)), x, 1.0, (0, 0)), "index")])
def test_wrong_input_is_one_line(rng, call, what):
    with pytest.raises(InputError, match=what):
        call(rng.standard_normal((6, 3)))
