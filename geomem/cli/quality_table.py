"""The table that ``geomem quality`` prints."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geomem.quality import Comparison, QualityReport

WIDTH = 118
SHARES = ("memorized", "leaning")
MEANING = {
    "leaning": "nearer to train: share of samples nearer to the training points than to as many held-out ones, 50% "
               "where nothing is owed to the training points",
    "Frechet distance": "Frechet: squared 2-Wasserstein distance of fitted Gaussians",
    "kernel distance": "MMD^2: squared maximum mean discrepancy with KID's kernel, unbiased",
    "FID": "FID: Frechet distance of Inception features",
    "KID": "KID: MMD^2 of Inception features, from all points at once",
    "precision": "precision: share of samples within reach of held-out points, out to the third nearest other",
    "recall": "recall: share of held-out points within reach of samples",
    "Wasserstein-1": "W1: Wasserstein-1 distance along a principal component of the training points",
    "Jensen-Shannon": "JS: Jensen-Shannon distance of histograms, 30 bins over the held-out range, the outer "
                      "two open",
    "mean distance": "mean L2: mean distance to all training points, to be held against held-out data",
}
Interval = tuple[float, float, float]  # value, low, high


def text_of(comparison: Comparison) -> str:
    """The comparison for people."""
    rows, heldout, data = comparison.rows, comparison.heldout, comparison.data
    first = rows[0].columns
    titles = list(first)
    first_measure = titles.index("Frechet (px)") + 1
    lines = [["samples", "n", *titles[:first_measure], "median NN", *titles[first_measure:]]]

    def line(label: str, n: int, cells: Mapping[str, Interval], nearest: float) -> list[str]:
        text = ["-" if title not in cells else _share(cells[title]) if first[title].name in SHARES else
                _cell(cells[title]) for title in titles]
        return [label, f"{n:,}", *text[:first_measure], _distance(nearest), *text[first_measure:]]

    for row in rows:
        cells = {title: (column.value, column.low, column.high) for title, column in row.columns.items()}
        lines.append(line(row.label, row.memorization.n, cells, row.quality.nearest_samples))
    for mean in comparison.means:
        cells = {title: (column.mean, column.low, column.high) for title, column in mean.columns.items()}
        lines.append(line(f"mean of {mean.runs}: {mean.label}", mean.n, cells, mean.nearest_samples))
    q, s = rows[0].quality, rows[0].leaning
    shares = {"memorized": _share((heldout.rate, heldout.low, heldout.high)),
              "leaning": _share((s.floor.share, s.floor.low, s.floor.high)) if s and s.floor else "-"}
    floors = [shares[column.name] if column.name in SHARES else
              "" if column.floor is None else _number(column.floor, column.high - column.low)
              for column in first.values()]
    width = first["Frechet (px)"].high - first["Frechet (px)"].low
    floors[first_measure - 1] += f" [{_number(q.frechet_floor_low, width)}, {_number(q.frechet_floor_high, width)}]"
    lines.append(["held-out data", f"{heldout.n:,}", *floors[:first_measure], _distance(q.nearest_heldout),
                  *floors[first_measure:]])
    alike = all(row.quality.floor_n == q.floor_n for row in rows)
    smaller = [_distance(row.quality.frechet_at_floor_size) + ("" if alike else _floor_of(row.quality)) for row in rows]
    notes = [f"{data['name']}: {data['n_train']:,} training points; memorized: nearer than 1/3 of the distance to the "
             f"second nearest training point; held against {data['n_test']:,} held-out points, with 95% intervals over "
             "the samples; median NN: median distance to the nearest training point.",
             f"held-out data: {q.floor_n[0]:,} of them against {q.floor_n[1]:,} others, where others are needed"
             f"{'' if alike else ', for the first file'}; beside the Frechet distance (px) of them the smallest and "
             "largest of ten such random splits. Fewer points make most figures worse: at "
             f"{'those sizes' if alike else 'the sizes of its own floor'} the Frechet distance (px) of the samples is "
             f"{', '.join(smaller)}."]
    notes += [f"{MEANING[name]}." for name in dict.fromkeys(column.name for column in list(first.values())[1:])]
    if comparison.means:
        notes.append("mean of k: over runs, with the interval for other seeds (Student's t).")
    return "\n".join([*_folded(lines), "", *(textwrap.fill(note, WIDTH) for note in notes)])


def _floor_of(quality: QualityReport) -> str:
    n, others = quality.floor_n
    return f" ({n:,} against {others:,}, where held-out data reach {_distance(quality.frechet_floor)})"


def _folded(lines: list[list[str]]) -> list[str]:
    """The lines as aligned columns, further columns below each other where they are wider than a page."""
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    pages: list[list[int]] = [[]]
    for k in range(1, len(widths)):
        if pages[-1] and widths[0] + sum(widths[j] + 2 for j in (*pages[-1], k)) > WIDTH:
            pages.append([])
        pages[-1].append(k)
    text: list[str] = []
    for page in pages:
        part = ["  ".join([line[0].ljust(widths[0]), *(line[k].rjust(widths[k]) for k in page)]) for line in lines]
        text += [*([""] if text else []), part[0], "-" * len(part[0]), *part[1:]]
    return text


def _share(cell: Interval) -> str:
    value, low, high = cell
    return f"{value:.1%} [{low * 100:.1f}, {high * 100:.1f}]"


def _cell(cell: Interval) -> str:
    value, low, high = (_number(value, cell[2] - cell[1]) for value in cell)
    return f"{value} [{low}, {high}]"


def _distance(value: float) -> str:
    return f"{value:.2f}" if value < 1e7 else f"{value:.3g}"


def _number(value: float, width: float) -> str:
    """With two digits of half the width of its interval, or three behind the point where that is but rounding."""
    if abs(value) >= 1e7:
        return f"{value:.3g}"
    half = width / 2
    return f"{value:z.{max(0, min(8, 1 - math.floor(math.log10(half)))) if half > 1e-9 * abs(value) else 3}f}"
