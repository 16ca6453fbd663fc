"""The page: facts and pictures put into the template.

Everything goes through Jinja2 with autoescape on: names, labels and options of a run are text, whatever they hold.
The page's own policy forbids scripts and the network, should an escape ever be forgotten.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from geomem import __version__
from geomem.noise import GapSampler, NoiseLevelSampler
from geomem.plots import plot_curves, plot_density, plot_noise_levels, plot_training, plot_watch
from geomem.plots.samples import drawable, image_range
from geomem.report import pictures
from geomem.report.facts import DataFacts, RunFacts, SampleFacts
from geomem.report.verdict import compare, frechet_text, judge, leaning_text, percent, three_digits, with_interval

_MAX_TEXT = 300
_MAX_COMMAND = 3000
_MAX_ROWS = 40
_MAX_LINES = 400

_WEIGHTS = {"per-level": "best weights per noise level", "early-stop": "one early stop", "last": "last weights",
            "before-copies": "weights from before copies were seen", "cross-fitted": "cross-fitted weights"}


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(loader=jinja2.PackageLoader("geomem.report"), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {
        "short": short, "long": lambda value: short(value, _MAX_COMMAND), "percent": percent, "interval": with_interval,
        "frechet": frechet_text, "leaning": leaning_text, "g": three_digits, "count": lambda value: f"{value:,}",
        "weights": lambda name: _WEIGHTS.get(name, f"weights of step {short(name)}")}
    return environment


def filled(template: str, **values: Any) -> str:
    """A template of this package, filled in: HTML that needs nothing else."""
    environment = _environment()
    style = Markup(environment.get_template("style.css").render())  # our own file; text in it must not be escaped
    return environment.get_template(template).render(version=__version__, style=style, **values)


def render_page(runs: Sequence[RunFacts]) -> str:
    """The page about ``runs``: HTML in UTF-8 that needs nothing else."""
    letters = [chr(ord("A") + k) for k in range(len(runs))]
    several = len(runs) > 1
    names = [f"Run {letter}" for letter in letters] if several else ["This run"]
    groups: dict[str, DataFacts] = {run.data.sha256: run.data for run in runs}
    numbered = {sha256: f"Data {k + 1}" for k, sha256 in enumerate(groups)}
    return filled(
        "page.html", several=several,
        runs=[{"name": name, "letter": letter, "facts": run, "verdict": judge(run, name), "zone": _zone(run),
               "data_name": numbered[run.data.sha256], **_run_parts(run)}
              for name, letter, run in zip(names, letters, runs, strict=True)],
        comparison=compare(list(zip(names, runs, strict=True))) if several else [],
        data=[{"name": numbered[sha256], "facts": facts, **_data_parts(facts)} for sha256, facts in groups.items()],
        bar=pictures.interval_bar)


def short(value: Any, most: int = _MAX_TEXT) -> str:
    """Text of a file, cut where it is long."""
    text = str(value)
    return text if len(text) <= most else text[:most] + f" ... ({len(text):,} characters)"


def thinned(rows: Sequence[Any], most: int) -> list[Any]:
    """At most so many rows, evenly spread, the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[k] for k in np.linspace(0, len(rows) - 1, most).round().astype(int)]


def _zone(run: RunFacts) -> dict[str, Any] | None:
    return None if run.data.zone is None else run.data.zone["zone"]


def _data_parts(facts: DataFacts) -> dict[str, Any]:
    parts: dict[str, Any] = {"sheet": None, "curves": None, "rows": []}
    if drawable(facts.shape):
        shown, words = facts.shown, f"The first {len(facts.shown)} training points"
        parts["sheet"] = pictures.attempt("the training points", lambda: pictures.sheet(shown, words))
    if (document := facts.zone) is not None:
        parts["curves"] = pictures.figure_uri("W and C", lambda: plot_curves([("", document)], title="W and C"))
        curves = document["curves"]
        columns = (curves[name][part] for name in ("max_posterior_weight", "coverage")
                   for part in ("estimate", "low", "high"))
        parts["rows"] = thinned(list(zip(curves["sigma"], *columns, strict=True)), _MAX_ROWS)
    return parts


