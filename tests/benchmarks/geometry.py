"""bin/benchmark geometry: how fast geometry_curves is, what it takes, and how far it is from its definition.

Parts, each of which can be run alone (``--only``) and added to the same file:

    cifar-1k       1,000 + 1,000 images, beside a plain NumPy implementation of the same estimators
    50k            50,000 training images: seconds, memory, share of the machine's matrix-product rate
    imagenet-size  1,281,167 images in a memory map, in bounded memory
    scaling        seconds against the number of points, of dimensions, of levels and of queries
    agreement      differences from float64 loops over the points themselves
    processes      the same curves from 1, 2 and 4 processes
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import oracles
from benchmarks import inputs
from benchmarks.measure import (
    PeakMemory,
    available_threads,
    commit,
    machine,
    options_of,
    product_rates,
    timed,
    use_threads,
)
from torch import distributed, multiprocessing

from geomem.errors import InputError
from geomem.files import write_json
from geomem.geometry import Curves, geometry_curves
from geomem.noise.danger_zone import danger_zone

FORMAT = "geomem.benchmark-geometry/1"
GIB = 2**30
ESTIMATES = ("max_posterior_weight", "self_posterior_weight", "coverage")
DIRECTIONS = 256  # noise vectors that all queries share
LEVELS = np.geomspace(0.02, 80, 40)
PIXEL = 127.5  # a unit of [-1, 1] in those of uint8
MEMORY_BOUND = 6 * GIB


@dataclass(frozen=True)
class Sizes:
    """How much work each part is."""

    small: int = 1000  # points of cifar-1k and processes
    small_levels: int = 20
    small_runs: int = 7
    numpy_runs: int = 3
    large: int = 50_000
    large_queries: int = 1000
    large_runs: int = 3
    huge: int | None = 1_281_167
    huge_runs: int = 1
    bank: int = 4096
    product_sides: tuple[int, ...] = (2048, 4096)
    base: tuple[int, int, int, int] = (4000, 16, 20, 500)  # of scaling: points, side of the images, levels, queries
    points: tuple[int, ...] = (1000, 2000, 4000, 8000, 16_000)
    sides: tuple[int, ...] = (8, 16, 32, 64)
    levels: tuple[int, ...] = (5, 10, 20, 40, 80)
    queries: tuple[int, ...] = (125, 250, 500, 1000, 2000)
    scaling_runs: int = 3
    agreement: int = 100
    agreement_levels: int = 30
    agreement_seeds: int = 2
    processes: tuple[int, ...] = (1, 2, 4)
    process_runs: int = 3


FULL = Sizes()
QUICK = Sizes(small_runs=3, numpy_runs=1, large=5000, large_queries=200, huge=None, product_sides=(2048,),
              base=(1000, 16, 10, 100), points=(500, 1000, 2000), sides=(8, 16, 32), levels=(5, 10, 20),
              queries=(50, 100, 200), agreement=30, agreement_seeds=1, process_runs=1)


@dataclass(frozen=True)
class Bench:
    """What every part needs: how much work, the folder of real images or None, threads."""

    sizes: Sizes
    data: Path | None
    threads: int


class Skipped(Exception):
    """A part that cannot be run here; the message says why."""


def needs(*parameters: str) -> None:
    """Skip the part unless geometry_curves takes these arguments."""
    missing = set(parameters) - set(inspect.signature(geometry_curves).parameters)
    if missing:
        raise Skipped(f"geometry_curves takes no {' and no '.join(sorted(missing))}")


def shape_of(train: np.ndarray, queries: int, levels: int, images: str) -> dict[str, Any]:
    """What was measured, for the record. Draws are the defaults, 4 and 8."""
    return {"points": len(train), "dim": train.shape[1], "queries": queries, "levels": levels, "images": images}


# cifar-1k


def cifar_1k(bench: Bench) -> dict[str, Any]:
    """Against plain NumPy at the same work: both curves with errors, bounds and thresholds. The rival draws its own
    noise for every query, as one would; that queries can share it is the package's idea. The differences are those on
    the same noise. ``refined``: the command's own work, with levels added around the zone, which the rival leaves out.
    """
    sizes = bench.sizes
    train, heldout, images = inputs.small_images(sizes.small, bench.data)
    seconds, curves = timed(lambda: geometry_curves(train, heldout, sigmas=sizes.small_levels), sizes.small_runs)
    refined_seconds, _ = timed(lambda: danger_zone(train, heldout, sigmas=sizes.small_levels), sizes.small_runs)
    oracles.two_shell_grid(train.shape[1], 5.0)  # as the package keeps its table of g
    plain_seconds, _ = timed(lambda: oracles.numpy_curves(train, heldout, curves.sigma,
                                                          noise_of=oracles.independent_noise), sizes.numpy_runs,
                             warm_up=False)
    plain = oracles.numpy_curves(train, heldout, curves.sigma)
    return {"input": shape_of(train, len(train), sizes.small_levels, images),
            "seconds": seconds, "numpy_seconds": plain_seconds,
            "numpy_over_geomem": plain_seconds["median"] / seconds["median"],
            "refined_seconds": refined_seconds,
            "numpy_over_refined": plain_seconds["median"] / refined_seconds["median"],
            "largest_difference": {name: float(abs(getattr(curves, name).estimate - theirs).max())
                                   for name, theirs in zip(ESTIMATES, plain[:3], strict=True)}}


# 50k and imagenet-size


def large(bench: Bench) -> dict[str, Any]:
    needs("queries")
    sizes = bench.sizes
    queries = sizes.large_queries
    rates = product_rates(sizes.product_sides)
    with tempfile.TemporaryDirectory(prefix="geomem-benchmark-") as folder:
        paths = [Path(folder) / f"{part}.npy" for part in ("train", "heldout")]
        train, heldout, images = inputs.large_images(sizes.large, queries, bench.data)
        record = shape_of(train, queries, len(LEVELS), images)
        for path, part in zip(paths, (train, heldout), strict=True):
            np.save(path, part)
        del train, heldout, part
        measured = in_a_fresh_process(measured_curves, paths, False, LEVELS, {"queries": queries}, sizes.large_runs,
                                      bench.threads)
    return {"input": record, **measured, **products(record, measured["seconds"]["median"], rates)}


def imagenet_size(bench: Bench) -> dict[str, Any]:
    """The images are left as uint8 in the file and taken in units of their own, with levels 127.5 times larger. The
    file has just been written: what the system has room for is read from its page cache, not from the disk.
    """
    sizes = bench.sizes
    if sizes.huge is None:
        raise Skipped("not part of --quick")
    needs("queries", "memory")
    dim, queries = 3 * inputs.SIDE**2, min(sizes.large_queries, sizes.huge)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < 1.1 * sizes.huge * dim:
        raise Skipped(f"needs {sizes.huge * dim / GIB:.1f} GiB in {tempfile.gettempdir()}; set TMPDIR")
    rates = product_rates(sizes.product_sides)
    with tempfile.TemporaryDirectory(prefix="geomem-benchmark-") as folder:
        paths = [Path(folder) / f"{part}.npy" for part in ("train", "heldout")]
        inputs.write_huge(paths[0], sizes.huge, sizes.bank)
        np.save(paths[1], inputs.to_uint8(inputs.smooth_images(queries, inputs.SIDE, "heldout")))
        record = shape_of(np.load(paths[0], mmap_mode="r"), queries, len(LEVELS), "shifted smooth random images, uint8")
        measured = in_a_fresh_process(measured_curves, paths, True, PIXEL * LEVELS,
                                      {"queries": queries, "memory": MEMORY_BOUND}, sizes.huge_runs, bench.threads)
    # Of a file only as much stays resident as the system finds room for: not the program's memory.
    del measured["memory_gib"]["resident"]
    return {"input": record, "memory_bound_gib": MEMORY_BOUND / GIB, **measured,
            **products(record, measured["seconds"]["median"], rates)}


def measured_curves(paths: list[Path], mapped: bool, sigmas: np.ndarray, options: dict[str, Any], runs: int,
                    threads: int) -> dict[str, Any]:
    """Seconds and memory of the curves of two files, beyond what the data take.

    A small call before loads the libraries; it is the only warm-up. The curves at the ends of the levels show that the
    work was not trivial.
    """
    use_threads(threads)
    train, heldout = (np.load(path, mmap_mode="r" if mapped else None) for path in paths)
    geometry_curves(np.array(train[:300]), heldout[:300], sigmas=sigmas[::10])
    with PeakMemory() as memory:
        seconds, curves = timed(lambda: geometry_curves(train, heldout, sigmas=sigmas, **options), runs, warm_up=False)
    ends = {name: [float(value) for value in getattr(curves, name).estimate[[0, -1]]]
            for name in ("max_posterior_weight", "coverage")}
    return {"seconds": seconds, "memory_gib": {name: size / GIB for name, size in memory.result.items()},
            "first_and_last_level": ends}


def products(record: dict[str, Any], seconds: float, rates: dict[str, float]) -> dict[str, Any]:
    """The matrix products that the curves cannot do without: of the training points with the queries of both curves
    and with the shared noise, 2 N d (2 queries + 256) operations; and the share of the seconds they would take at the
    machine's own rate. What is done more than that counts against the program.
    """
    operations = 2 * record["points"] * record["dim"] * (2 * record["queries"] + DIRECTIONS)
    return {"product_gflop": operations / 1e9, "machine_gflop_per_s": {name: r / 1e9 for name, r in rates.items()},
            "share_of_machine_rate": {name: operations / seconds / r for name, r in rates.items()}}


def in_a_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns in a new Python process, so that no memory of this one is counted."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


# scaling


def scaling(bench: Bench) -> dict[str, Any]:
    """Each of four quantities varied alone around the same base."""
    needs("queries")
    sizes = bench.sizes
    names = ("points", "side", "levels", "queries")
    base = dict(zip(names, sizes.base, strict=True))
    series = {}
    for name, values in zip(names, (sizes.points, sizes.sides, sizes.levels, sizes.queries), strict=True):
        rows = []
        for value in values:
            at = base | {name: value}
            train = inputs.smooth_images(at["points"], at["side"], "train")
            heldout = inputs.smooth_images(at["queries"], at["side"], "heldout")
            seconds, _ = timed(lambda train=train, heldout=heldout, at=at: geometry_curves(
                train, heldout, sigmas=at["levels"], queries=at["queries"]), sizes.scaling_runs)
            rows.append({"value": 3 * value**2 if name == "side" else value, "seconds": seconds})
        series["dim" if name == "side" else name] = rows
    return {"base": {"points": base["points"], "dim": 3 * base["side"]**2, "levels": base["levels"],
                     "queries": base["queries"]}, "series": series}


# agreement

KINDS = {"near-duplicates": inputs.near_duplicates, "clusters": inputs.clusters}


def agreement(bench: Bench) -> dict[str, Any]:
    """Two kinds of points in 3,072 and in 64 dimensions."""
    sizes = bench.sizes
    return {f"{kind} d={dim}": disagreement(kind, sizes.agreement, dim, sizes.agreement_levels,
                                            range(sizes.agreement_seeds))
            for kind in KINDS for dim in (3072, 64)}


def disagreement(kind: str, n: int, dim: int, levels: int, seeds: range) -> dict[str, Any]:
    """How far n training and n held-out points are from the float64 loops of ``oracles``: at levels 0.002 to 80, and,
    for 5 of the held-out points, at levels 1e-6 and 1e-8 of themselves above and below the one where the point comes
    into the nearest shell. Rounding may move the second kind of event, not the first.

    One draw a point, so that the results per point are single cells. ``largest_dw_curve``, ``largest_dw_cell``:
    largest difference in W and in the weights it is the mean of (in the curve of self weights too). ``events`` are
    covered or not, of one point with one noise at one level; ``near_boundary`` of them have a shell boundary within
    rounding (``oracles.near_a_boundary``), and there and elsewhere so many differ.
    """
    result = {"points": n, "largest_dw_curve": 0.0, "largest_dw_cell": 0.0, "events": 0, "covered": 0,
              "near_boundary": 0, "differ_near_boundary": 0, "differ_elsewhere": 0}
    for seed in seeds:
        points = KINDS[kind](n, dim, np.random.default_rng(seed))
        train, heldout = (part.astype(np.float64) for part in points)
        noise = oracles.query_noise("coverage radius", n, 1, dim, seed)
        close = oracles.boundary_levels(train, heldout[-5:], noise[-5:], 5.0, [-1e-6, -1e-8, 1e-8, 1e-6])
        sigmas = np.unique(np.concatenate([np.geomspace(0.002, 80, levels), close[np.isfinite(close)]]))
        curves = geometry_curves(*points, sigmas=sigmas, posterior_draws=1, coverage_draws=1, seed=seed,
                                 duplicates="keep")  # the published W, which the oracle has
        inside = oracles.coverage(train, heldout, noise, sigmas, 5.0)[0][:, 0]
        near = oracles.near_a_boundary(train, heldout, noise, sigmas, 5.0)[:, 0]
        differ = (curves.coverage_per_point > 0.5) != inside
        noise = oracles.query_noise("posterior radius", n, 1, dim, seed)
        largest, own = (weights[:, 0] for weights in oracles.posterior_weights(train, noise, sigmas))
        w, self_w = curves.max_posterior_weight.estimate, curves.self_posterior_weight.estimate
        result["largest_dw_curve"] = max(result["largest_dw_curve"], float(abs(w - largest.mean(axis=0)).max()),
                                         float(abs(self_w - own.mean(axis=0)).max()))
        result["largest_dw_cell"] = max(result["largest_dw_cell"], float(abs(curves.weight_per_point - largest).max()))
        for name, events in (("events", inside | True), ("covered", inside), ("near_boundary", near),
                             ("differ_near_boundary", differ & near), ("differ_elsewhere", differ & ~near)):
            result[name] += int(events.sum())
    return result


# processes


def processes(bench: Bench) -> dict[str, Any]:
    """On the CPU, the machine's threads shared among the processes. Seconds are those of the first process."""
    needs("group")
    sizes = bench.sizes
    train, heldout, images = inputs.small_images(sizes.small, bench.data)
    found: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="geomem-benchmark-") as folder:
        np.savez(Path(folder) / "points.npz", train=train, heldout=heldout)
        for count in sizes.processes:
            if count == 1:
                one_of(0, 1, folder, sizes, bench.threads)
            else:
                multiprocessing.spawn(one_of, (count, folder, sizes, bench.threads), nprocs=count)
            found[count] = json.loads((Path(folder) / f"{count}.json").read_text())
    alone = Curves.from_dict(found[sizes.processes[0]]["curves"])
    return {"input": shape_of(train, len(train), sizes.small_levels, images),
            **{f"{count} {'process' if count == 1 else 'processes'}": {
                "seconds": run["seconds"], "threads_each": max(1, bench.threads // count),
                "largest_difference": largest_difference(alone, Curves.from_dict(run["curves"]))}
               for count, run in found.items()}}


def one_of(rank: int, count: int, folder: str, sizes: Sizes, threads: int) -> None:
    """One of ``count`` processes, each of which calls with the same arguments."""
    use_threads(max(1, threads // count))
    with np.load(Path(folder) / "points.npz") as points, group_of(rank, count, folder) as group:
        train, heldout = points["train"], points["heldout"]

        def together() -> Curves:
            if group is not None:
                distributed.barrier()
            return geometry_curves(train, heldout, sigmas=sizes.small_levels, device="cpu", group=group)

        seconds, curves = timed(together, sizes.process_runs)
    if rank == 0:
        write_json(Path(folder) / f"{count}.json", {"seconds": seconds, "curves": curves.to_dict()})


@contextmanager
def group_of(rank: int, count: int, folder: str) -> Iterator[Any]:
    """The group of all processes, None for a single one."""
    if count == 1:
        yield None
        return
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting-of-{count}", rank=rank,
                                   world_size=count)
    try:
        yield distributed.group.WORLD
    finally:
        distributed.destroy_process_group()


def largest_difference(one: Curves, other: Curves) -> float:
    """Over all curves and their bounds, and all levels."""
    pairs = [(getattr(one, name), getattr(other, name)) for name in (
        "coverage_lower_bound", "coverage_upper_bound", "coverage_plain_upper_bound")]
    for name in ESTIMATES:
        pairs += [(getattr(getattr(one, name), part), getattr(getattr(other, name), part))
                  for part in ("estimate", "stderr")]
    return max(float(abs(a - b).max()) for a, b in pairs)


PARTS = {"cifar-1k": cifar_1k, "50k": large, "imagenet-size": imagenet_size, "scaling": scaling,
         "agreement": agreement, "processes": processes}


def run_part(name: str, bench: Bench) -> dict[str, Any]:
    """The part's figures with the load of the machine before it, or why it was skipped."""
    load = os.getloadavg()[0]
    try:
        return {**PARTS[name](bench), "load_before": load, "commit": commit()}
    except Skipped as reason:
        return {"skipped": str(reason)}


def table(name: str, value: Any) -> Iterator[str]:
    """Lines of one part: what, and the figure, as median [smallest, largest] where it was taken several times."""
    if name.endswith(("input", "base", "machine")):
        yield f"{name:<58} " + ", ".join(f"{key} {part}" for key, part in value.items())
    elif isinstance(value, dict) and set(value) == {"median", "min", "max", "runs"}:
        yield f"{name:<58} {value['median']:.4g} [{value['min']:.4g}, {value['max']:.4g}], {value['runs']} run(s)"
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from table(f"{name}: {key}", part)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for row in value:
            yield from table(f"{name} = {row['value']}", row["seconds"])
    else:
        yield f"{name:<58} {f'{value:.4g}' if isinstance(value, float) else value}"


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = options_of("geometry", __doc__, "less of everything, under 2 minutes in all", PARTS)
    parser.add_argument("--data", type=Path, metavar="DIR",
                        help="folder with cifar10_exact.npz and cifar10_jpeg.zip (default: smooth random images)")
    options = parser.parse_args(given)
    missing = [name for name in ("cifar10_exact.npz", "cifar10_jpeg.zip")
               if options.data and not (options.data / name).exists()]
    if missing:
        parser.error(f"--data {options.data} holds no {missing[0]}")
    return options


def parts_so_far(path: Path, head: dict[str, Any]) -> dict[str, Any]:
    """The parts of an earlier run, which must have the same head: figures of two machines do not go together."""
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text())
        parts = document.pop("parts")
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise InputError(f"{path} is no result of this benchmark; name another file with --out") from None
    if document != head:
        raise InputError(f"{path} was measured on another machine, with other versions or sizes; "
                         "name another file with --out")
    return parts


def main(given: list[str] | None = None) -> None:
    options = arguments(given)
    bench = Bench(QUICK if options.quick else FULL, options.data, available_threads())
    use_threads(bench.threads)
    head = {"format": FORMAT, "quick": options.quick, "machine": machine()}
    try:
        parts = parts_so_far(options.out, head)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print("\n".join(table("machine", head["machine"])))
    for name in options.only or PARTS:
        print(f"{name} ...", file=sys.stderr)
        parts[name] = run_part(name, bench)
        print("\n".join(table(name, parts[name])), flush=True)
        write_json(options.out, head | {"parts": {part: parts[part] for part in PARTS if part in parts}})


if __name__ == "__main__":
    main()
