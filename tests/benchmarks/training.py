"""bin/benchmark training: one training step beside a plain loop, in images per second and peak memory.

Network, batch and images are the same; one after the other, in turns, in the same run:

    plain            a loop as one writes it: torch's own draws and AdamW, float32
    float32, bf16    geomem.training.Trainer, with its keyed draws and the average of the weights
    float32 in 4     with --accumulate 4
    bf16 compiled    with --compile; asked for by --compile, since compiling takes minutes

``outside_the_network`` is the share of a step that is neither forward nor backward: data, draws, optimizer and average.
It is measured for small networks too, where it is largest.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from benchmarks import inputs
from benchmarks.geometry import in_a_fresh_process, table
from benchmarks.measure import PeakMemory, available_threads, commit, machine, options_of, spread, use_threads

from geomem.devices import resolve_device
from geomem.files import write_json
from geomem.models import EDMDenoiser, build_network
from geomem.noise import LogNormalSampler
from geomem.training import Trainer, TrainingSettings

FORMAT = "geomem.benchmark-training/1"
GIB = 2**30
WAYS: dict[str, dict[str, Any]] = {"plain": {}, "float32": {"precision": "fp32"}, "bf16": {"precision": "bf16"},
                                   "float32 in 4": {"precision": "fp32", "accumulate": 4}}
COMPILED = {"bf16 compiled": {"precision": "bf16", "compiled": True}}
SMALL: dict[str, tuple[int, ...]] = {"unet-tiny": (1, 8, 8), "mlp": (140,)}
SMALL_BATCH = 128


@dataclass(frozen=True)
class Sizes:
    """How much work it is."""

    network: str = "unet-small"
    side: int = 32
    images: int = 2000
    batch: int = 64
    steps: int = 20  # of each way


FULL = Sizes()
QUICK = Sizes(images=300, batch=16, steps=3)


def plain_loop(sizes: Sizes, images: torch.Tensor) -> Callable[[], None]:
    """One step of the loop of a tutorial: EDM's loss, a random batch, AdamW."""
    device = images.device
    net = EDMDenoiser(build_network(sizes.network, images.shape[1:])).to(device).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)

    def step() -> None:
        clean = images[torch.randint(len(images), (sizes.batch,), device=device)]
        sigma = (1.2 * torch.randn(sizes.batch, device=device) - 1.2).exp()
        noisy = clean + sigma[:, None, None, None] * torch.randn_like(clean)
        error = (net(noisy, sigma) - clean).square().mean(dim=(1, 2, 3))
        loss = (net.loss_weight(sigma) * error).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def trainer_of(network: str, batch: int, points: torch.Tensor, precision: str = "fp32", **division: Any) -> Trainer:
    denoiser = EDMDenoiser(build_network(network, points.shape[1:])).to(points.device)
    settings = TrainingSettings(iterations=10**6, batch=batch, learning_rate=1e-4, precision=precision)
    return Trainer(denoiser, LogNormalSampler(), points.cpu().numpy(), settings, **division)


def step_of(way: str, sizes: Sizes, images: torch.Tensor) -> tuple[Callable[[], None], Trainer | None]:
    """One step of a way of training, and its trainer, None of the plain loop."""
    torch.manual_seed(0)
    if way == "plain":
        return plain_loop(sizes, images), None
    trainer = trainer_of(sizes.network, sizes.batch, images, **{**WAYS, **COMPILED}[way])
    return trainer.step, trainer


def seconds_of(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def some_images(sizes: Sizes) -> torch.Tensor:
    rows = inputs.smooth_images(sizes.images, sizes.side, "train")
    return torch.from_numpy(rows.reshape(-1, 3, sizes.side, sizes.side)).to(resolve_device())


def speed(sizes: Sizes, names: Sequence[str] = tuple(WAYS)) -> dict[str, Any]:
    """Images per second. The ways take turns, step by step: a machine that slows down slows all."""
    images = some_images(sizes)
    ways = {way: step_of(way, sizes, images) for way in names}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    inside: dict[str, list[float]] = {way: [] for way in ways}
    for k in range(sizes.steps + 1):
        for way, (step, trainer) in ways.items():
            network = [] if trainer is None else watched(trainer)
            taken = seconds_of(step)
            if k:  # the first step warms up
                seconds[way].append(taken)
                inside[way].append(sum(network) / taken)
    plain = spread(seconds["plain"])["median"]
    return {way: {"images_per_second": spread([sizes.batch / taken for taken in seconds[way]]),
                  "speed_over_plain": plain / spread(seconds[way])["median"],
                  **({} if way == "plain" else {
                      "outside_the_network": spread([1 - share for share in inside[way]])["median"]})}
            for way in ways}


def small_networks(steps: int) -> dict[str, float]:
    """Share of a float32 step outside the network, the median of ``steps`` after a warm-up of as many."""
    found = {}
    for network, shape in SMALL.items():
        draws = torch.Generator().manual_seed(0)
        trainer = trainer_of(network, SMALL_BATCH, torch.randn(300, *shape, generator=draws).to(resolve_device()))
        shares = []
        for _ in range(2 * steps):
            inside = watched(trainer)
            taken = seconds_of(trainer.step)
            shares.append(1 - sum(inside) / taken)
        found[f"{network}, {' x '.join(map(str, shape))}"] = spread(shares[steps:])["median"]
    return found


def watched(trainer: Trainer) -> list[float]:
    """The seconds that the next step spends on forward and backward, one entry for each piece of its batch."""
    found: list[float] = []
    add_gradient = type(trainer)._add_gradient

    def timed_gradient(*given: Any) -> torch.Tensor:
        started = time.perf_counter()
        loss = add_gradient(trainer, *given)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
        return loss

    trainer._add_gradient = timed_gradient  # type: ignore[method-assign]
    return found


def memory(way: str, sizes: Sizes, threads: int) -> dict[str, float]:
    """GiB that two steps take beyond the network and the images; to be called in a process of its own."""
    use_threads(threads)
    images = some_images(sizes)
    step, _ = step_of(way, sizes, images)
    with PeakMemory() as peak:
        step()
        step()
    return {name: size / GIB for name, size in peak.result.items()}


def main(given: list[str] | None = None) -> None:
    parser = options_of("training", __doc__, "smaller batches, fewer steps, under a minute")
    parser.add_argument("--compile", action="store_true", help="bf16 compiled too; minutes, and needs a C++ compiler")
    options = parser.parse_args(given)
    sizes, threads = QUICK if options.quick else FULL, available_threads()
    use_threads(threads)
    document = {"format": FORMAT, "quick": options.quick, "machine": machine(), "commit": commit(),
                "input": vars(sizes)}
    print("speed ...", file=sys.stderr)
    names = [*WAYS, *(COMPILED if options.compile else ())]
    parts = speed(sizes, names)
    for way in names:
        print(f"memory of {way} ...", file=sys.stderr)
        parts[way]["memory_gib"] = in_a_fresh_process(memory, way, sizes, threads)
    small = small_networks(sizes.steps)
    print("\n".join([*table("machine", document["machine"]), *table("input", document["input"]),
                     *table(sizes.network, parts), *table("outside the network", small)]))
    write_json(options.out, {**document, "parts": parts, "outside_small_networks": small})


if __name__ == "__main__":
    main()
