"""``geomem bounds``: what the theorems say about a data set, each beside the measured truth."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING, Any

import click

from geomem.cli.options import (
    Number,
    Sigmas,
    answer,
    data_options,
    device_option,
    json_option,
    load,
    memory_option,
    progress_bar,
    queries_option,
    require_new_directory,
    say,
)
from geomem.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from geomem.data import DataSet

MOST_GAUSSIAN, MOST_FELT = 4096, 64  # training points of the Gaussian denoiser and noisy ones for Theorem 4.10
HALVINGS, FEWEST_POINTS = 6, 10  # of the default training set sizes: N, N/2, ..., N/32, none below 10


class Sizes(click.ParamType):
    """Training set sizes with commas between."""

    name = "N1,N2,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        try:
            return [int(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is not a list of training set sizes such as 100,200,400", param, ctx)


@click.command()
@data_options
@click.option("--sigmas", type=Sigmas(), default=40, show_default=True,
              help="Noise levels in data units: how many (log-spaced from 0.02 to 80), or the levels with commas.")
@click.option("--shell-t", type=Number(0, min_open=True), default=5.0, show_default=True,
              help="Width t of the Gaussian shells: a shell holds 1 - 2 exp(-t) of its noise or more.")
@click.option("--q", type=Number(0.5, 1, min_open=True, max_open=True), default=0.95, show_default=True,
              help="Posterior weight of Theorem 4.2: where is it surely at least q, where at most 1 - q.")
@click.option("--delta", type=Number(0, 1, min_open=True, max_open=True), default=0.05, show_default=True,
              help="Probability with which Theorem 4.2, Lemma A.1 and Corollary A.2 may fail for a point.")
@click.option("--sizes", type=Sizes(),
              help="Training set sizes for coverage and zone; all points are always among them.  "
                   "[default: all, half, ..., 1/32 of them]")
@click.option("--threshold", type=Number(0, 1, min_open=True, max_open=True), default=0.8, show_default=True,
              help="The danger zone is where both curves are at least this high.")
@click.option("--points", type=click.IntRange(1), default=256, show_default=True,
              help="Training points, random ones, for Lemma A.1, Corollary A.2 and the Gaussian law.")
@click.option("--model", metavar="RUN", help="Measure with this model how far a pixel is felt: a directory of geomem "
              "train or export, or a diffusers folder.  [default: the Gaussian denoiser of the data]")
@queries_option
@memory_option
@device_option
@json_option
@click.option("--out", metavar="DIR", type=click.Path(file_okay=False),
              help="Write bounds.json, bounds.csv and bounds.png.")
def bounds(data: str, heldout: str | None, n_train: int | None, n_heldout: int | None, shuffle: bool, seed: int,
           sigmas: int | list[float], shell_t: float, q: float, delta: float, sizes: list[int] | None,
           threshold: float, points: int, model: str | None, queries: int, memory: int, device: str, as_json: bool,
           out: str | None) -> None:
    """Show what the theorems guarantee for DATA at each noise level, beside what is measured.

    Coverage with its bounds (Theorem 4.8), the posterior weight with Theorem 4.2, denoiser and flow field near a
    training point (Lemma A.1, Corollary A.2), the Gaussian law of large noise (Theorem 4.11), how far a pixel is felt
    there (Theorem 4.10), and how coverage and the danger zone move with the number of training points. No training is
    needed; --model puts a trained one beside Theorem 4.10.

    Examples:

    \b
      geomem bounds digits
      geomem bounds photos/ --n-train 1000 --sizes 125,250,500 --out photos-bounds
    """
    if out:
        require_new_directory(out, "bounds.json")
    dataset = load(data, heldout=heldout, n_train=n_train, n_heldout=n_heldout, shuffle=shuffle, seed=seed)
    settings = {"shell_t": shell_t, "q": q, "delta": delta, "threshold": threshold, "posterior_draws": 4,
                "coverage_draws": 8, "points": min(points, len(dataset.train)), "point_draws": 1, "queries": queries,
                "model": model, "seed": seed}
    document = document_of(dataset, sigmas, sizes, settings, device=device, memory=memory)
    if out:
        write_documents(out, document)
        say(f"wrote {out}")
    answer(document, text_of, as_json)


def default_sizes(n_train: int) -> list[int]:
    """N, N/2, N/4, ..., six at most and none below 10 but N itself, ascending."""
    halves = {n_train >> k for k in range(HALVINGS)}
    return sorted(n for n in halves if n >= FEWEST_POINTS or n == n_train)


def document_of(dataset: DataSet, sigmas: int | list[float], sizes: list[int] | None, settings: dict[str, Any],
                **how: Any) -> dict[str, Any]:
    """The JSON object of the command (format geomem.bounds/1); per noise level unless it says otherwise."""
    from geomem.geometry import concentration_thresholds, coverage_bounds
    from geomem.theory import denoiser_near_point, flow_cosine, gaussian_law, zone_by_training_size

    train, heldout, n = dataset.train, dataset.heldout, len(dataset.train)
    shell_t, delta, seed = settings["shell_t"], settings["delta"], settings["seed"]
    how |= {"shell_t": shell_t, "queries": settings["queries"], "seed": seed}
    near_options = {"points": settings["points"], "draws": settings["point_draws"], "seed": seed}
    started = time.perf_counter()
    with progress_bar(7, "bounds", "part") as bar:
        by_size = zone_by_training_size(
            train, heldout, sorted({*(sizes or default_sizes(n)), n}), sigmas=sigmas, threshold=settings["threshold"],
            posterior_draws=settings["posterior_draws"], coverage_draws=settings["coverage_draws"], **how)
        bar.update()
        sigma = by_size.sigma
        theorem_4_8 = coverage_bounds(train, heldout, sigma, **how)
        bar.update()
        thresholds = concentration_thresholds(train, q=settings["q"], delta=delta, **how)
        bar.update()
        near = denoiser_near_point(train, sigma, delta=delta, **near_options)
        bar.update()
        flow = flow_cosine(train, 1 / (1 + sigma), delta=delta, **near_options)
        bar.update()
        law = gaussian_law(train, sigma, **near_options)
        bar.update()
        sensitivity = _sensitivity(train, settings)
        bar.update()
    coverage, summary = by_size.coverage, thresholds.summary()
    below, above = thresholds.concentrated_below[:, None], thresholds.spread_above[:, None]
    return {
        "format": "geomem.bounds/1",
        "data": {"name": dataset.name, "n_train": n, "n_heldout": len(heldout), "dim": dataset.dim,
                 "sha256": dataset.sha256, "duplicates": dataset.duplicates},
        "sigma": sigma.tolist(),
        "coverage": {**{part: getattr(coverage, part)[-1].tolist() for part in ("estimate", "stderr", "low", "high")},
                     "lower_bound": theorem_4_8.lower.tolist(), "upper_bound": theorem_4_8.upper.tolist(),
                     "plain_upper_bound": theorem_4_8.plain_upper.tolist()},
        "max_posterior_weight": {"estimate": by_size.weight[-1].tolist(), "stderr": by_size.weight_stderr[-1].tolist(),
                                 "share_concentrated": (below >= sigma).mean(axis=0).tolist(),
                                 "share_spread": (above <= sigma).mean(axis=0).tolist()},
        "near_point": {
            "weight": near.weight.tolist(), "weight_stderr": near.weight_stderr.tolist(),
            "weight_bound": near.weight_bound.tolist(), "distance": near.distance.tolist(),
            "distance_stderr": near.distance_stderr.tolist(), "distance_bound": near.distance_bound.tolist(),
            "held": near.held.tolist(), "informative": near.informative.tolist(), "eta": near.eta,
            "probability": near.probability},
        # Flow times fall as sigma rises.
        "flow": {name: getattr(flow, name)[::-1].tolist() for name in (
            "time", "cosine", "cosine_stderr", "bound", "held", "informative")} | {"probability": flow.probability},
        "gaussian": {"difference": law.difference.tolist(), "difference_stderr": law.difference_stderr.tolist(),
                     "relative": law.relative.tolist(), "slope": law.slope, "slope_low": law.slope_low,
                     "slope_high": law.slope_high, "fit_sigma": law.fit_sigma.tolist(),
                     "fit_difference": law.fit_difference.tolist()},
        "sensitivity": sensitivity,
        "by_size": {
            "sizes": by_size.sizes.tolist(), "coverage": coverage.estimate.tolist(),
            "coverage_stderr": coverage.stderr.tolist(), "weight": by_size.weight.tolist(),
            "weight_stderr": by_size.weight_stderr.tolist(), "sigma_low": _or_none(by_size.sigma_low),
            "sigma_high": _or_none(by_size.sigma_high), "crossing": _or_none(by_size.crossing),
            "peak": by_size.peak.tolist(), "parts_at": by_size.parts_at, "parts_low": by_size.parts_low,
            "parts_high": by_size.parts_high, "trend": by_size.trend},
        "thresholds": {"concentrated_below": summary.concentrated_below, "spread_above": summary.spread_above,
                       "disjoint_below": summary.disjoint_below},
        "settings": settings,
        "seconds": round(time.perf_counter() - started, 3),
    }


def _sensitivity(train: Any, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Theorem 4.10 at 4, 16 and 64 standard deviations of the data: how the middle value of a denoiser's answer
    depends on values at each wrap-around distance, with the bound.
    """
    import numpy as np
    import torch

    from geomem.models import GaussianDenoiser
    from geomem.rng import generator
    from geomem.theory import circulant_eigenvalues, pixel_sensitivity, sensitivity_bound
    from geomem.training import load_denoiser

    shape = tuple(train.shape[1:])
    rng = generator(settings["seed"], "sensitivity")
    some = train[np.sort(rng.choice(len(train), min(len(train), MOST_GAUSSIAN), replace=False))]
    if settings["model"] is None:
        denoiser: Any = GaussianDenoiser(torch.from_numpy(some))
    else:
        model = load_denoiser(settings["model"], None)
        if tuple(model.shape) != shape:
            raise InputError(f"--model {settings['model']} makes points of shape {tuple(model.shape)}; the data have "
                             f"{shape}")
        denoiser = model.denoiser
    eigenvalues = circulant_eigenvalues(some)
    clean = torch.from_numpy(some[:min(len(some), settings["points"], MOST_FELT)]).float()
    middle = (0,) * (len(shape) > 1) + tuple(length // 2 for length in shape[len(shape) > 1:])
    parts = []
    for sigma in float(some.std()) * np.array([4.0, 16.0, 64.0]):
        noise = torch.from_numpy(rng.standard_normal(clean.shape)).float()
        felt = pixel_sensitivity(denoiser, clean + sigma * noise, sigma, middle)
        bound = sensitivity_bound(eigenvalues, sigma)
        reached = len(felt.distance) - 1
        parts.append({"sigma": sigma, "distance": felt.distance[1:].tolist(), "mean": felt.mean[1:].tolist(),
                      "largest": felt.largest[1:].tolist(), "bound": bound.sharp[:reached].tolist(),
                      "simple_bound": bound.simple[:reached].tolist(), "own": float(felt.mean[0])})
    return parts


def _or_none(values: np.ndarray) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]


