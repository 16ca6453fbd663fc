"""The page of ``geomem audit``: one verdict, what it rests on, and what it cannot see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from geomem.errors import are, counted
from geomem.memorization.views import in_words
from geomem.memorization.views import pixels as px
from geomem.plots.samples import drawable, image_range
from geomem.points import Array
from geomem.report import pictures
from geomem.report.page import filled
from geomem.run_audit import HEADLINES, Audit

SHOWN = 24
_KINDS = {"copies": "copies", "leans": "leans", "nothing found": "clean", None: "open"}  # classes of the style sheet
_PEERS = (("auth_pct", "AuthPct, percentage of authentic samples", "50 or more"),
          ("c_t", "C_T, below 0 where samples copy", "about 0"),
          ("mifid", "MiFID, the Frechet distance over a penalty for copies", ""))


def render_audit(document: Mapping[str, Any], samples: np.ndarray, train: Array, found: Audit,
                 files: Callable[[Iterable[int]], list[str] | None] = lambda _: None) -> str:
    """HTML in UTF-8 that needs nothing else, of an object of format geomem.audit/1 with its ``about`` and ``data``.

    samples, train: (n, ...) and (N, ...), the points it is about. found: what ``document`` was made of. files:
    gives the names of training points by their indices, where they have some.
    """
    about, data, leans = document["about"], document["data"], document["leaning"]
    looked = document["mirrored"] or document["trajectory"]
    basis = [f"data: {data['name']}, SHA-256 {data['sha256']}",
             f"compared: {looked['space']}" + (f", shifts of up to {px(looked['shifts'])}" if looked["shifts"] else "")
             + (", in any brightness and contrast" if looked["brightness"] else ""),
             (f"seed {leans['seed']}; " if leans else "")
             + f"points within {looked['tolerance']:.3g} of each other count as one"]
    basis += [f"{name}: {about[key]}" for key, name in (
        ("weights", "weights"), ("method", "sampler"), ("steps", "noise levels"), ("weights_sha256", "SHA-256 of the "
        "weights")) if about.get(key) is not None]
    if leaked := data["leaked"] + (leans["leaked"] if leans else 0):
        basis.append(f"{counted(leaked, 'held-out point')} equal or nearly equal to training points {are(leaked)} "
                     "left out")
    cells = pictures.attempt("the samples", lambda: _cells(samples, train, found, files)) or []
    return filled("audit.html", audit=document, data=data, target=document["target"],
                  kind=_KINDS[document["verdict"]], headline=HEADLINES[document["verdict"]], peers=_PEERS,
                  looked=in_words(looked), cells=cells, n_copied=int(found.copied.sum()),
                  pictures=samples.ndim == 4, basis=basis)


def _cells(samples: np.ndarray, train: Array, found: Audit,
           files: Callable[[Iterable[int]], list[str] | None]) -> list[dict[str, Any]]:
    """Pictures of the samples nearest to a training point, each beside it; none where they cannot be drawn."""
    if not drawable(samples.shape[1:]):
        return []
    rate, near, copied = found.closest, found.near_copies, found.copied
    order = rate.nearest_distance.argsort(kind="stable")[:SHOWN].tolist()
    known = np.stack([train[k] for k in rate.nearest[order].tolist()])
    scale = image_range(known)
    words = "Sample and the training point nearest to it, {:.3g} apart"
    return [{"picture": pictures.pair(samples[k], point, scale, words.format(rate.nearest_distance[k])),
             "distance": float(rate.nearest_distance[k]), "file": name,
             "mark": "copy" if copied[k] else "near-copy" if near and near.found[k] else ""}
            for k, point, name in zip(order, known, files(rate.nearest[order].tolist()) or [""] * len(order),
                                      strict=True)]
