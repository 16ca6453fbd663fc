"""One HTML page about one or several runs, for a reader who has never heard of geomem.

    saved      what a run directory holds already, read with suspicion: sizes bounded, every number checked
    collect    the facts of each run, from what is saved or computed
    facts      what the page says, as frozen records
    commands   the commands that repeat a run and its reports
    verdict    from figures with intervals to sentences
    pictures   figures and points as data inside the page
    page       the template filled in
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from geomem._renamed import renamed
from geomem.data import DataSet
from geomem.errors import InputError
from geomem.files import require_writable, write_text
from geomem.generation import holds_samples
from geomem.models.diffusers_folder import is_diffusers_folder
from geomem.models.weights import PICKLES
from geomem.report.collect import Collector
from geomem.report.commands import shell, training_command
from geomem.report.facts import DataFacts, Missing, RunFacts, SampleFacts
from geomem.report.page import render_page
from geomem.report.verdict import compare, frechet_difference, judge, share_difference
from geomem.training import Run

MAX_RUNS = 12

__all__ = ["DataFacts", "Missing", "RunFacts", "SampleFacts", "compare", "frechet_difference", "judge", "render_page",
           "share_difference", "training_command", "write_page"]
__getattr__ = renamed(__name__)


def write_page(runs: Sequence[str | Path], out: str | Path, *, data: str | None = None, weights: str | None = None,
               seeds: Sequence[int] = range(1000), device: str = "auto", data_root: str | None = None,
               load: Callable[..., DataSet] | None = None,
               progress: Callable[[int, int], None] | None = None) -> list[RunFacts]:
    """Write the page about ``runs``, directories of runs, to ``out``, and return what it says about each.

    What lies in a run is used, the rest computed; nothing is written into the runs.
    data: the training data, by default what each run names. weights: those to judge, by default the best the run kept.
    seeds: of the samples to make of a run that holds none, with ``progress(done, total)``. data_root: folder with the
    official files of recipes. load: reads a data set, by default as ``load_data`` does.

    Raises InputError for no run, samples or a diffusers folder, too many, a name that does not end in .html, or one
    that cannot be written.
    """
    if not str(out).endswith(".html"):
        raise InputError(f"--out {out}: the ending must be .html")
    if not 1 <= len(runs) <= MAX_RUNS:
        raise InputError(f"{len(runs)} runs are too many for one page; give at most {MAX_RUNS}")
    require_writable(out)
    for run in runs:
        _require_run(Path(run))
    facts = Collector([str(run) for run in runs], data, weights, seeds, device, data_root, load, progress).facts()
    write_text(out, render_page(facts))
    return facts


def _require_run(path: Path) -> None:
    """Raises InputError where there is no run; samples and models of others have a page of their own."""
    try:
        Run(path).config  # noqa: B018 - a run, whatever else lies in it
        return
    except InputError:
        if path.is_dir():
            other = ("is a diffusers folder" if is_diffusers_folder(path) else
                     "holds samples" if holds_samples(path) else "")
        else:
            other = "is a file" if path.is_file() and path.suffix.lower() not in PICKLES else ""
        if not other:
            raise
    raise InputError(f"{path} {other}, and this page is about runs of geomem train; for a page about the samples: "
                     f"{shell('geomem', 'audit', path, '--data', 'DATA', '--out', 'DIR')}")