def write_documents(out: str, document: dict[str, Any]) -> None:
    """bounds.csv (a row per noise level), bounds.png and bounds.json (everything) in ``out``."""
    from geomem.files import atomic_path, write_csv, write_json
    from geomem.plots import plot_bounds

    write_csv(os.path.join(out, "bounds.csv"), _columns(document))
    with atomic_path(os.path.join(out, "bounds.png")) as temporary:
        plot_bounds(document).savefig(temporary, dpi=150)
    write_json(os.path.join(out, "bounds.json"), document)


def _columns(document: dict[str, Any]) -> dict[str, list[Any]]:
    """Of bounds.csv, a row per noise level."""
    columns: dict[str, list[Any]] = {"sigma": document["sigma"]}
    for part in ("coverage", "max_posterior_weight", "near_point", "flow", "gaussian"):
        for name, values in document[part].items():
            if isinstance(values, list) and not name.startswith("fit_"):
                columns[part if name == "estimate" else f"{part}_{name}"] = values
    by_size = document["by_size"]
    for n, coverage, weight in zip(by_size["sizes"], by_size["coverage"], by_size["weight"], strict=True):
        columns |= {f"coverage_n{n}": coverage, f"max_posterior_weight_n{n}": weight}
    return columns


def text_of(document: dict[str, Any]) -> str:
    """The document for people."""
    data, settings = document["data"], document["settings"]
    head = (f"{data['name']}: {data['n_train']:,} training and {data['n_heldout']:,} held-out points of "
            f"{data['dim']:,} values" + (f"; {data['duplicates']:,} duplicates" if data["duplicates"] else ""))
    below, above, disjoint = (document["thresholds"][name]
                              for name in ("concentrated_below", "spread_above", "disjoint_below"))
    law, q = document["gaussian"], settings["q"]
    looked = [min(data[part], settings["queries"]) for part in ("n_train", "n_heldout")]
    if looked != [data["n_train"], data["n_heldout"]]:
        head += f"; looked from {looked[0]:,} and {looked[1]:,} random ones of them (--queries)"
    return "\n".join([
        head, "", *_curves_table(document), "",
        f"Theorem 4.2  with probability {1 - settings['delta']:g} one training point has weight {q:g} or more below "
        f"sigma {below['mean']:.3g} on average (smallest {below['min']:.3g}, largest {below['max']:.3g})"
        + (f", and {1 - q:.3g} or less above {above['mean']:.3g}" if above else ""),
        "Theorem 4.9  " + (f"all shells are disjoint below sigma {disjoint:.3g}" if disjoint is not None else
                           "not known from some of the training points" if looked[0] < data["n_train"] else
                           "all training points are equal"), "",
        *_near_table(document), "",
        f"Theorem 4.11 the optimal denoiser nears the Gaussian one as sigma^{law['slope']:.3f} "
        f"[{law['slope_low']:.3f}, {law['slope_high']:.3f}] (sigma {law['fit_sigma'][0]:.3g} to "
        f"{law['fit_sigma'][-1]:.3g}); the theorem says -2", *_sensitivity_lines(document), "",
        *_sizes_table(document), "", f"trend        {document['by_size']['trend']}"])


