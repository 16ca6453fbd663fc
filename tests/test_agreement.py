"""The curves against the float64 loops where rounding is hardest on them; bin/benchmark geometry has a larger one.

Points of norm 50 in float32, some of them 1e-3 apart, at levels from 0.002 to 80. A logit ``-(s^2/2 + s z)``, s the
distance over sigma and z normal, is off by about 4 x 2^-24 (s^2/2 + s |z|) when its two terms are rounded to float32.
Where the weight is not negligible, s is at most about 12 for |z| < 5, which moves a weight by less than 1e-5.
"""

import numpy as np
import oracles
import pytest
from benchmarks import geometry


@pytest.mark.parametrize("dim", [64, 3072])
@pytest.mark.parametrize("kind", geometry.KINDS)
def test_agrees_where_rounding_is_hardest(kind, dim):
    found = geometry.disagreement(kind, 30, dim, 30, range(1))
    assert found["largest_dw_curve"] <= found["largest_dw_cell"] < 1e-5
    assert found["differ_elsewhere"] == 0
    assert 8 <= found["near_boundary"] < 0.02 * found["events"]  # two levels for each of 5 points, unless |Z| > R_+
    assert 0.2 < found["covered"] / found["events"] < 0.95


@pytest.mark.parametrize("radius", [0, 1])
@pytest.mark.parametrize(("moved", "near"), [(0, True), (1e-8, True), (1e-6, False), (-1e-6, False)])
def test_near_a_boundary(radius, moved, near):
    """A query moved by this share of its distance from a shell boundary of the only training point."""
    sigma, dim, t = 0.7, 50, 5.0
    distance = sigma * oracles.shell_radii(dim, t)[radius] * (1 + moved)
    heldout, noise = np.zeros((1, dim)), np.zeros((1, 1, dim))
    heldout[0, 0], noise[0, 0, 0] = 0.25 * distance, 0.75 * distance / sigma
    assert oracles.near_a_boundary(np.zeros((1, dim)), heldout, noise, np.array([sigma]), t).item() == near


def test_the_vectorised_oracle_agrees_with_the_loops():
    rng = np.random.default_rng(4)
    train, heldout, sigmas = rng.standard_normal((70, 8)), rng.standard_normal((40, 8)), np.geomspace(0.02, 80, 7)
    noise = oracles.query_noise("posterior radius", 70, 4, 8, seed=5)
    largest, own = oracles.posterior_weights(train, noise, sigmas)
    noise = oracles.query_noise("coverage radius", 40, 8, 8, seed=5)
    inside, _ = oracles.coverage(train, heldout, noise, sigmas, 5.0)
    got = oracles.numpy_curves(train, heldout, sigmas, seed=5)
    for name, cells in (("largest", largest), ("own", own), ("covered", inside)):
        np.testing.assert_allclose(getattr(got, name), cells.mean(axis=(0, 1)), rtol=1e-10, atol=1e-12)
    for k, sigma in enumerate(sigmas):
        lower, upper, _ = oracles.bounds(train, heldout, sigma, 5.0)
        assert (got.lower[k], got.upper[k]) == pytest.approx((lower, upper), abs=1e-5)  # steps of .005 in s
