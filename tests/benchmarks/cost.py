"""bin/benchmark cost: seconds and memory that ``geomem danger-zone --dry-run`` estimates, beside those that it takes.

Smooth random points, sizes from 1,000 to 100,000 points and from 64 to 3,072 values, unrefined and refined, each in a
process of its own: the rates of the machine, then the run. With one thread all seconds are of the processor, which
other programs on the machine prolong less; with more they are of the clock. Beside them ratio rule and leaning, for
as many samples as training points: their seconds over those of the products alone, 2 n N d operations in float32.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from benchmarks import inputs
from benchmarks.geometry import GIB, in_a_fresh_process, parts_so_far, table
from benchmarks.measure import PeakMemory, available_threads, commit, machine, options_of, use_threads

from geomem.errors import InputError
from geomem.files import write_json
from geomem.geometry.cost import curves_cost, rates
from geomem.geometry.curves import geometry_curves
from geomem.geometry.options import Options
from geomem.geometry.sweep import Sweep
from geomem.memorization import leaning, memorization_rate
from geomem.noise.danger_zone import danger_zone
from geomem.rng import generator

FORMAT = "geomem.benchmark-cost/1"
LEVELS = 40
HELDOUT = 1000  # of leaning


@dataclass(frozen=True)
class Size:
    """N points of 3 side^2 values, or of the first ``dim`` of them; ``queries`` of each kind at most."""

    n: int
    dim: int
    queries: int = 1000


FULL = (Size(1000, 3072), Size(4000, 768), Size(10_000, 3072), Size(50_000, 256, 200), Size(100_000, 64, 100))
QUICK = (Size(500, 64, 100), Size(1000, 192, 100), Size(2000, 768, 100))
SAMPLES = (Size(1000, 3072), Size(2000, 768), Size(4000, 768), Size(4000, 1536))


def points(n: int, dim: int, part: str) -> np.ndarray:
    """(n, dim): the first values of smooth images that are just large enough."""
    return inputs.smooth_images(n, int(np.ceil((dim / 3) ** 0.5)), part)[:, :dim].copy()


def of_curves(size: Size, threads: int) -> dict[str, Any]:
    """Estimated and measured, of curves and of the whole command; the run before loads the libraries."""
    use_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    train, heldout = points(size.n, size.dim, "train"), points(min(size.n, size.queries), size.dim, "heldout")
    danger_zone(train[:200], heldout[:50], sigmas=6)
    options = Options(queries=size.queries)
    sweep = Sweep.of(train, heldout, options, reuse=True)
    cost, here = curves_cost(sweep, LEVELS), rates(sweep, clock)
    parts: dict[str, Any] = {"input": asdict(size), "rates": here._asdict()}
    with PeakMemory() as now:
        pass
    before = now.result["anonymous_total"]  # points, interpreter, libraries
    for name, refined in (("unrefined", False), ("refined", True)):
        call = danger_zone if refined else geometry_curves
        with PeakMemory() as memory:
            started = clock()
            call(train, heldout, sigmas=LEVELS, queries=size.queries)
            taken = clock() - started
        estimate = cost.seconds(here, refined=refined)
        parts[name] = {"seconds": taken, "estimated": estimate, "estimated_over_measured": estimate / taken,
                       "memory_gib": memory.result["anonymous_total"] / GIB,
                       "estimated_memory_gib": (before + cost.bytes) / GIB,
                       "estimated_over_measured_memory": (before + cost.bytes) / memory.result["anonymous_total"]}
    return parts


def of_samples(size: Size, threads: int) -> dict[str, Any]:
    """Ratio rule and leaning of n noisy samples, and what the products alone would take."""
    use_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    train, heldout = points(size.n, size.dim, "train"), points(HELDOUT, size.dim, "heldout")
    samples = train + generator(0, "noisy samples").normal(0, 0.3, train.shape).astype(np.float32)
    memorization_rate(samples[:50], train[:100])
    here = rates(Sweep.of(train, None, Options(duplicates="keep")), clock)
    found: dict[str, Any] = {"input": asdict(size)}
    for name, points_in_all, call in (
            ("ratio_rule", size.n, lambda: memorization_rate(samples, train)),
            ("leaning", size.n + HELDOUT, lambda: leaning(samples, train, heldout))):
        started = clock()
        call()
        taken = clock() - started
        products = 2.0 * size.n * points_in_all * size.dim / here.products32
        found[name] = {"seconds": taken, "products": products, "over_products": taken / products}
    return found


def main(given: list[str] | None = None) -> None:
    parser = options_of("cost", __doc__, "small sizes, half a minute")
    options = parser.parse_args(given)
    threads = available_threads()
    use_threads(threads)
    head = {"format": FORMAT, "quick": options.quick, "machine": machine(), "levels": LEVELS,
            "clock": "processor" if threads == 1 else "wall"}
    try:
        parts = parts_so_far(options.out, head)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print("\n".join(table("machine", head["machine"])))
    for what, sizes, measure in (("curves", QUICK if options.quick else FULL, of_curves),
                                 ("samples", QUICK[1:] if options.quick else SAMPLES, of_samples)):
        for size in sizes:
            name = f"{what} {size.n:,} x {size.dim:,}"
            if name in parts:
                continue
            print(f"{name} ...", file=sys.stderr)
            load = os.getloadavg()[0]
            parts[name] = {**in_a_fresh_process(measure, size, threads), "load_before": load, "commit": commit()}
            print("\n".join(table(name, parts[name])), flush=True)
            write_json(options.out, head | {"parts": parts})


if __name__ == "__main__":
    main()