def _sensitivity_lines(document: dict[str, Any]) -> list[str]:
    whose = document["settings"]["model"] or "the Gaussian denoiser"
    lines = [f"Theorem 4.10 |J| of {whose}, how a value depends on those at wrap-around distance r: measured mean, "
             "largest (bound of the nearest periodic Gaussian model)"]
    for part in document["sensitivity"]:
        shown = [k for k, r in enumerate(part["distance"]) if r in (1, 2, 4, 8, 16, 32, 64)]
        lines.append(f"             sigma {part['sigma']:.3g}: " + "; ".join(
            f"r = {part['distance'][k]}: {part['mean'][k]:.2g}, {part['largest'][k]:.2g} ({part['bound'][k]:.2g})"
            for k in shown))
    return lines


def _curves_table(document: dict[str, Any]) -> list[str]:
    c, w, q = document["coverage"], document["max_posterior_weight"], document["settings"]["q"]
    lines = [f"{'':8}  {'':24}  {'Theorem 4.8, bounds on C':^24}  {'':17}  {'Theorem 4.2, share of points':^28}",
             f"{'sigma':>8}  {'coverage C':^24}  {'lower':>7} {'upper':>8} {'plain':>7}  {'weight W':^17}"
             f"  {f'w_1 >= {q:g}':>13} {f'w_1 <= {1 - q:.3g}':>14}"]
    lines += [
        f"{sigma:8.3g}  {c['estimate'][k]:6.4f} [{c['low'][k]:.4f}, {c['high'][k]:.4f}]  {c['lower_bound'][k]:7.4f} "
        f"{c['upper_bound'][k]:8.4f} {c['plain_upper_bound'][k]:7.4f}  {w['estimate'][k]:7.4f} -+ {w['stderr'][k]:.4f}"
        f"  {w['share_concentrated'][k]:13.1%} {w['share_spread'][k]:14.1%}"
        for k, sigma in enumerate(document["sigma"])]
    return lines


