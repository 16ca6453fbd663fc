"""``geomem audit``: may it be published? Every test for copying and leaning, and one verdict."""

from __future__ import annotations

import os
from typing import Any

import click

from geomem.cli.judged import judged, judged_options, more_heldout, near_copy_lines
from geomem.cli.options import device_option, directory_option, json_option
from geomem.cli.output import answer, say
from geomem.cli.values import Number

AUDIT_FILE = "audit.json"
SHOWN = 32  # samples in the picture
SHOWN_CLASSES = 12  # in the text; the page and the JSON have all
_EFFECTS = {"leaning": "a leaning of", "leaning_by_class": "a leaning of", "membership": "an AUC of"}


@click.command()
@judged_options
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the tests.")
@click.option("--fail-over", type=Number(0, 1), metavar="SHARE",
              help="Exit with status 3 where the verdict is copies or none can be given, or where more than this share "
                   "of the samples is nearer to training than to held-out points; 0.5 owes them nothing.")
@device_option
@json_option
@directory_option("audit.html (one page for people), audit.json, closest.png (the samples nearest to training points, "
                  "each beside its own) and, for a RUN, samples.npz")
def audit(seed: int, fail_over: float | None, as_json: bool, out: str | None, **asked: Any) -> None:
    """May it be published? Look for copies, near-copies, mirrored copies and leaning in the samples of a RUN (of geomem
    train or geomem export, or a diffusers folder) or in given samples (an .npz, or a folder or zip of pictures), for
    membership in the model of a RUN, and give one verdict: copies, leans, or nothing found, with the smallest effect
    that would have been found.

    Samples are compared with held-out points that were never used for model selection. With fewer than 10 of them only
    copies can be found, and no all-clear is given.

    Example: geomem audit runs/digits --out runs/digits/audit --fail-over 0.6
    """
    samples, dataset, model, how, head = judged(out, AUDIT_FILE, **asked)
    from geomem.files import write_json, write_text
    from geomem.generation.samples import doubts_of_split
    from geomem.report.audit import render_audit
    from geomem.run_audit import audit as audited

    known: dict[str, Any] = {} if model is None else {"denoiser": model.denoiser, "labels": model.classes_of(dataset)}
    found = audited(samples.values, dataset.train, dataset.test, **known, classes=samples.classes(dataset),
                    class_names=dataset.class_names or (), leaked=dataset.n_leaked,
                    limits=doubts_of_split(samples, dataset), **how, seed=seed)
    document = {**found.to_dict(), "target": asked["target"], **head}
    for part in document["classes"]:
        part["name"] = dataset.class_name(part["label"])
    if found.near_copies:
        document["near_copies"]["file"] = dataset.files(document["near_copies"]["nearest"])
    else:
        document["advice"].append(more_heldout(dataset))
    if out:
        write_json(os.path.join(out, AUDIT_FILE), document)
        drawn = dataset.drawn(samples.values), dataset.drawn(dataset.train)
        write_text(os.path.join(out, "audit.html"), render_audit(document, *drawn, found, dataset.files))
        _picture(os.path.join(out, "closest.png"), *drawn, found)
        say(f"wrote {out}")
    answer(document, _text, as_json)
    if fail_over is not None and found.exceeds(fail_over):
        raise SystemExit(3)


def _picture(path: str, samples: Any, train: Any, found: Any) -> None:
    from geomem.files import draw_figure
    from geomem.plots import plot_closest

    rate = found.closest
    order = rate.nearest_distance.argsort(kind="stable")[:SHOWN]
    draw_figure(path, lambda: plot_closest(samples[order], train[rate.nearest[order]], rate.nearest_distance[order],
                                           rate.n, copied=found.copied[order]))


def _text(document: dict[str, Any]) -> str:
    from geomem.run_audit import HEADLINES

    quality, level = document["quality"], document["level"]
    near = near_copy_lines(document["near_copies"]) if document["near_copies"] else []
    lines = [f"verdict: {HEADLINES[document['verdict']]}", "", *document["reasons"], "",
             f"{'test':19} {'p value':>9}   would have found, with 90% probability"]
    for test in document["tests"]:
        effect = test["smallest_effect"]
        what = "nothing of any size" if effect is None else (
            f"{_EFFECTS[test['name']]} {effect:.1%}" if test["name"] in _EFFECTS else f"{effect:.1%} of the samples")
        lines.append(f"{test['name'].replace('_', ' '):19} {test['p_value']:9.2g}   {what}"
                     + ("   <- fires" if test["fires"] else ""))
    lines += [f"{name.replace('_', ' '):19} not measured" for name in document["left_out"]]
    lines += [f"A test fires at p <= {level:.3g}: all of them together are wrong about an honest model in at most 5% "
              "of cases.", "",
              *([f"Frechet distance at equal numbers: {quality['frechet_at_floor_size']:.3g} beside "
                 f"{quality['frechet_floor']:.3g} of held-out points, n = {quality['floor_n'][0]:,}", ""]
                if quality else []), *near, *([""] if near else []), *_class_lines(document["classes"], level),
              "What this cannot see:", *(f"  {sentence}" for sentence in document["blind"]),
              *(["", "What to do next:"] if document["advice"] else []),
              *(f"  {sentence}" for sentence in document["advice"])]
    return "\n".join(lines)


def _class_lines(classes: list[dict[str, Any]], level: float) -> list[str]:
    """The classes that look worst, by the smaller of their p values, which are corrected for the number of classes."""
    if not classes:
        return []
    ranked = sorted(classes, key=lambda part: min(part["ratio_rule_p_value"], part["leaning_p_value"]))
    lines = [f"{'class':>9}  {'samples':>7}  {'memorized [95%]':>19}  {'nearer to training [95%]':>25}"]
    for part in ranked[:SHOWN_CLASSES]:
        leans = part["leaning"]
        fires = min(part["ratio_rule_p_value"], part["leaning_p_value"]) <= level
        copies, nearer = (f"{share:.1%} [{row['low']:.1%}, {row['high']:.1%}]" for share, row in (
            (part["rate"], part), (leans["share"], leans)))
        lines.append(f"{str(part['name'] or part['label'])[:20]:>9}  {part['n']:>7,}  {copies:>19}  {nearer:>25}"
                     + ("   <- fires" if fires else ""))
    return [*lines, *([f"and {len(ranked) - SHOWN_CLASSES:,} more classes"] if len(ranked) > SHOWN_CLASSES else []), ""]
