"""Best weights per noise level against the rule applied to the whole history at once."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from geomem.errors import InputError
from geomem.training import BestWeights


def chosen_with_hindsight(history, tolerance):
    """The definition: per band the earliest step whose loss is within the tolerance of the smallest of all."""
    steps, losses = list(history), np.array(list(history.values()))
    return [steps[int(np.argmax(column <= (1 + tolerance) * column.min()))] for column in losses.T]


@pytest.mark.parametrize("tolerance", [0.0, 0.005, 0.2])
@pytest.mark.parametrize("seed", range(5))
def test_choice_equals_the_rule_with_hindsight(tolerance, seed):
    rng = np.random.default_rng(seed)
    best = BestWeights.log_spaced(6, tolerance=tolerance)
    history = {}
    for step in range(10, 400, 10):
        falling = 1 / (1 + step / 50) + step / rng.uniform(500, 5000, 6)
        history[step] = falling * rng.uniform(0.97, 1.03, 6)
        best.update(step, history[step], {"w": torch.tensor(float(step))})
        assert best.steps == chosen_with_hindsight(history, tolerance)
        assert best.smallest.tolist() == np.min(list(history.values()), axis=0).tolist()
        assert best.early_stop == min(history, key=lambda s: history[s].mean())
        assert set(best.steps) | {best.early_stop} <= set(best.snapshots)
        assert all(float(best.snapshots[s]["w"]) == s for s in best.snapshots)
    assert len(best.snapshots) < len(history) or tolerance == 0.2


@pytest.mark.parametrize("lean", [1.0, 1.2, 9.0])
@pytest.mark.parametrize("seed", range(3))
def test_no_band_takes_weights_beyond_the_limit_on_leaning(lean, seed):
    """The rule with hindsight among the snapshots within the limit; the one early stop has none."""
    rng = np.random.default_rng(seed)
    best, free = (BestWeights.log_spaced(6, lean=limit) for limit in (lean, None))
    history, ratios = {}, {}
    for step in range(10, 400, 10):
        losses = (1 / (1 + step / 50) + step / rng.uniform(500, 5000, 6)) * rng.uniform(0.97, 1.03, 6)
        ratio = 1 + step / rng.uniform(100, 2000, 6) * (step > 10)
        history[step], ratios[step] = losses, ratio
        best.update(step, losses, {"w": torch.tensor(float(step))}, losses / ratio)
        free.update(step, losses, {})
        within = {s: np.where(ratios[s] <= lean * (1 + 1e-12), loss, np.inf) for s, loss in history.items()}
        assert best.steps == chosen_with_hindsight(within, 0.005)
        assert best.early_stop == free.early_stop
        assert set(best.steps) | {best.early_stop} <= set(best.snapshots)
        again = BestWeights.from_dict(json.loads(json.dumps(best.to_dict())), best.snapshots.__getitem__)
        assert (again.lean, again.steps) == (lean, best.steps)
    assert (best.steps == free.steps) == (lean == 9)
    with pytest.raises(InputError, match="losses of training points"):
        best.update(999, losses, {})
    with pytest.raises(InputError, match="at least 1"):
        BestWeights.log_spaced(lean=0.9)


def test_the_first_snapshot_serves_where_none_is_within_the_limit():
    best = BestWeights([0.1, 1], lean=1.5)
    for step, loss, training in ((1, 4.0, 1.0), (2, 3.0, 1.0), (3, 3.5, 3.0), (4, 3.4, 1.0)):
        best.update(step, [loss], {"w": torch.tensor(float(step))}, [training])
        assert best.steps == [1 if step < 3 else 3]


def test_snapshots_are_copies_and_weights_of_the_average_count():
    best = BestWeights([0.1, 1, 10], average_weights=[0, 1])
    weight = {"w": torch.zeros(1)}
    best.update(1, [5.0, 1.0], weight)
    weight["w"] += 7
    best.update(2, [0.1, 2.0], weight)
    assert float(best.snapshots[1]["w"]) == 0
    assert best.steps == [2, 1]
    assert best.early_stop == 1


def test_state_goes_through_json():
    rng = np.random.default_rng(0)
    best = BestWeights.log_spaced(4)
    for step in range(5):
        best.update(step, rng.uniform(size=4), {"w": torch.tensor(step)})
    again = BestWeights.from_dict(json.loads(json.dumps(best.to_dict())), best.snapshots.__getitem__)
    for step in range(5, 9):
        losses = rng.uniform(size=4)
        for b in (best, again):
            b.update(step, losses, {"w": torch.tensor(step)})
    assert again.to_dict() == best.to_dict()
    assert list(again.snapshots) == list(best.snapshots)


def test_stitched_denoiser_uses_the_weights_of_its_band():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor(0.0))

        def forward(self, x, sigma, labels=None):
            return x * self.w

    best = BestWeights([0.1, 1, 10, 100])
    best.update(1, [3.0, 1.0, 3.0], {"w": torch.tensor(1.0)})
    best.update(2, [2.0, 2.0, 2.0], {"w": torch.tensor(2.0)})
    denoiser = best.stitched(Scale())
    x = torch.ones(1, 1)
    assert [denoiser(x, s).item() for s in (0.001, 0.5, 1.0, 5.0, 10.0, 500.0)] == [2, 2, 1, 1, 2, 2]
    assert len(denoiser.denoisers) == 2
    np.testing.assert_allclose(best.centres, [10**-0.5, 10**0.5, 10**1.5])


@pytest.mark.parametrize(("make", "word"), [
    (lambda: BestWeights([1, 1]), "increase"),
    (lambda: BestWeights([0, 1]), "positive"),
    (lambda: BestWeights([1, float("nan"), 2]), "increase"),
    (lambda: BestWeights([1, 2], tolerance=-1), "tolerance"),
    (lambda: BestWeights([1, 2], average_weights=[0.0]), "positive sum"),
    (lambda: BestWeights([1, 2]).update(3, [float("nan")], {}), "step 3 are not finite"),
    (lambda: BestWeights([1, 2]).steps, "at least one update"),
    (lambda: BestWeights([1, 2]).smallest, "at least one update"),
    (lambda: BestWeights([1, 2]).update(1, [1.0, 2.0], {}), "expected 1 losses"),
])
def test_wrong_input(make, word):
    with pytest.raises(InputError, match=word):
        make()