def _near_table(document: dict[str, Any]) -> list[str]:
    near, flow, law, settings = (document[part] for part in ("near_point", "flow", "gaussian", "settings"))
    both = f"{'bound':>11} {'measured':>11}"
    lines = [f"near a training point, means over {settings['points']:,} of them; each bound holds with probability "
             f"{near['probability']:.3g} or more",
             "(for a point where it says nothing it counts as w_1 >= 0 and cosine >= -1; - where it does for none)",
             f"{'':8}  {'Lemma A.1: weight w_1':^23}  {'|m - x_1|':^23}  {'Cor. A.2: flow cosine':^23}  Gaussian law",
             f"{'sigma':>8}  {both}  {both}  {both}  {'difference':>12}"]
    for k, sigma in enumerate(document["sigma"]):
        informative = near["informative"][k] > 0
        lines.append(f"{sigma:8.3g}  {_shown(near['weight_bound'][k], informative)} {near['weight'][k]:11.4f}"
                     f"  {_shown(near['distance_bound'][k], informative)} {near['distance'][k]:11.4g}"
                     f"  {_shown(flow['bound'][k], flow['informative'][k] > 0)} {flow['cosine'][k]:11.4f}"
                     f"  {law['difference'][k]:12.3g}")
    return lines


def _shown(bound: float, informative: bool) -> str:
    return f"{bound:11.4g}" if informative else f"{'-':>11}"


def _sizes_table(document: dict[str, Any]) -> list[str]:
    by_size, threshold = document["by_size"], document["settings"]["threshold"]
    sizes = by_size["sizes"]
    lines = ["coverage C with n training points, the mean over all subsets",
             f"{'sigma':>8}" + "".join(f"{f'n={n:,}':>10}" for n in sizes)]
    lines += [f"{sigma:8.3g}" + "".join(f"{row[k]:10.4f}" for row in by_size["coverage"])
              for k, sigma in enumerate(document["sigma"])]
    lines += ["", f"{'n':>8}  {f'C >= {threshold:g} from':>14} {f'W >= {threshold:g} up to':>16} {'crossing':>9} "
                  f"{'peak of min(W, C)':>18}"]
    for n, low, high, crossing, peak in zip(*(by_size[name] for name in (
            "sizes", "sigma_low", "sigma_high", "crossing", "peak")), strict=True):
        zone = low is not None and high is not None and low <= high
        lines.append(f"{n:8,}  {_sigma(low):>14} {_sigma(high):>16} {_sigma(crossing):>9} {peak:18.4f}"
                     + ("" if zone else "  no zone"))
    return lines


def _sigma(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
