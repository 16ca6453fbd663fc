"""bin/benchmark generation: images per second of geomem.generation beside diffusers' own pipelines and scheduler.

One untrained ``unet-small`` in a folder that diffusers wrote, as ``geomem export`` writes it, loaded by both; the same
batch and the same number of evaluations of the network, one after the other, in turns, in the same run:

    ddim, ddpm   DDIMPipeline, DDPMPipeline
    heun         a loop over HeunDiscreteScheduler, for which diffusers has no pipeline; 2 steps - 1 evaluations

The images are not the same: diffusers draws a batch from one generator, geomem each sample from its own seed, and the
Heun steps lie at other noise levels. With one thread seconds are of the processor, else of the clock.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from benchmarks.geometry import table
from benchmarks.measure import available_threads, commit, machine, options_of, spread, use_threads

from geomem import load_denoiser
from geomem.devices import resolve_device
from geomem.files import write_json
from geomem.generation import generate, sampler_levels
from geomem.models import EpsilonDenoiser, build_network, own_schedule
from geomem.models.diffusers_folder import save_pipeline

FORMAT = "geomem.benchmark-generation/1"


@dataclass(frozen=True)
class Sizes:
    """How much work it is: of each way so many runs of a batch, after one that warms up."""

    network: str = "unet-small"
    side: int = 32
    batch: int = 16
    steps: int = 10
    runs: int = 5


FULL = Sizes()
QUICK = Sizes(batch=4, steps=4, runs=3)


def ways(sizes: Sizes, folder: Path) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Of each sampler the call of geomem and that of diffusers, each of which makes a batch of images on the CPU."""
    shape, device = (3, sizes.side, sizes.side), resolve_device()
    torch.manual_seed(0)
    network: Any = build_network(sizes.network, shape)
    torch.nn.init.normal_(network.unet.conv_out.weight, std=0.01)
    save_pipeline(folder, EpsilonDenoiser(network), shape, "")
    denoiser = load_denoiser(folder).denoiser.to(device)
    schedule = own_schedule(denoiser)
    pipeline = diffusers.DDPMPipeline.from_pretrained(folder).to(device)
    ddim = diffusers.DDIMPipeline(pipeline.unet, diffusers.DDIMScheduler.from_config(pipeline.scheduler.config))
    for each in (pipeline, ddim):
        each.set_progress_bar_config(disable=True)

    @torch.no_grad()
    def heun() -> torch.Tensor:
        scheduler = diffusers.HeunDiscreteScheduler.from_config(pipeline.scheduler.config)
        scheduler.set_timesteps(sizes.steps, device=device)
        images = torch.randn(sizes.batch, *shape, device=device) * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            noise = pipeline.unet(scheduler.scale_model_input(images, timestep), timestep.long()).sample
            images = scheduler.step(noise, timestep, images).prev_sample
        return images.cpu()

    def by_geomem(method: str) -> object:
        return generate(denoiser, range(sizes.batch), shape, method=method, batch=sizes.batch,
                        sigmas=sampler_levels(method, sizes.steps, schedule))

    given: dict[str, Any] = {"batch_size": sizes.batch, "num_inference_steps": sizes.steps, "output_type": "np"}
    theirs = {"ddim": partial(ddim, **given), "ddpm": partial(pipeline, **given), "heun": heun}
    return {method: (partial(by_geomem, method), call) for method, call in theirs.items()}


def evaluations(sizes: Sizes, method: str) -> int:
    return 2 * sizes.steps - 1 if method == "heun" else sizes.steps


def speed(sizes: Sizes, threads: int) -> dict[str, Any]:
    """Images per second; the two take turns, run by run."""
    clock = time.process_time if threads == 1 else time.perf_counter
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="geomem-benchmark-") as folder:
        for method, calls in ways(sizes, Path(folder) / "model").items():
            seconds: tuple[list[float], list[float]] = ([], [])
            for turn in range(sizes.runs + 1):
                for call, taken in zip(calls, seconds, strict=True):
                    started = clock()
                    call()
                    if torch.cuda.is_available():
                        torch.cuda.synchronize()
                    if turn:
                        taken.append(clock() - started)
            ratios = [other / own for own, other in zip(*seconds, strict=True)]
            found[method] = {"geomem_over_diffusers": spread(ratios), "evaluations": evaluations(sizes, method),
                             **{f"{name}_images_per_second": spread([sizes.batch / each for each in taken])
                                for name, taken in zip(("geomem", "diffusers"), seconds, strict=True)}}
    return found


def main(given: list[str] | None = None) -> None:
    options = options_of("generation", __doc__, "smaller batches, fewer steps, under a minute").parse_args(given)
    sizes, threads = QUICK if options.quick else FULL, available_threads()
    use_threads(threads)
    document = {"format": FORMAT, "quick": options.quick, "machine": machine(), "diffusers": diffusers.__version__,
                "commit": commit(), "input": vars(sizes), "clock": "processor" if threads == 1 else "wall"}
    parts = speed(sizes, threads)
    print("\n".join([*table("machine", document["machine"]), *table("input", document["input"]),
                     *table(sizes.network, parts)]))
    write_json(options.out, {**document, "parts": parts})


if __name__ == "__main__":
    main()
