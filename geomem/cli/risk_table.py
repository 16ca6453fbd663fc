"""``geomem risk``: the printed table."""

from __future__ import annotations

from typing import Any

from geomem.errors import counted


def text_of(document: dict[str, Any]) -> str:
    """The document for people."""
    data, top, median, samples = document["data"], document["top"], document["median"], document["samples"]
    merged = data["n_train"] - data["groups"]
    lines = [f"{data['name']}: {data['n_train']:,} training points of {counted(data['dim'], 'value')}"
             + (f"; {merged:,} within {document['settings']['tolerance']:.3g} of another count as one with it"
                if merged else ""), ""]
    names = {"index": "point", "label": "label", "group_size": "times", "nearest_distance": "nearest",
             "concentrated_below": "threshold", "sigma_half": "sigma 1/2", "score": "score", "copies": "copies"}
    shown = [name for name in names if name in top[0]]
    lines.append("  ".join([f"{'rank':>4}", *(f"{names[name]:>9}" for name in shown)]))
    for rank, row in enumerate(top, start=1):
        lines.append("  ".join([f"{rank:4}", *(f"{_cell(row[name]):>9}" for name in shown), row.get("file", "")]))
    lines.append("  ".join([f"{'':>4}", *(f"{_cell(median[name]) if name in median else '':>9}" for name in shown)])
                 + "  median of all")
    lines += ["", "times: occurrences, near duplicates included; nearest: distance to the nearest other point; "
                  "threshold: noise level", f"below which the point holds {document['settings']['q']:.0%} of the "
                  "posterior weight (Theorem 4.2); sigma 1/2: where its mean weight", "falls to a half; "
                  "score: times x 2 nearest / (nearest + median nearest)."]
    if "sigma_half" not in median:
        lines.append("note: sigma 1/2 is left out, it looks at all pairs of points")
    if samples:
        m, tenth = samples["memorized"], samples["riskiest_tenth"]
        lines += ["", f"{counted(samples['n'], 'sample')}, memorized {m['rate']:.1%} [{m['low']:.1%}, "
                      f"{m['high']:.1%}]; {samples['points_copied']:,} of {data['groups']:,} points "
                      f"{'was' if samples['points_copied'] == 1 else 'were'} copied"
                      + (f"; the riskiest {tenth['points']} hold {tenth['share_of_copies']:.1%} of the copies"
                         if samples["points_copied"] else ""),
                  f"{'rank correlation with':>24}  {'copies':^26}  {'close samples':^26}  {'nearest samples':^26}"]
        lines += [f"{name.replace('_', ' '):>24}  "
                  + "  ".join(f"{_correlation_cell(pair):^26}" for pair in row.values())
                  for name, row in samples["correlations"].items() if row["nearest_samples"]["rho"] is not None]
        lines += ["copies: by the ratio rule, which forgives more at isolated points; close samples: as many, by "
                  "distance alone;", "nearest samples: all samples, each at its nearest training point; constant: the "
                  "same", "number at every point, so there is no correlation"]
        if len(samples["by_group_size"]) > 1:
            lines.append("mean copies of points that occur " + ", ".join(
                f"{times} x: {mean['mean_copies']:.1f}"
                + ("" if mean["stderr"] is None else f" +- {mean['stderr']:.1f}") + f" ({mean['points']} points)"
                for times, mean in samples["by_group_size"].items()))
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: float | int | None) -> str:
    return "any" if value is None else str(value) if isinstance(value, int) else f"{value:.3g}"


def _correlation_cell(pair: dict[str, Any]) -> str:
    if pair["rho"] is None:
        return "constant"
    interval = "" if pair["low"] is None else f" [{pair['low']:+.2f}, {pair['high']:+.2f}]"
    return f"{pair['rho']:+.2f}{interval}"
