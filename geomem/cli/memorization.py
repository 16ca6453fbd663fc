"""``geomem memorization``: did it memorize? Trajectories, noise levels, and the held-out floor."""

from __future__ import annotations

import os
from typing import Any

import click

from geomem.cli.judged import judged, judged_options, more_heldout, near_copy_lines
from geomem.cli.options import device_option, directory_option, json_option
from geomem.cli.output import answer, progress_bar, say, warn
from geomem.cli.values import Sigmas
from geomem.errors import counted

MEMORIZATION_FILE = "memorization.json"


@click.command()
@judged_options
@click.option("--sigmas", type=Sigmas(), default=20, show_default=True,
              help="For a RUN: noise levels to test, a number (from 0.01 to 80, log-spaced) or the levels in "
                   "data units.")
@click.option("--n-points", type=click.IntRange(2), default=512, show_default=True, metavar="N",
              help="For a RUN: training and held-out points per noise level.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the noise per level.")
@device_option
@json_option
@directory_option("memorization.json, samples.png (each beside its nearest training point) and, for a RUN, samples.npz "
                  "and noise-levels.png")
def memorization(sigmas: int | list[float], n_points: int, seed: int, as_json: bool, out: str | None,
                 **asked: Any) -> None:
    """Measure memorization of a RUN (of geomem train or geomem export, or a diffusers folder), or of given samples: an
    .npz, or a folder or zip of pictures.

    For a RUN also per noise level, beside the empirical optimal denoiser (memorizes perfectly) and the Gaussian linear
    denoiser (knows only mean and covariance).

    Example: geomem memorization runs/digits --out runs/digits/report
    """
    samples, dataset, model, how, head = judged(out, MEMORIZATION_FILE, **asked)
    from geomem.files import write_json
    from geomem.memorization import heldout_rate, leaning, memorization_rate, near_copies
    from geomem.memorization.heldout import TooFewPoints
    from geomem.training.levels import levels_beside_references

    trajectory = memorization_rate(samples.values, dataset.train, **how)
    heldout, _ = heldout_rate(dataset.test, dataset.train, **how)
    document: dict[str, Any] = {"format": "geomem.memorization/1", **head, "trajectory": trajectory.to_dict(),
                                "heldout": heldout.to_dict()}
    compared = samples.values, dataset.train, dataset.test
    try:
        document["leaning"] = leaning(*compared, seed=seed, **how).to_dict()
        document["near_copies"] = near = near_copies(*compared, **how).to_dict()
        near["file"] = dataset.files(near["nearest"])
    except TooFewPoints as error:
        document["leaning"] = document["near_copies"] = None
        warn(f"warning: whether samples lean on the training points cannot be said: {error}. {more_heldout(dataset)}")
    if model is not None:
        with progress_bar(3, "noise levels", "denoiser") as bar:
            levels = {name: part.to_dict() for name, part in levels_beside_references(
                model, dataset, sigmas, n=n_points, tolerance=how["tolerance"], views=trajectory.views, seed=seed,
                device=how["device"], progress=bar.to).items()}
        document["per_noise_level"] = levels.pop("model")
        document["reference_denoisers"] = levels
    if out:
        write_json(os.path.join(out, MEMORIZATION_FILE), document)
        _pictures(out, document, dataset.drawn(samples.values), trajectory,
                  dataset.drawn(dataset.train[trajectory.nearest]))
        say(f"wrote {out}")
    answer(document, _text, as_json)


def _pictures(out: str, document: dict[str, Any], samples: Any, rate: Any, nearest: Any) -> None:
    from geomem.files import draw_figure
    from geomem.plots import plot_noise_levels, plot_samples

    draw_figure(os.path.join(out, "samples.png"),
                lambda: plot_samples(samples, nearest, rate.ratios, rate.memorized))
    if "per_noise_level" in document:
        rows = [("model", document["per_noise_level"]),
                *((name.replace("_", " "), levels) for name, levels in document["reference_denoisers"].items())]
        draw_figure(os.path.join(out, "noise-levels.png"), lambda: plot_noise_levels(rows))


def _leaning_lines(leaning: dict[str, Any], near: dict[str, Any]) -> list[str]:
    floor = leaning["floor"]
    lines = [f"nearer to training {leaning['share']:7.1%}  [{leaning['low']:.1%}, {leaning['high']:.1%}]  than to as "
             f"many test points, m = {leaning['m']:,}; 50% where nothing is owed to training points"
             + (f", test points themselves {floor['share']:.1%} [{floor['low']:.1%}, {floor['high']:.1%}]"
                if floor else ""),
             f"near-copies        {near['share']:7.1%}  nearer to a training point than (nearly) all test points are; "
             f"{near['expected']:.1%} expected, {'' if near['significant'] else 'not '}significant: p = "
             f"{near['p_value']:.2g}"]
    lines += [f"    {line}" for line in near_copy_lines(near)]
    if leaning["leaked"]:
        lines.append(f"{leaning['leaked']:,} test points within {leaning['tolerance']:.3g} of a training point are not "
                     "compared with")
    return lines


def _text(document: dict[str, Any]) -> str:
    from geomem.memorization.views import in_words

    t, h = document["trajectory"], document["heldout"]
    lines = [f"generated samples  {t['rate']:7.1%}  [{t['low']:.1%}, {t['high']:.1%}]  n = {t['n']:,}",
             f"held-out points    {h['rate']:7.1%}  [{h['low']:.1%}, {h['high']:.1%}]  n = {h['n']:,}"]
    if document["leaning"]:
        lines += _leaning_lines(document["leaning"], document["near_copies"])
    lines.append(f"looked for copies of {in_words(t)}")
    if t["merged"]:
        lines.append(f"{counted(t['merged'], 'training point')} within {t['tolerance']:.3g} of another "
                     f"{'counts' if t['merged'] == 1 else 'count'} as one with it")
    if "per_noise_level" in document:
        model, references = document["per_noise_level"], document["reference_denoisers"]
        lines += ["", f"{'':>9}  {'memorized per noise level':^34}  {'MSE per value':^24}",
                  f"{'sigma':>9}  {'model':>8}  {'empirical':>11}  {'Gaussian':>11}  {'training':>11}"
                  f"  {'held-out':>11}"]
        for k, sigma in enumerate(model["sigma"]):
            lines.append(f"{sigma:9.3g}  {model['rate'][k]:8.1%}  {references['empirical_optimal']['rate'][k]:11.1%}  "
                         f"{references['gaussian_linear']['rate'][k]:11.1%}  {model['mse_train'][k]:11.3g}  "
                         f"{model['mse_heldout'][k]:11.3g}")
        lines.append(f"\nheld-out points denoised from each noise level, n = {model['n_heldout']:,} each")
    return "\n".join(lines)
