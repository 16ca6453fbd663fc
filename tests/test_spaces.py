"""Principal components against scikit-learn and by what a projection must do."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from test_points import Store

from geomem.errors import InputError
from geomem.geometry import coverage_bounds, max_posterior_weight, principal_components, shell_coverage, spaces

SCALES = 3.0 ** -np.arange(12)  # well separated components


def cloud(n, seed=0):
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(9).standard_normal((12, 12)))[0]
    return (rng.standard_normal((n, 12)) * SCALES) @ turn + 5


@pytest.mark.parametrize("n", [9, 12, 200])  # fewer points than values, as many, more: two ways to the axes
def test_axes_and_variance_are_those_of_scikit_learn(n):
    train, heldout = cloud(n), cloud(7, seed=1)
    projection = principal_components(train, 5)
    reference = PCA(5, svd_solver="full").fit(train)
    np.testing.assert_allclose(projection.axes @ projection.axes.T, np.eye(5), atol=1e-12)
    signs = np.sign((projection.axes * reference.components_).sum(axis=1))
    np.testing.assert_allclose(projection.axes, signs[:, None] * reference.components_, atol=1e-8)
    np.testing.assert_allclose(projection(heldout), signs * reference.transform(heldout), atol=1e-8)
    assert projection.variance_kept == pytest.approx(reference.explained_variance_ratio_.sum(), rel=1e-10)
    assert (projection.axes.max(axis=1) == abs(projection.axes).max(axis=1)).all()


def test_held_out_points_shape_nothing_and_types_do_not_matter():
    train, heldout = cloud(30), cloud(10, seed=1)
    projection = principal_components(train.reshape(30, 3, 2, 2), 4)
    np.testing.assert_array_equal(projection(heldout.reshape(10, 3, 2, 2)), projection(heldout))
    np.testing.assert_array_equal(projection(torch.from_numpy(heldout)), projection(heldout))
    np.testing.assert_allclose(projection(heldout)[3:4], projection(heldout[3:4]), rtol=1e-12)


@pytest.mark.parametrize("n", [9, 12, 50])  # fewer points than values: inner products of the points instead of an SVD
def test_blocks_do_not_matter(monkeypatch, n):
    train = cloud(n)
    whole = principal_components(train, 5)
    monkeypatch.setattr(spaces, "BLOCK_ENTRIES", 4 * 12)
    blocks = principal_components(train, 5)
    np.testing.assert_allclose(blocks.axes, whole.axes, atol=1e-10)
    np.testing.assert_allclose(blocks.axes @ blocks.axes.T, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(blocks(train), whole(train), atol=1e-10)
    assert blocks.variance_kept == pytest.approx(whole.variance_kept, rel=1e-12)


def test_points_elsewhere_are_never_read_whole(monkeypatch):
    monkeypatch.setattr(spaces, "BLOCK_ENTRIES", 5 * 12)
    monkeypatch.setattr("geomem.points.CHUNK_BYTES", 5 * 12 * 8)
    for n in (11, 60):
        stored = Store(cloud(n).reshape(n, 3, 4))
        projection = principal_components(stored, 3)
        np.testing.assert_allclose(projection(stored), principal_components(cloud(n), 3)(cloud(n)), atol=1e-12)
        assert stored.most == 5


def test_all_components_are_a_rotation():
    """Distances stay, so bounds on C, which depend on nothing else, do too; W and C up to their noise."""
    train, heldout = cloud(60), cloud(80, seed=1)
    projection = principal_components(train, 12)
    assert projection.variance_kept == pytest.approx(1)
    turned = projection(train), projection(heldout)
    sigmas = [0.1, 0.3, 0.6]
    np.testing.assert_allclose(coverage_bounds(*turned, sigmas).lower,
                               coverage_bounds(train, heldout, sigmas).lower, rtol=1e-6)
    ours = max_posterior_weight(turned[0], sigmas, draws=50).max_posterior_weight
    theirs = max_posterior_weight(train, sigmas, draws=50).max_posterior_weight
    assert (abs(ours.estimate - theirs.estimate) < 4 * np.hypot(ours.stderr, theirs.stderr)).all()
    ours, theirs = (shell_coverage(*pair, sigmas, draws=20) for pair in (turned, (train, heldout)))
    assert (abs(ours.estimate - theirs.estimate) < 4 * np.hypot(ours.stderr, theirs.stderr) + 1e-3).all()


@pytest.mark.parametrize(("n", "components"), [(9, 0), (9, 9), (200, 13), (9, -1)])
def test_too_many_components(n, components):
    with pytest.raises(InputError, match=f"1 to {min(n - 1, 12)}"):
        principal_components(cloud(n), components)
    assert principal_components(cloud(n), min(n - 1, 12)).axes.shape == (min(n - 1, 12), 12)


def test_other_wrong_input():
    with pytest.raises(InputError, match="all training points are equal"):
        principal_components(np.ones((5, 3)), 1)
    with pytest.raises(InputError, match="NaN"):
        principal_components(np.full((5, 3), np.nan), 1)
    with pytest.raises(InputError, match="fitted on 12"):
        principal_components(cloud(9), 2)(np.ones((4, 11)))
