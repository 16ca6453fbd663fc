"""bin/benchmark all: what README and docs quote, on one machine in one run; some 7 minutes on two quiet cores.

The benchmarks one after another, each in a process of its own, with their results in a folder, and a table in Markdown:
ratios first, since they depend less on the machine than seconds do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import geometry

RESULTS = Path(__file__).parents[2] / "figures" / "results"
RUNS: dict[str, tuple[str, ...]] = {  # options of each; imagenet-size takes minutes and 4 GB: added by hand
    "geometry": tuple(word for part in geometry.PARTS if part != "imagenet-size" for word in ("--only", part)),
    "memorization": ("--quick",), "training": (), "generation": (), "cost": ()}
WITH_IMAGES = "geometry", "memorization"


def rows(found: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """What, its ratio, and the seconds or rates behind it."""
    parts = {name: document["parts"] for name, document in found.items()}
    small, large, ways = parts["geometry"]["cifar-1k"], parts["geometry"]["50k"], parts["training"]
    table = [
        ("curves of 1,000 images: plain NumPy over geomem", small["numpy_over_geomem"],
         f"{small['numpy_seconds']['median']:.3g} s, {small['seconds']['median']:.3g} s"),
        ("the same with the zone refined, which NumPy leaves out", small["numpy_over_refined"],
         f"{small['refined_seconds']['median']:.3g} s"),
        ("curves of 50,000 images: share of the machine's float32 products",
         large["share_of_machine_rate"]["float32"], f"{large['seconds']['median']:.3g} s")]
    table += [(f"ratio rule, {part['input']['samples']:,} samples ({name}): faiss over geomem",
               part["faiss_over_geomem"], f"{part['seconds']['processor']:.3g} s")
              for name, part in parts["memorization"].items()]
    table += [(f"training, {way}: over a plain float32 loop", part["speed_over_plain"],
               f"{part['images_per_second']['median']:.3g} images/s") for way, part in ways.items() if way != "plain"]
    table += [(f"sampling by {method}: geomem over diffusers", part["geomem_over_diffusers"]["median"],
               f"{part['geomem_images_per_second']['median']:.3g} images/s")
              for method, part in parts["generation"].items()]
    table += [(f"--dry-run, {name.removeprefix('curves ')}: estimated over measured",
               part["refined"]["estimated_over_measured"], f"{part['refined']['seconds']:.3g} s")
              for name, part in parts["cost"].items() if name.startswith("curves")]
    return [(what, f"{ratio:.2f}", behind) for what, ratio, behind in table]


def markdown(found: Mapping[str, Mapping[str, Any]]) -> str:
    on = found["geometry"]["machine"]
    head = f"{on['cpu']}, {on['cores']} cores, {on['threads']} threads, GPU: {on['gpu']}, torch {on['torch']}"
    return "\n".join([head, "", "| what | ratio | behind it |", "|---|---|---|",
                      *(f"| {' | '.join(row)} |" for row in rows(found))])


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bin/benchmark all", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with the images (default: smooth random ones)")
    parser.add_argument("--out", type=Path, metavar="DIR", default=RESULTS, help="results (default: figures/results)")
    options = parser.parse_args(given)
    found = {}
    for name, chosen in RUNS.items():
        path = options.out / f"benchmark_{name}.json"
        path.unlink(missing_ok=True)  # parts of an earlier run, perhaps on another machine
        images = ["--data", str(options.data)] if options.data and name in WITH_IMAGES else []
        subprocess.run([sys.executable, "-P", "-m", f"benchmarks.{name}", *chosen, *images, "--out", str(path)],
                       check=True, stdout=sys.stderr)
        found[name] = json.loads(path.read_text())
    print(markdown(found))


if __name__ == "__main__":
    main()