def _run_parts(run: RunFacts) -> dict[str, Any]:
    """Pictures and tables of a run; None where there is nothing to show."""
    zone = _zone(run)
    parts: dict[str, Any] = {"law": None, "law_words": {}, "training": None, "bands": [], "watch": None, "levels": None,
                             "level_rows": [], "first": [], "closest": [], "settings": list(_flat(run.config))[:200]}
    if (law := run.law) is not None:
        rows = [("before", law.base), ("training law", law)] if isinstance(law, GapSampler) else law
        schedule = getattr(law.base if isinstance(law, GapSampler) else law, "schedule", None)
        parts["law"] = pictures.figure_uri("the training law", lambda: plot_density(rows, zone, schedule))
        parts["law_words"] = _law_words(law, zone)
    if run.stats:
        lines = thinned(run.stats, _MAX_LINES)
        parts["training"] = pictures.figure_uri("the losses", lambda: plot_training(lines, run.levels))
    if run.levels is not None:
        parts["bands"] = list(zip(run.levels["edges"], run.levels["edges"][1:], run.levels["steps"], strict=False))
    if len(run.watch) > 1:
        checks = thinned(run.watch, _MAX_LINES)
        parts["watch"] = pictures.figure_uri("the watch", lambda: plot_watch(checks))
    if (model := run.per_noise_level) is not None:
        named = [("model", model), *((name.replace("_", " "), levels)
                                     for name, levels in (run.references or {}).items())]
        parts["levels"] = pictures.figure_uri("the noise levels", lambda: plot_noise_levels(named, zone=zone))
        keys = ("sigma", "rate", "low", "high", "mse_train", "mse_heldout")
        parts["level_rows"] = thinned([dict(zip(keys, row, strict=True))
                                       for row in zip(*(model[key] for key in keys), strict=True)], _MAX_ROWS)
    if run.samples is not None and drawable(run.data.shape):
        samples = run.samples
        cells = pictures.attempt("the samples", lambda: _cells(samples)) or []
        parts["first"], parts["closest"] = cells[:run.samples.n_first], cells[run.samples.n_first:]
    return parts


def _cells(samples: SampleFacts) -> list[dict[str, Any]]:
    """A picture of each shown sample beside its nearest training point."""
    scale, cells = image_range(samples.nearest), []
    for sample, nearest, ratio, memorized in zip(samples.rows, samples.nearest, samples.ratios.tolist(),
                                                 samples.memorized.tolist(), strict=True):
        alternative = (f"Sample and its nearest training point, ratio {ratio:.2f}: "
                       f"{'a copy' if memorized else 'not a copy'}")
        cells.append({"picture": pictures.pair(sample, nearest, scale, alternative), "ratio": ratio,
                      "memorized": memorized})
    return cells


def _law_words(law: NoiseLevelSampler, zone: Mapping[str, Any] | None) -> dict[str, Any]:
    """Figures of a law for a sentence: quartiles, gaps, the share of draws inside the danger zone."""
    lower, upper = law.icdf(np.array([0.25, 0.75])).tolist()
    inside = None if zone is None else max(0.0, float(law.cdf(zone["sigma_high"]) - law.cdf(zone["sigma_low"])))
    gap = {"gaps": list(law.gaps)[:20], "keep": law.keep, "removed": law.removed_mass} if isinstance(
        law, GapSampler) else {"gaps": []}
    return {"lower": lower, "upper": upper, "inside": inside, **gap}


def _flat(value: Any, prefix: str = "") -> Any:
    """(dotted name, text) of nested options."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{short(key)}" if prefix else short(key))
    else:
        yield prefix, short(value)
