"""Networks that are trained in part: the adapter alone is kept, and its base is shared, not copied."""

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from geomem.errors import InputError
from geomem.models import Denoiser, SigmaDenoiser
from geomem.training import BestWeights, EarlierWeights, Monitor, load_best, trained_state

TRAIN, HELDOUT = (np.random.default_rng(3).standard_normal((n, 6)).astype(np.float32) for n in (30, 60))
EDGES = [0.1, 1, 10, 100]


class LoRA(nn.Module):
    """``W x + B A x`` with W frozen (Hu et al. 2022)."""

    def __init__(self, linear, rank):
        super().__init__()
        self.base = linear.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.randn(rank, linear.in_features) / 8)
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x):
        return self.base(x) + x @ self.lora_A.T @ self.lora_B.T


class Adapted(Denoiser):
    """A frozen network of 6 values, 20,000 parameters, a norm with running statistics and a table; a LoRA of rank 2."""

    def __init__(self, rank=2):
        torch.manual_seed(0)
        norm = nn.BatchNorm1d(100).requires_grad_(False)
        super().__init__(nn.Sequential(nn.Linear(6, 100), norm, nn.Linear(100, 100), nn.Linear(100, 90),
                                       nn.Linear(90, 6)).requires_grad_(False))
        self.net[2] = LoRA(self.net[2], rank)
        self.register_buffer("table", torch.randn(5000))

    def forward(self, x, sigma, labels=None):
        return self.net(x)

    def loss_weight(self, sigma):
        return torch.ones_like(sigma)


ADAPTER = {"net.2.lora_A", "net.2.lora_B"}
BUFFERS = {"table", "net.1.running_mean", "net.1.running_var", "net.1.num_batches_tracked"}


def trained(update):
    """Four steps of training; ``update(step, denoiser)`` after each. The denoiser, and its state after each step."""
    denoiser, states = Adapted().train(), {}
    optimizer = torch.optim.Adam([p for p in denoiser.parameters() if p.requires_grad], lr=0.1)
    for step in range(1, 5):
        clean = torch.from_numpy(TRAIN) + step
        (denoiser(clean, 1.0) - clean).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        states[step] = copy.deepcopy(denoiser.state_dict())
        update(step, denoiser)
    return denoiser, states


def best_of_each(step, denoiser, best):
    """Band k is best after step k + 1."""
    best.update(step, [1.0 + abs(step - band) for band in (1, 2, 3)], denoiser)


def test_the_adapter_and_the_buffers_are_all_that_is_kept():
    best, earlier = BestWeights(EDGES), EarlierWeights()

    def both(step, denoiser):
        best_of_each(step, denoiser, best)
        earlier.update(step, denoiser)

    denoiser, states = trained(both)
    assert set(trained_state(denoiser)) == ADAPTER | BUFFERS
    for kept in (best.snapshots, earlier.snapshots):
        assert len(kept) >= 3
        for step, snapshot in kept.items():
            assert set(snapshot) == ADAPTER | BUFFERS
            assert all(torch.equal(tensor, states[step][name]) for name, tensor in snapshot.items())
        parts = {tensor.data_ptr(): tensor.numel() for snapshot in kept.values() for tensor in snapshot.values()}
        adapter, statistics = 2 * 2 * 100, 2 * 100 + 1
        assert sum(parts.values()) == 5000 + len(kept) * (adapter + statistics)  # the table once
    assert sum(p.numel() for p in denoiser.parameters()) > 19_000


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_best_of_each_level_on_a_shared_base(dtype):
    best = BestWeights(EDGES, dtype=dtype)
    denoiser, states = trained(lambda step, network: best_of_each(step, network, best))
    base = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
    stitched = best.stitched(denoiser)
    assert best.steps == [1, 2, 3]
    assert [part.training for part in stitched.denoisers] == [False] * 3
    own = dict(denoiser.named_parameters())
    tables = {id(part.table) for part in stitched.denoisers}
    assert len(tables) == 1
    assert id(denoiser.table) not in tables
    for step, part in enumerate(stitched.denoisers, start=1):
        for name, parameter in part.named_parameters():
            assert (parameter is own[name]) == (name not in ADAPTER)
        for name, tensor in part.state_dict().items():
            expected = states[step][name]
            if dtype is not None and name in ADAPTER | BUFFERS and expected.is_floating_point():
                expected = expected.to(dtype)
            assert torch.equal(tensor, expected.to(tensor.dtype))
        assert part.net[1].running_mean is not denoiser.net[1].running_mean
    assert all(torch.equal(tensor, base[name]) for name, tensor in denoiser.state_dict().items())
    trainable = {id(p): p.numel() for p in stitched.parameters()}
    assert sum(trainable.values()) == sum(p.numel() for p in own.values()) + 2 * 400  # bands x adapter + one base


