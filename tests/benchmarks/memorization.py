"""bin/benchmark memorization: the ratio rule on as many samples as training points, beside leaning and faiss's index.

The samples are made from images, since what counts is how near they are to training images:

    mix          fifths: held-out images, the same mirrored with a little noise, training images with noise (copies),
                 blends of two training images, mirrored training images
    near-copies  training images with noise of 1e-3 of a value: distances that float32 products lose
    noisy        training images with noise of 0.5: nearly as far from all

In one process, one after the other: ``memorization_rate`` on all samples, with the search for duplicates and all;
``leaning`` of them, with its floor and 999 relabelings; faiss's IndexFlatL2 (float32, two neighbours, the points
already added) on some of them; and a float64 product of centred points on fewer, which says how right rule and faiss
are.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import inputs
from benchmarks.geometry import parts_so_far, table
from benchmarks.measure import available_threads, commit, machine, options_of, timed, use_threads

from geomem.errors import InputError
from geomem.files import write_json
from geomem.memorization import leaning, memorization_rate
from geomem.rng import generator

FORMAT = "geomem.benchmark-memorization/1"
POINTS_AT_ONCE = 4096  # of the float64 products


@dataclass(frozen=True)
class Sizes:
    """How much work each part is."""

    train: int = 50_000
    heldout: int = 10_000
    samples: int = 50_000
    faiss: int = 5000  # of the samples, also given to faiss
    exact: int = 500  # of those, also to float64


FULL = Sizes()
QUICK = Sizes(train=5000, heldout=1000, samples=5000, faiss=1000, exact=200)


def mix(train: np.ndarray, heldout: np.ndarray, count: int) -> np.ndarray:
    rng = generator(0, "benchmark samples")
    fifth = -(-count // 5)

    def some(points: np.ndarray) -> np.ndarray:
        return points[rng.choice(len(points), fifth, replace=len(points) < fifth)]

    fresh = some(heldout)
    parts = [fresh, with_noise(mirrored(fresh), 0.02, rng), with_noise(some(train), 0.05, rng),
             np.float32(0.6) * some(train) + np.float32(0.4) * some(train), mirrored(some(train))]
    return np.concatenate(parts)[rng.permutation(5 * fifth)[:count]]


def near_copies(train: np.ndarray, heldout: np.ndarray, count: int) -> np.ndarray:
    rng = generator(0, "benchmark near copies")
    return with_noise(train[rng.choice(len(train), count, replace=len(train) < count)], 1e-3, rng)


def noisy(train: np.ndarray, heldout: np.ndarray, count: int) -> np.ndarray:
    rng = generator(0, "benchmark noisy samples")
    return with_noise(train[rng.choice(len(train), count, replace=len(train) < count)], 0.5, rng)


def mirrored(images: np.ndarray) -> np.ndarray:
    return images.reshape(-1, 3, inputs.SIDE, inputs.SIDE)[..., ::-1].reshape(images.shape)


def with_noise(images: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    noisy = rng.standard_normal(images.shape, dtype=np.float32)
    noisy *= np.float32(sigma)
    noisy += images
    return noisy


PARTS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "mix": mix, "near-copies": near_copies, "noisy": noisy}


def measured(train: np.ndarray, heldout: np.ndarray, samples: np.ndarray, sizes: Sizes) -> dict[str, Any]:
    """Seconds of the rule and of leaning, faiss's scaled to as many samples, and how far rule and faiss are from
    float64. Ratios are of processor time.
    """
    seconds, found = seconds_of(lambda: memorization_rate(samples, train))
    leaning_seconds, leans = seconds_of(lambda: leaning(samples, train, heldout))
    some = samples[:sizes.faiss]
    faiss_seconds, (squared, places) = by_faiss(some, train)
    scale = len(samples) / len(some)
    scaled = {name: value * scale if name != "runs" else value for name, value in faiss_seconds.items()}
    exact, where = nearest_two(samples[:sizes.exact], train)
    return {
        "input": {"samples": len(samples), "training points": len(train), "dim": train.shape[1]},
        "seconds": seconds, "memorized": found.rate,
        "leaning_seconds": leaning_seconds, "leaning": leans.share,
        "leaning_over_rule": leaning_seconds["processor"] / seconds["processor"],
        "faiss_queries": len(some), "faiss_seconds_for_all": scaled,
        "faiss_over_geomem": scaled["processor"] / seconds["processor"],
        "exact_queries": sizes.exact,
        "geomem": disagreement(found.nearest_distance, found.ratios, found.nearest, exact, where),
        "faiss": disagreement(np.sqrt(squared[:, 0]), np.sqrt(squared[:, 0] / np.maximum(squared[:, 1], 1e-300)),
                              places[:, 0], exact, where)}


def seconds_of(call: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Of one call, on the clock and of the processor, which other work on the machine prolongs less; and its result."""
    started = time.process_time()
    seconds, result = timed(call, 1, warm_up=False)
    return {**seconds, "processor": time.process_time() - started}, result


