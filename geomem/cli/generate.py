"""``geomem generate``: samples from a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from geomem.cli.options import MAX_LEVELS, Seeds, device_option, progress_bar, say
from geomem.errors import InputError
from geomem.files import require_writable

if TYPE_CHECKING:
    import numpy as np

    from geomem.training import Pretrained


@click.command()
@click.argument("run", type=click.Path())
@click.option("--seeds", type=Seeds(), default="0-1023", show_default=True,
              help="One sample per seed; sample i depends on seed i alone.")
@click.option("--weights", default=None, metavar="per-level|early-stop|before-copies|last|STEP",
              help="Which weights: the best ones for each noise level, the one early stop, those of half the steps at "
                   "which copies were seen, the last, or those of a kept step.  [default: per-level where the run kept "
                   "them, else before-copies where it saw copies, else last]")
@click.option("--steps", type=click.IntRange(2, MAX_LEVELS), help="Noise levels of the sampler.  [default: 18; "
              "100 for ddim, 1000 for ddpm]")
@click.option("--sampler", "--method", "method", type=click.Choice(["heun", "euler", "ddim", "ddpm"]), default="heun",
              show_default=True, help="Heun evaluates the model 2 steps - 1 times, the others as often as there are "
              "steps; ddim and ddpm go over timesteps, and ddpm draws noise at each.")
@click.option("--batch", type=click.IntRange(1), default=256, show_default=True, help="Samples made at a time.")
@click.option("--label", "labels", type=int, multiple=True, metavar="LABEL",
              help="For a class-conditional run: the label to make samples of, as in the data; several take turns by "
                   "seed.  [default: all]")
@device_option
@click.option("--out", required=True, metavar="FILE.npz", type=click.Path(dir_okay=False),
              help="Written with the keys samples, seeds, about (JSON) and, of a class-conditional run, labels.")
def generate(run: str, seeds: list[int], weights: str | None, steps: int | None, method: str, batch: int,
             labels: tuple[int, ...], device: str, out: str) -> None:
    """Generate samples from RUN: a directory of geomem train or geomem export, or a diffusers folder.

    Example: geomem generate runs/digits --seeds 0-1023 --out samples.npz
    """
    from geomem.training import load_denoiser

    if not out.endswith(".npz"):
        raise InputError(f"--out {out}: the ending must be .npz")
    require_writable(out)
    samples, about = samples_of(load_denoiser(run, weights), seeds, steps=steps, method=method, batch=batch,
                                labels=list(labels), device=device)
    save_samples(out, samples, seeds, about)
    say(f"{len(seeds):,} samples with weights {about['weights']} -> {out}")


def samples_of(model: Pretrained, seeds: list[int], *, steps: int | None = None, method: str = "heun",
               batch: int = 256, labels: list[int] | None = None,
               device: str = "auto") -> tuple[Any, dict[str, Any]]:
    """Samples (n, ...) of a model, and a description of how they were made.

    ``labels``, those of the data, take turns: a sample's label depends on its seed alone. None or [] stands for all.
    """
    import numpy as np

    from geomem import generation
    from geomem.devices import resolve_device

    known = model.labels
    for label in labels or []:
        if known is None or label not in known:
            raise InputError(f"--label {label}: {model.path} was trained " + (
                "without labels; leave --label out" if known is None else
                f"with the labels {', '.join(map(str, known[:20]))}; choose among these"))
    wanted = classes = None
    if known is not None:
        wanted = np.asarray(labels or known)[np.asarray(seeds) % len(labels or known)]
        classes = np.searchsorted(np.asarray(known), wanted)
    sigmas = sampler_levels(model, steps, method)
    denoiser = model.denoiser.to(resolve_device(device))
    with progress_bar(len(seeds), "generating", "sample") as bar:
        samples = generation.generate(denoiser, seeds, model.shape, sigmas=sigmas, method=method, batch=batch,
                                      labels=classes, progress=lambda done, total: bar.update(done - bar.n))
    about = {"format": "geomem.samples/1", "run": str(model.path), "weights": model.weights,
             "weights_sha256": fingerprint(model.denoiser), "steps": len(sigmas), "method": method,
             "data": model.data or None}
    if wanted is not None:
        about["labels"] = wanted.tolist()
    return samples, about


def sampler_levels(model: Pretrained, steps: int | None, method: str) -> np.ndarray:
    """Decreasing noise levels of a sampler, without the final 0; None stands for as many steps as are usual."""
    from geomem.generation import timestep_levels
    from geomem.noise import edm_steps

    steps = steps or {"ddim": 100, "ddpm": 1000}.get(method, 18)
    return timestep_levels(steps, model.schedule) if method in ("ddim", "ddpm") else edm_steps(steps)


def fingerprint(denoiser: Any) -> str:
    """SHA-256 of a denoiser's names, shapes and values: samples know by it whether a run has been trained on since."""
    from hashlib import sha256

    import torch

    digest = sha256()
    for name, tensor in denoiser.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save_samples(path: str, samples: Any, seeds: list[int], about: dict[str, Any]) -> None:
    import numpy as np

    from geomem.files import atomic_path

    with atomic_path(path) as temporary:
        arrays: dict[str, Any] = {"samples": samples, "seeds": np.asarray(seeds, dtype=np.int64),
                                  "about": np.asarray(json.dumps(about))}
        if "labels" in about:
            arrays["labels"] = np.asarray(about["labels"], dtype=np.int64)
        np.savez(temporary, **arrays)
