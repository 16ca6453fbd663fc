"""From figures with intervals to sentences.

Two memorized shares differ when the 95% interval of their difference, Newcombe's (``statistics.newcombe_interval``),
leaves out 0. Two Frechet distances are compared in the same way with their normal intervals. Both take the two sets of
samples as independent. Each pair stands alone: nothing corrects for looking at several. The intervals are those of
sampling from a trained model; another training with another seed would give other figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geomem.report.facts import RunFacts
from geomem.statistics import newcombe_interval

_WIDE = 0.05  # an interval that reaches this far above the held-out floor leaves the question open

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """kind: ``copies``, ``leans`` (no copies, but samples nearer to training than to unseen points), ``clean``,
    ``open`` (too few samples, or nothing known of leaning) or ``unknown``; headline and further sentences.
    """

    kind: str
    headline: str
    sentences: tuple[str, ...] = ()


def percent(share: float) -> str:
    """31.0%; below a tenth of a percent two digits."""
    return f"{100 * share:.1f}%" if share == 0 or share >= 0.001 else f"{100 * share:.2f}%"


def with_interval(share: Figures) -> str:
    """31.0% [28.2, 34.0]"""
    return f"{percent(share['rate'])} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"


def three_digits(value: float) -> str:
    """1.60, 0.814, 123"""
    return f"{value:#.3g}".rstrip(".")


def frechet_text(quality: Figures) -> str:
    """1.13 [0.99, 1.27]"""
    value, low, high = (three_digits(quality[name]) for name in ("frechet", "frechet_low", "frechet_high"))
    return f"{value} [{low}, {high}]"


def share_difference(a: Figures, b: Figures) -> tuple[float, float, float]:
    """a - b with its 95% interval (``newcombe_interval``), from ``rate``, ``low``, ``high`` of each."""
    low, high = newcombe_interval(a["rate"], (a["low"], a["high"]), b["rate"], (b["low"], b["high"]))
    return a["rate"] - b["rate"], low, high


def frechet_difference(a: Figures, b: Figures) -> tuple[float, float, float]:
    """a - b with its 95% interval, squared data units; the upper half-widths, since the lower ones may end at 0."""
    difference = a["frechet"] - b["frechet"]
    half = math.hypot(a["frechet_high"] - a["frechet"], b["frechet_high"] - b["frechet"])
    return difference, difference - half, difference + half


def judge(run: RunFacts, subject: str = "This run") -> Verdict:
    """Does it copy, and how close are its samples to the data? By the audit of its samples; where there are too few
    held-out points for one, the intervals of the shares can tell copies, but give no all-clear.
    """
    share, floor, audited = run.trajectory, run.heldout, run.audit
    if share is None or floor is None:
        return Verdict("unknown", f"{subject}: not known yet whether it copies.",
                       ("No samples could be evaluated; what is missing is named below.",))
    if audited is not None and audited["verdict"] is None:
        return Verdict("unknown", f"{subject}: no verdict can be given.", tuple(audited["reasons"]))
    same_rule = f"The same rule calls {with_interval(floor)} of {floor['n']:,} held-out points copies."
    if share["low"] > floor["high"] if audited is None else audited["verdict"] == "copies":
        kind = "copies"
        headline = (f"{subject} copies: {with_interval(share)} of its {share['n']:,} samples are copies of training "
                    "points.")
    elif share["high"] > floor["high"] + _WIDE:
        kind = "open"
        headline = (f"{subject} may copy: {with_interval(share)} of its {share['n']:,} samples are copies, and so few "
                    f"samples leave up to {percent(share['high'])} possible.")
        same_rule += " More samples (geomem generate --seeds 0-9999) would tell."
    elif audited is None or run.leaning is None:
        kind = "open"
        headline = (f"{subject} shows no copies, {with_interval(share)} of its {share['n']:,} samples, but whether it "
                    "leans on its training points is not known.")
    elif audited["verdict"] == "leans":
        kind = "leans"
        headline = (f"{subject} leans on its training points: {leaning_text(run.leaning)} of its samples are nearer to "
                    f"them than to as many held-out points, where 50% owe them nothing. {with_interval(share)} of them "
                    "are copies by the ratio rule.")
    else:
        kind = "clean"
        headline = (f"{subject} shows neither copies nor leaning, as far as {share['n']:,} samples can tell: "
                    f"{with_interval(share)} of them are copies of training points, no more than of held-out data, and "
                    f"{leaning_text(run.leaning)} are nearer to training than to as many held-out points.")
    fired = [] if audited is None else [
        test["sentence"] for test in audited["tests"] if test["fires"] and test["name"] in (
            "mirrored", "near_copies", "membership", "ratio_rule_by_class", "leaning_by_class")]
    return Verdict(kind, headline, (same_rule, *_leaning_sentences(run.leaning, kind), *fired,
                                    *_quality_sentences(run.quality, kind)))


def leaning_text(leaning: Figures) -> str:
    """73.2% [68.1, 77.8]"""
    return with_interval({**leaning, "rate": leaning["share"]})


def _leaning_sentences(leaning: Figures | None, kind: str) -> list[str]:
    if leaning is None:
        return []
    floor = leaning["floor"]
    real = f"Of held-out points themselves {leaning_text(floor)} are." if floor else ""
    if kind in ("leans", "clean"):
        return [real] if real else []
    return [f"{leaning_text(leaning)} of its samples are nearer to training points than to as many held-out ones; 50% "
            f"owe them nothing. {real}".strip()]


def _quality_sentences(quality: Figures | None, kind: str) -> list[str]:
    if quality is None:
        return []
    n, others = quality["floor_n"]
    found, floor, low, high = (three_digits(quality[f"frechet_{name}"])
                               for name in ("at_floor_size", "floor", "floor_low", "floor_high"))
    near = quality["frechet_at_floor_size"] <= quality["frechet_floor_high"]
    text = (f"Its samples are {'about as close to' if near else 'farther from'} held-out data "
            f"{'as' if near else 'than'} other held-out data are: Frechet distance {found} at equal numbers beside "
            f"{floor} ({n:,} against {others:,} real points; {low} to {high} in ten splits).")
    if kind == "copies":
        text += " This figure does not notice copying."
    return [text]


def compare(runs: Sequence[tuple[str, RunFacts]]) -> list[str]:
    """Which of the named runs is better, and whether the difference exceeds the intervals; a sentence each."""
    sentences: list[str] = []
    if len({run.data.sha256 for _, run in runs}) > 1:
        return ["The runs were trained on different data, so their figures cannot be compared: each stands beside "
                "its own held-out floor."]
    shares = [(name, run.trajectory) for name, run in runs if run.trajectory is not None]
    best_share = _ranked(shares, "rate", share_difference, "copies least", with_interval, sentences)
    qualities = [(name, run.quality) for name, run in runs if run.quality is not None]
    if len({(quality["n_samples"], quality["n_heldout"]) for _, quality in qualities}) > 1:
        sentences.append("The Frechet distances come from different numbers of points, on which they depend, so they "
                         "cannot be compared; use the same --seeds for all runs.")
        qualities = []
    best_quality = _ranked(qualities, "frechet", frechet_difference, "has the samples closest to held-out data",
                           frechet_text, sentences)
    if best_share and best_quality:
        both = [name for name, _ in runs if name in best_share and name in best_quality]
        if both and len(both) < len(runs):
            sentences.append(f"Together: {_listed(both)} {'is' if len(both) == 1 else 'are'} not beaten on either "
                             "count.")
        elif not both:
            sentences.append("Together: the run that copies less is not the one with the better samples; which matters "
                             "more is for you to say.")
    if len({run.sampling for _, run in runs if run.sampling}) > 1:
        sentences.append("The samples were not all made in the same way; see each run.")
    return sentences


def _ranked(rows: Sequence[tuple[str, Any]], key: str, difference: Any, title: str, text: Any,
            sentences: list[str]) -> set[str]:
    """Say who is smallest in ``key`` and from whom that differs; the names that are not distinguishably larger."""
    if len(rows) < 2:
        return set()
    best_name, best = min(rows, key=lambda row: row[1][key])
    level, beaten = [best_name], list[str]()
    for name, row in rows:
        if name != best_name:
            (beaten if difference(row, best)[1] > 0 else level).append(name)
    if len(level) == len(rows):
        sentences.append(f"By the figures {best_name} {title}, {text(best)}, but the differences are within the "
                         "intervals: no run can be told from the best.")
    else:
        line = f"{best_name} {title}: {text(best)}. The difference exceeds the intervals against {_listed(beaten)}"
        sentences.append(line + (f", not against {_listed(level[1:])}." if level[1:] else "."))
    return set(level)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}"
