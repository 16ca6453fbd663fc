"""``geomem audit``: may it be published? Every test for copying and leaning, and one verdict."""

from __future__ import annotations

import os
from typing import Any

import click

from geomem.cli.memorization import near_copy_lines
from geomem.cli.options import (
    Number,
    answer,
    device_option,
    json_option,
    judged_options,
    require_data,
    require_new_directory,
    say,
)

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
@click.option("--out", metavar="DIR", type=click.Path(file_okay=False),
              help="Write audit.html (one page for people), audit.json, closest.png (the samples nearest to training "
                   "points, each beside its own) and, for a RUN, samples.npz.")
def audit(target: str, data: str | None, n_samples: int, weights: str | None, steps: int | None, method: str,
          tolerance: float | None, seed: int,
          fail_over: float | None, device: str, as_json: bool, out: str | None, **looking: Any) -> None:
    """May it be published? Look for copies, near-copies, mirrored copies and leaning in the samples of a RUN (of geomem
    train or geomem export, or a diffusers folder) or in given samples (an .npz, or a folder or zip of pictures), for
    membership in the model of a RUN, and give one verdict: copies, leans, or nothing found, with the smallest effect
    that would have been found.

    Samples are compared with held-out points that were never used for model selection, at least 10 of them.

    Example: geomem audit runs/digits --out runs/digits/audit --fail-over 0.6
    """
    require_data(data)
    from geomem.cli.generate import samples_to_judge
    from geomem.features import load_features
    from geomem.files import write_json, write_text
    from geomem.report.audit import render_audit
    from geomem.run_audit import audit as audited

    if out:
        require_new_directory(out, AUDIT_FILE)
    if looking["features"]:
        looking["features"] = load_features(looking["features"], device=device)
    samples, dataset, model = samples_to_judge(target, data, n_samples=n_samples, weights=weights, device=device,
                                               out=out, steps=steps, method=method)
    looking["mirrored"] |= samples.flip
    known: dict[str, Any] = {} if model is None else {"denoiser": model.denoiser, "labels": model.classes_of(dataset)}
    found = audited(samples.values, dataset.train, dataset.test, **known, classes=samples.classes(dataset),
                    class_names=dataset.class_names or (), tolerance=tolerance, **looking, seed=seed, device=device)
    document = {**found.to_dict(), "target": target, "about": samples.about,
                "data": {"name": dataset.name, "sha256": dataset.sha256, "n_train": len(dataset.train),
                         "leaked": dataset.n_leaked}}
    for part in document["classes"]:
        part["name"] = dataset.class_name(part["label"])
    document["near_copies"]["file"] = dataset.files(document["near_copies"]["nearest"])
    if out:
        write_json(os.path.join(out, AUDIT_FILE), document)
        write_text(os.path.join(out, "audit.html"), render_audit(document, samples.values, dataset.train,
                                                                 found.near_copies, dataset.files))
        _picture(os.path.join(out, "closest.png"), samples.values, found.near_copies, dataset.train)
        say(f"wrote {out}")
    answer(document, _text, as_json)
    if fail_over is not None and found.exceeds(fail_over):
        raise SystemExit(3)


def _picture(path: str, samples: Any, near: Any, train: Any) -> None:
    from geomem.files import draw_figure
    from geomem.plots import plot_closest

    closest = near.nearest_distance.argsort(kind="stable")[:SHOWN]
    draw_figure(path, lambda: plot_closest(samples[closest], train[near.nearest[closest]],
                                           near.nearest_distance[closest], near.n))


def _text(document: dict[str, Any]) -> str:
    from geomem.run_audit import HEADLINES

    quality, level = document["quality"], document["level"]
    lines = [f"verdict: {HEADLINES[document['verdict']]}", "", *document["reasons"], "",
             f"{'test':19} {'p value':>9}   would have found, with 90% probability"]
    for test in document["tests"]:
        effect = test["smallest_effect"]
        what = "nothing of any size" if effect is None else (
            f"{_EFFECTS[test['name']]} {effect:.1%}" if test["name"] in _EFFECTS else f"{effect:.1%} of the samples")
        lines.append(f"{test['name'].replace('_', ' '):19} {test['p_value']:9.2g}   {what}"
                     + ("   <- fires" if test["p_value"] <= level else ""))
    lines += [f"A test fires at p <= {level:.3g}: all of them together are wrong about an honest model in at most 5% "
              "of cases.", "",
              f"Frechet distance at equal numbers: {quality['frechet_at_floor_size']:.3g} beside "
              f"{quality['frechet_floor']:.3g} of held-out points, n = {quality['floor_n'][0]:,}", "",
              *_near_copies(document["near_copies"]), *_class_lines(document["classes"], level),
              "What this cannot see:", *(f"  {sentence}" for sentence in document["blind"]),
              *(["", "What to do next:"] if document["advice"] else []),
              *(f"  {sentence}" for sentence in document["advice"])]
    return "\n".join(lines)


def _near_copies(near: dict[str, Any]) -> list[str]:
    lines = [line.strip() for line in near_copy_lines(near)]
    return [*lines, ""] if lines else []


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