def test_a_monitor_keeps_adapters():
    monitor = Monitor(TRAIN, HELDOUT, every=1, n=8)
    denoiser, states = trained(monitor)
    for snapshots in (monitor.best_weights.snapshots, monitor.earlier.snapshots):
        assert all(set(snapshot) == ADAPTER | BUFFERS for snapshot in snapshots.values())
    best = monitor.best(denoiser)
    for sigma, step in zip(monitor.best_weights.centres, monitor.best_weights.steps, strict=True):
        denoiser.load_state_dict(states[step])
        x = torch.from_numpy(HELDOUT)
        assert torch.equal(best(x, float(sigma)), denoiser.eval()(x, float(sigma)))
    monitor.earlier.copies_seen(4)
    before = monitor.before_copies(denoiser)
    assert all(torch.equal(tensor, states[2][name]) for name, tensor in before.state_dict().items())
    assert before.net[0].weight is denoiser.net[0].weight


def test_a_moving_average_without_gradients_is_kept_whole_and_its_base_once():
    best = BestWeights(EDGES)
    denoiser, states = trained(lambda step, network: best_of_each(
        step, copy.deepcopy(network).requires_grad_(False), best))
    average = copy.deepcopy(denoiser).requires_grad_(False)
    assert all(set(snapshot) == set(states[1]) for snapshot in best.snapshots.values())
    assert len({snapshot["net.0.weight"].data_ptr() for snapshot in best.snapshots.values()}) == 1
    parts = best.stitched(average).denoisers
    assert len({id(part.net[0].weight) for part in parts} | {id(average.net[0].weight)}) == 2
    for step, part in enumerate(parts, start=1):
        assert all(torch.equal(tensor, states[step][name]) for name, tensor in part.state_dict().items())


def test_a_fully_trained_network_is_kept_and_copied_whole():
    best = BestWeights(EDGES)
    denoiser = Adapted().requires_grad_(True)
    for step in (1, 2, 3):
        best_of_each(step, denoiser, best)
        assert set(best.snapshots[step]) == set(denoiser.state_dict())
        with torch.no_grad():
            denoiser.net[2].lora_B += 1
    assert len({tensor.data_ptr() for s in best.snapshots.values() for n, tensor in s.items() if n not in BUFFERS}) == (
        3 * len(list(denoiser.parameters())))
    parts = [denoiser, *best.stitched(denoiser).denoisers]
    assert len({id(p) for part in parts for p in part.parameters()}) == 4 * len(list(denoiser.parameters()))


def test_networks_that_do_not_fit_are_refused():
    best = BestWeights([0.1, 1])
    denoiser = Adapted()
    best.update(1, [1.0], denoiser)
    with pytest.raises(InputError, match=r"lack 'net\.0\.weight', which is not frozen"):
        best.stitched(Adapted().requires_grad_(True))
    with pytest.raises(InputError, match="hold 'table', which this network does not have"):
        best.stitched(nn.Linear(3, 3))
    denoiser.net[4].requires_grad_(True)
    with pytest.raises(InputError, match=r"'net\.4\.weight' is trained now, and was frozen when the weights of step 1"):
        best.update(2, [0.5], denoiser)


