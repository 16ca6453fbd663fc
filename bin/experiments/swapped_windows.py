"""[G] Table 1 and Figure 10: the denoiser of one model in a window of the other's noise levels, same seeds.

Both versions of the windows that [G] gives are run, and the danger zone of the data, each beside windows of as many
steps next to it. What [G] does not have: the window given to the Gaussian linear denoiser of the few images, or stepped
over. Can a model that copies be cured while it samples, without another model?
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from experiments.bench import Bench, Compared, Interval, Outcome, against, geomem, unlike
from experiments.pair import PAPER as PAPER_PAIR
from experiments.pair import SMALL, SMOKE, Pair, train_pair

NAME, PAPER, TITLE = "swapped-windows", "[G] Table 1, Figure 10", "which noise levels make a model copy"
# Memorized shares by the model outside and the window: [G], and an independent rerun of the model of few images.
PUBLISHED = {("few", "medium"): "[G] 0.0%, rerun 0.0%", ("many", "medium"): "[G] 92.2%",
             ("few", "large2"): "rerun 94.5%", ("few", "small"): "rerun 95.7%"}
ALONE = {"few": "[G] 92.2%, rerun 96.5%", "many": "[G] 0%"}


@dataclass(frozen=True)
class Settings:
    pair: Pair
    samples: int
    method: str
    windows: tuple[str, ...] = ("large", "medium", "small", "large2", "medium2", "small2", "zone")
    controls: int = 1  # windows of as many steps on each side


SCALES = {"smoke": Settings(SMOKE, samples=16, method="euler", windows=("large", "medium", "small")),
          "small": Settings(SMALL, samples=256, method="euler"),
          "paper": Settings(PAPER_PAIR, samples=1000, method="heun")}


def run(bench: Bench, settings: Settings) -> Outcome:
    trained = train_pair(bench, settings.pair)

    def find() -> Any:
        folder = bench.out / "parts" / NAME / "swap"
        (folder / "swap.json").unlink(missing_ok=True)
        windows = [word for name in settings.windows for word in ("--window", name)]
        geomem("swap", trained["few"].run, trained["many"].run, "gaussian", "skip", "--weights-a", "last",
               "--weights-b", "last", "--controls", settings.controls, "--n-samples", settings.samples, "--sampler",
               settings.method, *windows, "--out", folder)
        return json.loads((folder / "swap.json").read_text())

    document = bench.part("swap", asdict(settings), find)
    names = {"A": "few", "B": "many", "gaussian": "gaussian", "skip": "skip", None: None}
    rows = []
    for row in document["rows"]:
        window = row["window"] or {"name": None, "control_of": None, "steps": (None, None), "sigma": None}
        rows.append({
            "outside": names[row["outside"]], "inside": names[row["inside"]],
            "window": f"beside {window['control_of']}" if window["control_of"] else window["name"],
            **{key: row["memorization"][key] for key in ("rate", "low", "high")}, **row["quality"],
            "first_step": window["steps"][0], "last_step": window["steps"][1], "sigma": window["sigma"],
            "control_of": window["control_of"], "difference": row["difference"]})
    keys = ("outside", "inside", "window", "first_step", "last_step", "rate", "low", "high", "frechet", "frechet_low",
            "frechet_high")
    return Outcome({"rows": rows, "sampler": document["sampler"],
                    "heldout": document["heldout"]["memorization"]["rate"]},
                   {key: [row[key] for row in rows] for key in keys}, compared(rows), [
        *settings.pair.deviations(),
        f"{settings.samples:,} seeds, 18 steps of {settings.method}; last averaged weights",
        *([f"at {settings.pair.side} x {settings.pair.side} pixels images lie closer: the same sigma is not the same "
           "place in the picture; the window of the danger zone moves with the data"] if settings.pair.side < 32
          else [])])


def compared(rows: list[dict[str, Any]]) -> list[Compared]:
    def of(outside: str, inside: str | None, window: str | None) -> dict[str, Any]:
        return next(row for row in rows if (row["outside"], row["inside"], row["window"]) == (outside, inside, window))

    def told(row: dict[str, Any]) -> str:
        return f"{row['rate']:.1%} [{row['low']:.1%}, {row['high']:.1%}]"

    def priced(row: dict[str, Any]) -> str:
        frechet = Interval.of(row, "frechet", "frechet_low", "frechet_high")
        return f"{told(row)}, Frechet distance {frechet.told('.3g')}"

    found = [unlike(f"memorized, {name} images alone", priced(of(name, None, None)), published,
                    "other images and sizes") for name, published in ALONE.items()]
    windows = [row for row in rows if row["window"] is not None and row["control_of"] is None]
    for row in windows:
        known = PUBLISHED.get((row["outside"], row["window"]), "not at hand")
        if {row["outside"], row["inside"]} == {"few", "many"}:
            found.append(unlike(f"memorized, {row['outside']} with the {row['window']} window of {row['inside']}",
                                told(row), known, "other images and sizes"))
    changes = (("few", "medium", "92.2% becomes 0%"), ("many", "medium", "0% becomes 92.2%"),
               ("few", "large", "hardly any (large2 94.5% of 96.5% in the rerun)"),
               ("few", "small", "hardly any (95.7% of 96.5% in the rerun)"))
    for name, window, published in changes:
        change = of(name, "many" if name == "few" else "few", window)["difference"]
        found.append(against(f"change by the {window} window of the other, {name}, paired by seed",
                             Interval.of(change, "difference"), 0, published, "+.1%"))
    for inside, done in (("gaussian", "given to the Gaussian denoiser"), ("skip", "stepped over")):
        found += [unlike(f"few with the {row['window']} window {done}", priced(row), "not in [G]", "our own question")
                  for row in windows if row["outside"] == "few" and row["inside"] == inside]
    return found