def by_faiss(samples: np.ndarray, train: np.ndarray) -> tuple[dict[str, float], tuple[np.ndarray, np.ndarray]]:
    """Seconds of the search alone; squared distances and places (n, 2)."""
    import faiss

    index = faiss.IndexFlatL2(train.shape[1])
    index.add(train)
    return seconds_of(lambda: index.search(samples, 2))


def nearest_two(samples: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances (n, 2) to the two nearest training points and the index (n,) of the first, by products in float64.

    Of a near copy this distance has 8 digits: the products round off some 1e-14 of the squared norms.
    """
    mean = train.mean(axis=0, dtype=np.float64)
    queries = samples - mean
    squared = np.full((len(samples), 2), np.inf)
    places = np.zeros((len(samples), 2), dtype=np.int64)
    for start in range(0, len(train), POINTS_AT_ONCE):
        points = train[start:start + POINTS_AT_ONCE] - mean
        found = (queries**2).sum(axis=1)[:, None] + (points**2).sum(axis=1) - 2 * queries @ points.T
        block = np.argpartition(found, 1, axis=1)[:, :2]
        squared = np.concatenate([squared, np.take_along_axis(found, block, 1)], axis=1)
        places = np.concatenate([places, start + block], axis=1)
        order = np.argsort(squared, axis=1)[:, :2]
        squared, places = np.take_along_axis(squared, order, 1), np.take_along_axis(places, order, 1)
    return np.sqrt(np.maximum(squared, 0)), places[:, 0]


def disagreement(nearest_distance: np.ndarray, ratios: np.ndarray, places: np.ndarray, exact: np.ndarray,
                 where: np.ndarray) -> dict[str, Any]:
    """From float64, on its queries: other nearest points, other verdicts, and the largest relative error of d_1."""
    n = len(exact)
    return {"other_nearest": int((places[:n] != where).sum()),
            "other_verdict": int(((ratios[:n] < 1 / 3) != (exact[:, 0] < exact[:, 1] / 3)).sum()),
            "largest_relative_error": float(abs(nearest_distance[:n] / exact[:, 0] - 1).max())}


def main(given: list[str] | None = None) -> None:
    parser = options_of("memorization", __doc__, "a tenth of the points, under a minute", PARTS)
    parser.add_argument("--data", type=Path, metavar="DIR",
                        help="folder with cifar10_jpeg.zip (default: smooth random images)")
    options = parser.parse_args(given)
    if options.data and not (options.data / "cifar10_jpeg.zip").exists():
        parser.error(f"--data {options.data} holds no cifar10_jpeg.zip")
    sizes, threads = QUICK if options.quick else FULL, available_threads()
    use_threads(threads)
    train, heldout, images = inputs.large_images(sizes.train, sizes.heldout, options.data)
    head = {"format": FORMAT, "quick": options.quick, "machine": machine(), "images": images}
    try:
        parts = parts_so_far(options.out, head)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    memorization_rate(train[:20], train[:100])  # loads the libraries
    print("\n".join([*table("machine", head["machine"]), *table("images", images)]), flush=True)
    for name in options.only or PARTS:
        samples = PARTS[name](train, heldout, sizes.samples)
        print(f"{name} ...", file=sys.stderr, flush=True)
        load = os.getloadavg()[0]
        parts[name] = {**measured(train, heldout, samples, sizes), "load_before": load, "commit": commit()}
        print("\n".join(table(name, parts[name])), flush=True)
        write_json(options.out, head | {"parts": {part: parts[part] for part in PARTS if part in parts}})


if __name__ == "__main__":
    main()