def test_the_best_of_each_level_come_back_from_a_folder(tmp_path):
    """The bands' weights to the bit, on another copy of the base; one file for each, and the table once."""
    monitor = Monitor(TRAIN, HELDOUT, every=1, n=8)
    denoiser, _ = trained(monitor)
    monitor.save(tmp_path / "best")
    best, base = monitor.best(denoiser), Adapted()
    base.table.zero_()
    again = load_best(tmp_path / "best", base)
    assert torch.equal(again.edges, best.edges)
    for part, expected in zip(again.denoisers, best.denoisers, strict=True):
        assert part.net[0].weight is base.net[0].weight
        for name, tensor in expected.state_dict().items():
            assert torch.equal(part.state_dict()[name], tensor), name
    assert len({id(part.table) for part in again.denoisers}) == 1
    steps = {*monitor.best_weights.steps, monitor.best_weights.early_stop}
    assert len(steps) > 1
    files = {path.name: path.stat().st_size for path in (tmp_path / "best").iterdir()}
    assert set(files) == {"levels.json", "unchanged.safetensors", *(f"step-{step:07d}.safetensors" for step in steps)}
    assert sum(files.values()) < 4 * 5000 + len(steps) * (4 * 601 + 1000) + 2000
    table = json.loads((tmp_path / "best/levels.json").read_text())
    assert table["files"] == [f"step-{step:07d}.safetensors" for step in monitor.best_weights.steps]
    assert load_file(tmp_path / "best" / table["early_stop"]).keys() == (ADAPTER | BUFFERS) - {"table"}
    with pytest.raises(InputError, match="not empty; give a new folder"):
        monitor.save(tmp_path / "best")


def test_a_network_from_elsewhere_is_saved_by_its_own_names(tmp_path):
    network = nn.Sequential(nn.Linear(6, 6).requires_grad_(False), nn.Linear(6, 6))
    network.forward = lambda x, sigma: network[1](network[0](x))
    monitor = Monitor(TRAIN, None, every=1, n=8)
    with pytest.raises(InputError, match="no look has seen copies"):
        monitor.save(tmp_path / "before")
    denoiser = SigmaDenoiser(network)
    monitor(1, denoiser)
    monitor.earlier.copies_seen(1)
    monitor.save(tmp_path / "before")
    kept = load_file(tmp_path / "before/step-0000001.safetensors")
    assert network.load_state_dict(kept, strict=False).unexpected_keys == []
    assert kept.keys() == {"1.weight", "1.bias"}
    assert torch.equal(load_best(tmp_path / "before", denoiser)(torch.ones(2, 6), 1.0), denoiser(torch.ones(2, 6), 1.0))


def test_weights_that_do_not_fit_and_tables_that_lie_are_refused(tmp_path):
    monitor = Monitor(TRAIN, HELDOUT, every=1, n=8)
    trained(monitor)
    folder = tmp_path / "best"
    monitor.save(folder)
    cases = [(Adapted(rank=3), r"'net\.2\.lora_A' has shape \(2, 100\), the network needs \(3, 100\)"),
             (nn.Sequential(nn.Linear(6, 6)), "holds a tensor .* that the network does not have"),
             (Adapted().requires_grad_(True), r"best: the kept weights lack 'net\.0\.weight', which is not frozen")]
    for network, message in cases:
        with pytest.raises(InputError, match=message) as refused:
            load_best(folder, network)
        assert "\n" not in str(refused.value)
    sound = json.loads((folder / "levels.json").read_text())
    for change in ({"format": "geomem.levels/1"}, {"edges": sound["edges"][::-1]}, {"files": sound["files"][1:]},
                   {"files": ["../outside.safetensors", *sound["files"][1:]]}, {"unchanged": "/etc/passwd"},
                   {"edges": [0, *sound["edges"][1:]]}, {"files": [7, *sound["files"][1:]]}):
        (folder / "levels.json").write_text(json.dumps(sound | change))
        with pytest.raises(InputError, match=r"levels\.json: is not the table"):
            load_best(folder, Adapted())
    (folder / "levels.json").write_text(json.dumps(sound))
    (folder / sound["files"][0]).write_bytes(b"no weights")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_best(folder, Adapted())
    with pytest.raises(InputError, match=r"Monitor\.save"):
        load_best(tmp_path / "nowhere", Adapted())
