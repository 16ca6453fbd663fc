"""What the curves cost, before they are measured: operations against torch's counter, memory, and the dry run."""

import json

import numpy as np
import pytest
import torch
from commands import status
from torch.utils.flop_counter import FlopCounterMode

from geomem.geometry import cost
from geomem.geometry.cost import Cost, Work, curves_cost, rates
from geomem.geometry.curves import levels_of, measured
from geomem.geometry.options import Options
from geomem.geometry.sweep import Sweep
from geomem.noise.danger_zone import danger_zone


def sweep_of(n, m, dim, **options):
    rng = np.random.default_rng(0)
    train, heldout = (rng.standard_normal((count, dim)).astype(np.float32) for count in (n, m))
    return Sweep.of(train, heldout, Options(duplicates="keep", **options), reuse=True)


@pytest.fixture
def one_thread():
    """The counter sees the operations of its own thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("n", "m", "dim", "options"), [
    (300, 120, 30, {}),  # one block that is its own queries: half of the distances
    (600, 300, 25, {"queries": 300}),
    (5000, 100, 12, {"queries": 70}),  # two blocks, the noise of fewer queries than vectors
    (900, 500, 20, {"memory": 22 * 2**20, "posterior_draws": 6, "coverage_draws": 5})])  # several passes
def test_operations_are_those_that_torch_counts(n, m, dim, options, one_thread):
    """Exactly, but for the products of queries with their own noise: each tile of 256 queries is filled up to whole
    turns through the G groups of s vectors, by fewer than 2 G queries; 2 d s operations each.
    """
    sweep = sweep_of(n, m, dim, **options)
    expected = curves_cost(sweep, 5)
    assert (expected.passes > 1) == ("memory" in options)
    with FlopCounterMode(display=False) as counter:
        measured(sweep, np.geomspace(0.1, 10, 5))
    counted = {operation._overloadpacket if hasattr(operation, "_overloadpacket") else operation: count
               for operation, count in counter.get_flop_counts()["Global"].items()}
    drawn = sum(queries * draws for queries, draws in zip(expected.queries, expected.draws, strict=True))
    own = 2 * dim * drawn
    assert counted[torch.ops.aten.addmm] == expected.distances
    assert counted[torch.ops.aten.mm] == expected.noise - own
    tiles = sum(-(-queries // 256) for queries in expected.queries) + 2 * (expected.passes - 1)
    assert own <= counted[torch.ops.aten.bmm] <= own + tiles * 2 * expected.vectors * 2 * dim


def test_work_grows_as_the_formula_says():
    base = Cost(10_000, 64, (1000, 1000), levels=40)
    assert Cost(20_000, 64, (1000, 1000)).distances == 2 * base.distances
    assert Cost(10_000, 64, (1000, 1000), processes=4).distances == base.distances / 4
    assert base.work().products32 == base.work(refined=False).products32  # what was measured is kept
    assert Cost(10_000, 64, (1000, 1000), kept=False).work().products32 == 3 * base.distances
    assert base.work().steps > 1.2 * base.work(refined=False).steps
    assert Cost(10_000, 64, (1000, 1000), looks=False).work().steps > base.work().steps
    assert base.seconds(Work(1e9, 1e9, 1e9)) == pytest.approx(sum(base.work()) / 1e9)


def test_rates_are_operations_over_the_time_of_the_fastest_run(one_thread):
    """By a clock that counts how often it is asked: each run takes one second of it."""
    ticks = iter(range(10**6))
    sweep = sweep_of(300, 20, 30)
    found = rates(sweep, lambda: float(next(ticks)))
    assert found == (2 * 256 * 300 * 30, 2 * 256 * 256 * 30, 8 * 4 * 300 * (2**18 // (4 * 300)))


def test_refinement_adds_about_as_many_levels_as_are_assumed():
    rng = np.random.default_rng(0)
    train, heldout = rng.standard_normal((2, 400, 24)).astype(np.float32)
    report = danger_zone(train, heldout)
    assert cost.ADDED_LEVELS / 2 < len(report.refined.sigma) - len(report.curves.sigma) < cost.ADDED_LEVELS * 2


def test_a_dry_run_says_what_it_would_take_and_measures_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("geomem.noise.danger_zone.measured", lambda *_: pytest.fail("it measured"))
    asked = ("danger-zone", "digits", "--n-train", 200, "--queries", 150, "--sigmas", 6, "--out", tmp_path / "zone",
             "--dry-run")
    assert status(*asked, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["n"], document["dim"], document["queries"], document["levels"]) == (200, 64, [150, 150], 6)
    assert document["seconds"] == pytest.approx(sum(document["work"][kind] / document["rates"][kind]
                                                    for kind in document["work"]))
    assert status(*asked) == 0
    said = capsys.readouterr().out
    assert all(words in said for words in ("nothing was measured", "MiB at most", "time         about"))
    assert not (tmp_path / "zone").exists()


def test_too_little_memory_is_refused_as_by_the_run(capsys):
    assert status("danger-zone", "digits", "--n-train", 200, "--memory", "1MiB", "--dry-run") == 2
    assert "this needs" in capsys.readouterr().err


def test_levels_are_counted_as_given(capsys):
    assert status("danger-zone", "digits", "--n-train", 50, "--sigmas", "0.1,0.5", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["levels"] == len(levels_of([0.1, 0.5])) == 2
