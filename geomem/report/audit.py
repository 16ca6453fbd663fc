"""The page of ``geomem audit``: one verdict, what it rests on, and what it cannot see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from geomem.errors import are, counted
from geomem.memorization import NearCopies
from geomem.memorization.views import in_words
from geomem.memorization.views import pixels as px
from geomem.plots.samples import drawable, image_range
from geomem.points import Array
from geomem.report import pictures
from geomem.report.page import filled
from geomem.run_audit import HEADLINES

SHOWN = 24
_KINDS = {"copies": "copies", "leans": "leans", "nothing found": "clean", None: "open"}  # classes of the style sheet
_PEERS = (("auth_pct", "AuthPct, percentage of authentic samples", "50 or more"),
          ("c_t", "C_T, below 0 where samples copy", "about 0"),
          ("mifid", "MiFID, the Frechet distance over a penalty for copies", ""))


def render_audit(document: Mapping[str, Any], samples: np.ndarray, train: Array, near: NearCopies,
                 files: Callable[[Iterable[int]], list[str] | None] = lambda _: None) -> str:
    """HTML in UTF-8 that needs nothing else, of an object of format geomem.audit/1 with its ``about`` and ``data``.

    samples, train: (n, ...) and (N, ...), the points it is about. near: the near-copies among them. files: gives the
    names of training points by their indices, where they have some.
    """
    about, data, leans = document["about"], document["data"], document["leaning"]
    basis = [f"data: {data['name']}, SHA-256 {data['sha256']}",
             f"compared: {leans['space']}" + (f", shifts of up to {px(leans['shifts'])}" if leans["shifts"] else "")
             + (", in any brightness and contrast" if leans["brightness"] else ""),
             f"seed {leans['seed']}; points within {leans['tolerance']:.3g} of each other count as one"]
    basis += [f"{name}: {about[key]}" for key, name in (
        ("weights", "weights"), ("method", "sampler"), ("steps", "noise levels"), ("weights_sha256", "SHA-256 of the "
        "weights")) if about.get(key) is not None]
    if leaked := data["leaked"] + leans["leaked"]:
        basis.append(f"{counted(leaked, 'held-out point')} equal or nearly equal to training points {are(leaked)} "
                     "left out")
    cells = pictures.attempt("the samples", lambda: _cells(samples, train, near, files)) or []
    return filled("audit.html", audit=document, data=data, target=document["target"],
                  kind=_KINDS[document["verdict"]], headline=HEADLINES[document["verdict"]], peers=_PEERS,
                  looked=in_words(document["mirrored"] or document["trajectory"]),
                  cells=cells, pictures=samples.ndim == 4, basis=basis)


def _cells(samples: np.ndarray, train: Array, near: NearCopies,
           files: Callable[[Iterable[int]], list[str] | None]) -> list[dict[str, Any]]:
    """Pictures of the samples nearest to a training point, each beside it; none where they cannot be drawn."""
    if not drawable(samples.shape[1:]):
        return []
    closest = near.nearest_distance.argsort(kind="stable")[:SHOWN]
    known = np.stack([train[k] for k in near.nearest[closest].tolist()])
    scale = image_range(known)
    words = "Sample and the training point nearest to it, {:.3g} apart"
    return [{"picture": pictures.pair(sample, point, scale, words.format(distance)), "distance": distance,
             "near_copy": found, "file": name}
            for sample, point, distance, found, name in zip(
                samples[closest], known, near.nearest_distance[closest].tolist(), near.found[closest].tolist(),
                files(near.nearest[closest].tolist()) or [""] * len(closest), strict=True)]
