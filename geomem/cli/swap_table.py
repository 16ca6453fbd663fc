"""The table that ``geomem swap`` prints."""

from __future__ import annotations

import textwrap
from typing import Any

from geomem.errors import counted

WIDTH = 118


def text_of(document: dict[str, Any]) -> str:
    """The document for people."""
    lines: list[tuple[str, ...]] = [("outside", "inside", "window", "sigma (steps)", "memorized", "change",
                                     "nearer to train", "Frechet (px)", "median NN")]
    pair = None
    for row in document["rows"]:
        m, d, q, w = row["memorization"], row["difference"], row["quality"], row["window"]
        if pair != (pair := w and (row["outside"], row["inside"])):
            lines.append(())
        lines.append((
            row["outside"], row["inside"] or "", "" if w is None else "  control" if w["control_of"] else w["name"],
            "" if w is None else _steps(w),
            _percent(m), "" if d is None else
            f"{100 * d['difference']:+.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]",
            _leaning(row["leaning"]),
            f"{q['frechet']:.3f} [{q['frechet_low']:.3f}, {q['frechet_high']:.3f}]",
            f"{m['median_nearest_distance']:.2f}"))
    h, first = document["heldout"], document["rows"][0]["leaning"]
    floor = first and first["floor"]
    m = h["memorization"]
    lines += [(), ("held-out data", "", "", "", _percent(m), "", _leaning(floor),
                   f"{h['frechet']:.3f} ({h['floor_n'][0]} against {h['floor_n'][1]})",
                   f"{m['median_nearest_distance']:.2f}")]
    widths = [max(len(line[k]) for line in lines if line) for k in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) if k < 3 else cell.rjust(width)
                      for k, (cell, width) in enumerate(zip(line, widths, strict=bool(line)))).rstrip()
            for line in lines]
    names = [f"{name}: {model['run']} ({model['weights']})" for name, model in document["models"].items()]
    data, n = document["data"], document["rows"][0]["memorization"]["n"]
    notes = (f"{counted(n, 'sample')} a row, the same seeds in all; 95% intervals. memorized: nearer than 1/3 of the "
             "distance "
             f"to the second nearest of {data['n_train']:,} training points of {data['name']}; change: in percentage "
             "points, paired by seed, from the row where the denoiser outside works alone (there, from A); nearer to "
             "train: samples nearer to training than to as many held-out points, 50% owe them nothing; Frechet "
             f"distance in pixels (squared data units) to {counted(data['n_test'], 'held-out point')}; sigma: the "
             "sampler's first and last level in the window; median NN: median distance to the nearest training point.")
    return "\n".join([*text, "", *names, "", textwrap.fill(notes, WIDTH)])


def _steps(window: dict[str, Any]) -> str:
    (first, last), (high, low) = window["steps"], window["sigma"]
    return (f"{high:.3g}" if first == last else f"{high:.3g} - {low:.3g}") + f" ({last - first + 1})"


def _leaning(leans: dict[str, Any] | None) -> str:
    return "" if leans is None else _percent({**leans, "rate": leans["share"]})


def _percent(share: dict[str, float]) -> str:
    return f"{share['rate']:.1%} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"
