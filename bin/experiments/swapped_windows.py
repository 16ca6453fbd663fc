"""[G] Table 1 and Figure 10: the denoiser of one model in a window of the other's noise levels, same seeds.

Both versions of the windows that [G] gives are run, and the danger zone of the data, each beside windows of as many
steps next to it. What [G] does not have: the window given to the Gaussian linear denoiser of the few images, or stepped
over. Can a model that copies be cured while it samples, without another model?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.bench import Bench, Compared, Experiment, Interval, Outcome, against, unlike
from experiments.pair import MEDIUM, SMALL, SMOKE, Pair, train_pair
from experiments.pair import PAPER as PAPER_PAIR
from experiments.pictures import captioned
from geomem import load_data, load_denoiser
from geomem.generation import sampler_levels
from geomem.plots.style import BLUE, COLOURS, GREY, ORANGE
from geomem.quality import named_window, swap_experiment, swap_rows

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
          "medium": Settings(MEDIUM, samples=256, method="euler"),
          "paper": Settings(PAPER_PAIR, samples=1000, method="heun")}


def run(bench: Bench, settings: Settings) -> Outcome:
    trained = train_pair(bench, settings.pair)

    def find() -> Any:
        runs = {name: load_denoiser(trained[part].run, "last") for name, part in (("A", "few"), ("B", "many"))}
        data = load_data(trained["few"].data)
        sigmas = sampler_levels(settings.method, None, runs["A"].schedule)
        windows = [named_window(word, data) for word in settings.windows]
        rows = list(swap_rows(["B", "gaussian", "skip"], windows, sigmas, controls=settings.controls))
        table = swap_experiment({name: run.denoiser for name, run in runs.items()}, rows, data, sigmas,
                                n=settings.samples, method=settings.method)
        return {"sampler": {"method": settings.method, "sigma": sigmas.tolist()}, **table.to_dict()}

    document = bench.part("swap", find)
    names = {"A": "few", "B": "many", "gaussian": "gaussian", "skip": "skip", None: None}
    rows = []
    for row in document["rows"]:
        window = row["window"] or {"name": None, "control_of": None, "steps": (None, None), "sigma": None}
        rows.append({
            "outside": names[row["outside"]], "inside": names[row["inside"]],
            "window": f"beside {window['control_of']}" if window["control_of"] else window["name"],
            **{key: row["memorization"][key] for key in ("rate", "low", "high")}, **row["quality"],
            **{f"leaning{part}": row["leaning"][key] for part, key in (("", "share"), ("_low", "low"),
                                                                      ("_high", "high"))},
            "first_step": window["steps"][0], "last_step": window["steps"][1], "sigma": window["sigma"],
            "control_of": window["control_of"], "difference": row["difference"]})
    return Outcome({"rows": rows, "sampler": document["sampler"],
                    "heldout": document["heldout"]["memorization"]["rate"]}, compared(rows), [
        *settings.pair.deviations(),
        f"{settings.samples:,} seeds, 18 steps of {settings.method}; last averaged weights",
        *([f"at {settings.pair.side} x {settings.pair.side} pixels images lie closer: the same sigma is not the same "
           "place in the picture; the window of the danger zone moves with the data"] if settings.pair.side < 32
          else [])])


def compared(rows: list[dict[str, Any]]) -> list[Compared]:
    def of(outside: str, inside: str | None, window: str | None) -> dict[str, Any]:
        return next(row for row in rows if (row["outside"], row["inside"], row["window"]) == (outside, inside, window))

    def told(row: dict[str, Any]) -> str:
        leans = Interval.of(row, *LEANING)
        return f"{Interval.of(row, 'rate').told('.1%')}, nearer to training {leans.told('.0%')}"

    def priced(row: dict[str, Any]) -> str:
        return f"{told(row)}, Frechet distance {Interval.of(row, *FRECHET).told('.3g')}"

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


RATE, FRECHET = ("rate", "low", "high"), ("frechet", "frechet_low", "frechet_high")
LEANING = "leaning", "leaning_low", "leaning_high"
COLOUR = {"few": BLUE, "many": ORANGE, "gaussian": COLOURS[2], "skip": COLOURS[3]}
PANELS = (("few", RATE, "memorized share"), ("few", LEANING, "nearer to training"),
          ("few", FRECHET, "Frechet distance"), (None, RATE, "memorized share"))


def draw(document: Mapping[str, Any]) -> Figure:
    """One bar per window and replacement, with 95% intervals; dashed lines are the two models alone.

    In the last panel the model of few images is inside the window, in the others outside.
    """
    pair = document["settings"]["pair"]
    names = {"few": f"model of {pair['few']:,} images", "many": f"model of {pair['many']:,} images",
             "gaussian": "Gaussian denoiser", "skip": "stepped over"}
    rows = [row for row in document["result"]["rows"] if not row["control_of"]]
    alone = {row["outside"]: row for row in rows if row["window"] is None}
    windows = list(dict.fromkeys(row["window"] for row in rows if row["window"]))
    data = f"{pair['data']} {pair['side']} x {pair['side']}"
    with captioned(document, f"{data}, sigma of the first and last step swapped", 2 + 1.1 * len(windows), 10) as figure:
        shown = [panel for panel in PANELS if panel[1][0] in rows[0]]  # older results have no leaning
        panels = figure.subplots(len(shown), sharex=True)
        for axes, (outside, keys, label) in zip(panels, shown, strict=True):
            side, other = ("outside", "inside") if outside else ("inside", "outside")
            bars(axes, [(windows.index(row["window"]), row[other], [row[key] for key in keys])
                        for row in rows if row["window"] and row[side] == "few"])
            for name in ("few", "many"):
                axes.axhline(alone[name][keys[0]], color=COLOUR[name], ls="--", lw=1)
            axes.set_ylabel(label)
            if keys != FRECHET:
                axes.set_ylim(-.03, 1.03)
        panels[0].set_title(f"{names['few']}, its denoiser in the window replaced", fontsize=9)
        panels[-1].set_title(f"the window of the {names['few']} in another denoiser", fontsize=9)
        labels = {row["window"]: "{}\n{:.3g} to {:.3g}".format(row["window"], *row["sigma"])
                  for row in rows if row["window"]}
        panels[-1].set_xticks(range(len(windows)), [labels[name] for name in windows], fontsize=8)
        for name, colour in COLOUR.items():
            panels[0].plot([], [], color=colour, lw=5, label=names[name])
        panels[0].plot([], [], color=GREY, ls="--", lw=1, label="a model alone, in its colour")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def bars(axes: Axes, found: list[tuple[int, str, list[float]]]) -> None:
    """Bars side by side at each place, one colour for each denoiser; (place, denoiser, value and interval) each."""
    names = list(dict.fromkeys(name for _, name, _ in found))
    width = .8 / len(names)
    for k, name in enumerate(names):
        at = [(place + (k - (len(names) - 1) / 2) * width, value) for place, inside, value in found if inside == name]
        middle = [value for _, (value, _, _) in at]
        axes.bar([x for x, _ in at], middle, .9 * width, color=COLOUR[name], ecolor=GREY, capsize=2,
                 yerr=[[value - low for _, (value, low, _) in at], [high - value for _, (value, _, high) in at]])


EXPERIMENT = Experiment("swapped-windows", "[G] Table 1, Figure 10", "which noise levels make a model copy",
                        SCALES, run, draw)
