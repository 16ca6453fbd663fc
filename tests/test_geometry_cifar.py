"""Published numbers on the first 1,000 training and 1,000 test images of CIFAR-10."""

import os
from pathlib import Path

import numpy as np
import pytest

from geomem.geometry import (
    concentration_thresholds,
    coverage_bounds,
    find_danger_zone,
    geometry_curves,
    recommended_gap,
)

DATA = Path(os.environ.get("GEOMEM_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
IMAGES = DATA / "cifar10_exact.npz"
REFERENCE = DATA.parent / "reference" / "cifar10_1k_curves.csv"
pytestmark = pytest.mark.skipif(not (IMAGES.exists() and REFERENCE.exists()),
                                reason=f"needs {IMAGES} and {REFERENCE}; set GEOMEM_TEST_DATA")


@pytest.fixture(scope="module")
def images():
    with np.load(IMAGES) as content:
        assert np.array_equal(content["train_index"][:1000], np.arange(1000))
        return tuple((content[name][:1000] / np.float32(127.5) - 1).astype(np.float32)
                     for name in ("train_images", "test_images"))


@pytest.fixture(scope="module")
def reference():
    return np.genfromtxt(REFERENCE, delimiter=",", names=True, skip_header=1)


@pytest.fixture(scope="module")
def curves(images, reference):
    return geometry_curves(*images, sigmas=reference["sigma"])


@pytest.mark.parametrize(("name", "short"), [("coverage", "coverage"), ("max_posterior_weight", "weight")])
def test_curves_of_the_reference(curves, reference, name, short):
    """Within 4 combined standard errors, at least .004. One noise vector that falls out of the shells takes many
    points with it in the reference, which does not show in its intervals: hence the floor.
    """
    got = getattr(curves, name)
    theirs = (reference[f"{short}_high"] - reference[f"{short}_low"]) / 3.92
    allowed = np.maximum(4 * np.hypot(got.stderr, theirs), 0.004)
    assert np.all(abs(got.estimate - reference[name]) < allowed)


def test_bounds_of_the_theory(images):
    got = coverage_bounds(*images, [0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0])
    np.testing.assert_allclose(got.lower, [0.00224, 0.03608, 0.15146, 0.68074, 0.92999, 0.99263, 0.99815], atol=6e-6)
    np.testing.assert_allclose(got.upper[:5], [0.00376, 0.06884, 0.31611, 0.96687, 1.0], atol=6e-6)
    np.testing.assert_allclose(got.upper[5:], 1, atol=1e-6)


def test_thresholds_of_the_theory(images, curves):
    got = concentration_thresholds(images[0])
    assert got.b == pytest.approx(0.102117, abs=5e-7)
    assert got.concentrated_below.mean() == pytest.approx(2.178, abs=5e-4)
    assert got.spread_above.mean() == pytest.approx(46.20, abs=5e-3)
    assert got.disjoint_below == pytest.approx(0.0936, abs=5e-5)
    assert got.summary() == curves.thresholds


def test_danger_zone(images):
    curves = geometry_curves(*images, sigmas=40)
    zone = find_danger_zone(curves)
    assert zone.crossing == pytest.approx(2.9, abs=0.1)
    assert zone.crossing_low < zone.crossing < zone.crossing_high < zone.crossing_low + 0.3
    assert zone.sigma_low == pytest.approx(1.7, abs=0.1)
    assert zone.sigma_high == pytest.approx(5.0, abs=0.3)
    assert zone.note == ""
    low, high = recommended_gap(curves, zone)
    assert (low, high) == (pytest.approx(0.0977, abs=1e-3), zone.sigma_high)
    low, high = recommended_gap(curves, zone, kappa=3, weight_floor=0.5)
    assert low == pytest.approx(0.134, abs=1e-3)  # the published medium window begins at .14
    assert high == pytest.approx(7.0, abs=0.2)
