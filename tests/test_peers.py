"""Figures of other tools, computed by their own code on the arrays made here.

AuthPct and C_T: layer6ai-labs/dgm-eval 74c79f7 (``compute_authpct``, ``compute_CTscore``). DCR: SDMetrics 0.32.0
(``calculate_dcr``, and the share as in ``DCROverfittingProtection``) for one numerical column, where its distance is
Euclidean but for a scale, the range of the points that are compared with; here both ranges are equal.
"""

import numpy as np
import pytest

import geomem
from geomem.errors import InputError
from geomem.memorization import auth_pct, c_t


def three_clusters(seed, n, spread):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, 3)) * spread + 10 * np.eye(3)[np.arange(n) % 3]).astype(np.float32)


TRAIN, HELDOUT = three_clusters(1, 90, 1), three_clusters(2, 120, 1)
NEAR = (np.repeat(TRAIN, 3, 0)[:240] + 0.2 * np.random.default_rng(4).standard_normal((240, 3))).astype(np.float32)


@pytest.mark.parametrize(("samples", "authentic", "score"), [
    (three_clusters(3, 240, 1), 55.0, -0.12154665011537737), (NEAR, 7.5, -7.040031528220401),
    (three_clusters(5, 240, 2), 75.0, 5.3526917901955136)], ids=["honest", "copying", "underfitted"])
def test_auth_pct_and_c_t_are_those_of_dgm_eval(samples, authentic, score):
    assert auth_pct(samples, TRAIN) == pytest.approx(authentic, abs=1e-9)
    assert c_t(samples, TRAIN, HELDOUT) == pytest.approx(score, rel=1e-9)


def test_leaning_is_the_dcr_share_of_sdmetrics():
    rng = np.random.default_rng(7)
    train, heldout, samples = (rng.standard_normal(n) for n in (50, 50, 400))
    samples[:100] = train[rng.integers(0, 50, 100)] + 0.001 * rng.standard_normal(100)
    heldout *= np.ptp(train) / np.ptp(heldout)
    assert geomem.leaning(*(part[:, None] for part in (samples, train, heldout)), tolerance=0).share == pytest.approx(
        0.635)


def test_c_t_says_what_it_lacks():
    with pytest.raises(InputError, match="no held-out points"):
        c_t(NEAR, TRAIN, HELDOUT[::3])
    with pytest.raises(InputError, match="more than 20 samples"):
        c_t(NEAR[:30], TRAIN, HELDOUT)
