"""Hostile and broken input, every record of hostile_inputs: one clear line or a right answer, within bounds."""

from __future__ import annotations

import json
import re

import hostile_inputs
import pytest
from hostile import run
from hostile_inputs import TRACE, cases, sound, try_case, unprintable

from geomem.data.child import MEMORY

MOST_GROWN = 700 << 20  # bytes at the peak, of which reading 81 million pixels takes half


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_case(case):
    outcome, left = try_case(case)
    assert outcome.status == (0 if case.answers else 2), outcome.err[-2000:]
    assert not unprintable(outcome.out + outcome.err)
    assert "Traceback" not in outcome.err
    assert "Warning" not in outcome.err
    assert outcome.grown < MOST_GROWN
    assert outcome.child < MEMORY + (100 << 20)
    assert not any(TRACE in path for path in left), "code was run"
    if case.answers:
        assert case.says in outcome.out + outcome.err
    else:
        lines = [line for line in outcome.err.splitlines() if line.startswith("geomem: ")]
        assert lines == [outcome.line]
        assert len(outcome.line) < 1100
        assert re.search(case.says, outcome.line, re.IGNORECASE)
        assert "not enough memory" not in outcome.line
        assert "allocate" not in outcome.line
        assert not left, "something is left behind"


def test_the_page_of_the_documentation_has_a_row_for_each_kind():
    page = hostile_inputs.markdown()
    assert page.count("\n| `") == len(cases()) == len({(case.group, case.what) for case in cases()}) <= 120


COMMANDS = {"danger-zone": "danger-zone digits --tolerance 0.005 --out o", "bounds": "bounds digits --out o",
            "risk": "risk digits --out o", "generate": "generate run --seeds 0-99999 --out o.npz",
            "memorization": "memorization run --n-samples 50000 --out o", "train": "train digits --out o",
            "export": "export run --out o", "quality": "quality s.npz --data d.npz --out o.json",
            "plot-curves": "plot-curves zone --out o.png"}


@pytest.mark.parametrize(("command", "seconds"), [*((name, 0.1) for name in COMMANDS), ("train", 0.003), ("train", 0.4),
                                                  ("bounds", 0.4), ("memorization", 0.4)])
def test_ctrl_c_is_one_line_and_leaves_nothing_half_written(command, seconds, tmp_path):
    sound(tmp_path, "run", "zone", "s.npz")
    outcome = run(COMMANDS[command].split(), tmp_path, ctrl_c_after=seconds)
    lines = [line for line in outcome.err.splitlines() if line.startswith("geomem: ")]
    assert outcome.status in (0, 130), outcome.err  # short commands end before
    assert len(lines) == (outcome.status == 130)
    assert "Traceback" not in outcome.err
    assert not list(tmp_path.rglob(".*"))
    for path in tmp_path.rglob("*.json"):
        json.loads(path.read_text())
