"""Forecasts beside what came true: the trainings of bin/forecast-study."""

from __future__ import annotations

from collections import deque
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from prevention_study import SETS, load_set, names_among, options_of

from geomem import __version__, forecast
from geomem.data import DataSet
from geomem.files import write_json
from geomem.memorization.watch import COPIES
from geomem.run_forecast import BUDGET
from geomem.run_training import start_training
from geomem.training import Run, plan_training
from geomem.training.forecast import EVENTS, LEANS, has_set_in, onset_in

FORMAT = "geomem.forecast-study/1"
SIX = "digits", "ecg", "faces16", "cars16", "pokemon16", "flowers16"
FACTOR = 1.5  # within which a forecast is a good one


def came_true(dataset: DataSet, run: Run, until: str, options: dict[str, Any]) -> dict[str, float | None]:
    """The steps at which leaning and copies set in, in a training on all points that ends then."""
    plan = replace(plan_training(dataset, **options), watch_every=1, stop_at=COPIES if until == "copies" else None,
                   stop_at_leaning=LEANS if until == "leaning" else None)
    lines = run.lines("watch.jsonl")
    if not (lines and (has_set_in(lines[-1], until) or lines[-1]["step"] == plan.settings.iterations)):
        with closing(start_training(plan, run, resume=run.exists)) as states:
            deque(states, maxlen=0)
    return {event: onset_in(run.lines("watch.jsonl"), event) for event in EVENTS}


def cell_of(name: str, seed: int, given: Any) -> dict[str, Any]:
    """The forecast of a set and what came true, with the ratio of the steps and the price, for one seed."""
    chosen, dataset = SETS[name], load_set(name, given.data, given.out)
    options = {"network": chosen.network, "batch": given.batch or chosen.batch, "precision": given.precision,
               "iterations": given.iterations or chosen.iterations, "seed": seed, "device": "cpu"}
    place = given.out / name.replace(",", "").replace(" ", "-") / str(seed)
    found = forecast(dataset, place / "forecast", parts=given.parts, until=given.until,
                     resume=(place / "forecast").exists(), **options)
    truth = came_true(dataset, Run(place / "all"), given.until, options)
    rows = {}
    for event in EVENTS:
        onset, step = getattr(found, event), truth[event]
        known = onset.step is not None and step is not None
        rows[event] = {"forecast": onset.step, "low": onset.low, "high": onset.high, "reason": onset.reason,
                       "step": step, "ratio": onset.step / step if known else None,
                       "held": onset.low <= step <= onset.high if known else None,
                       "price": None if step is None else found.price / step}
    return {"set": name, "seed": seed, "n": len(dataset.train), "data_sha256": dataset.sha256, "options": options,
            "parts": [vars(part) for part in found.parts], **rows}


def main() -> None:
    parser = options_of("forecast-study", __doc__)
    parser.add_argument("--summary", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--sets", default=list(SIX), type=names_among(SETS), metavar='"NAME;NAME"')
    parser.add_argument("--until", choices=EVENTS, default="leaning")
    parser.add_argument("--parts", default=(8, 4), type=lambda text: tuple(int(k) for k in text.split(",")))
    parser.add_argument("--batch", type=int, help="in the place of that of the set")
    parser.add_argument("--iterations", type=int, help=f"the same; parts take at most {BUDGET:.0%} of them")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    cells = []
    for seed in given.seeds:
        for name in given.sets:
            cells.append(cell_of(name, seed, given))
            write_json(given.summary, {"format": FORMAT, "geomem": __version__, "leans": LEANS, "cells": cells})
            row = cells[-1][given.until]
            print(f"{name}, seed {seed}: {given.until} at {row['step']}, forecast {row['forecast']} [{row['low']}, "
                  f"{row['high']}], {row['reason'] or ''} price {row['price']}")
    told = [cell[given.until] for cell in cells if cell[given.until]["ratio"]]
    good = [row for row in told if 1 / FACTOR <= row["ratio"] <= FACTOR]
    print(f"{len(told)} of {len(cells)} told, {len(good)} within a factor of {FACTOR}, "
          f"{sum(row['held'] for row in told)} within the interval")


if __name__ == "__main__":
    main()
