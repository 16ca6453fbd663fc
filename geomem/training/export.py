"""Export of a run: a folder for diffusers where its pipeline can hold the model, else a small run directory.

A run directory made here holds config.json, the chosen weights (per noise level: each distinct snapshot once, with
levels.json), and a README.md with the lines that sample from it. It gives name and hash of the training data, no paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.files import atomic_directory, write_json, write_text
from geomem.models.diffusers_folder import can_be_pipeline, save_pipeline
from geomem.models.weights import read_tensors, write_tensors
from geomem.training.run import DIFFUSERS, Run

DIFFUSERS_README = """# {name}

A diffusion model that geomem trained: UNet2DModel, {objective} objective, weights `{weights}`.

```python
from diffusers import DDPMPipeline

pipeline = DDPMPipeline.from_pretrained("PATH_OF_THIS_FOLDER")
images = pipeline(batch_size=4).images
```

Training data: {data}.
"""

GEOMEM_README = """# {name}

A denoiser that geomem trained: {network}, {objective} objective, weights `{weights}`.

```python
import numpy as np

import geomem
from geomem.generation import generate

model = geomem.load_denoiser("PATH_OF_THIS_FOLDER")
samples = generate(model.denoiser, range(16), model.shape{labels})  # float32, in the scale of the training data
np.savez("samples.npz", samples=samples)
```

or `geomem generate PATH_OF_THIS_FOLDER --out samples.npz`. `model.denoiser(x, sigma)` is the estimate of the clean
point of `x = clean + sigma * noise`{conditional}.

Training data: {data}.
"""


def export_run(run: Run, out: str | Path, *, weights: str | None = None, form: str = "auto",
               bf16: bool = False) -> tuple[str, str]:
    """Write ``run`` to the new directory ``out``; returns its form, ``diffusers`` or ``geomem``, and its weights.

    ``weights``: as ``Run.denoiser`` takes them; by default the best that the form can hold (one set for diffusers, per
    level else), or where the run kept none those from before the copies, or the last. ``form``: ``auto`` takes
    diffusers where its DDPMPipeline can hold the model. ``bf16`` halves the files and rounds the weights to 8 bits of
    mantissa. Raises InputError where ``out`` exists, or the run cannot take the form asked for.
    """
    if run.folds is not None:
        raise InputError(f"{run.path} is cross-fitted: its networks are routed by the training points, so it serves to "
                         "publish samples and not the model itself; export a run that was trained without --folds")
    out = Path(out)
    if out.exists():
        raise InputError(f"--out {out} exists; choose a directory that does not")
    config = run.config
    shape = tuple(config["shape"])
    reason = can_be_pipeline(run.outline(), shape)
    if weights == "per-level" and reason is None:
        reason = "a pipeline holds one set of weights, not one per noise level"
    if form == "diffusers" and reason is not None:
        raise InputError(f"{run.path} cannot be exported for diffusers: {reason}; use --form geomem")
    form = ("geomem" if reason else "diffusers") if form == "auto" else form
    weights = weights or (run.weights_without_levels if run.levels is None else
                          "per-level" if form == "geomem" else "early-stop")
    data, classes = config["data"], len(config.get("labels") or ())
    about = {"name": out.name, "weights": weights, "network": config["network"],
             "objective": {"flow": "flow-matching"}.get(config["objective"], config["objective"].upper()),
             "labels": f", labels=np.arange(16) % {classes}" if classes else "",  # the null class was never trained
             "conditional": "; `model.denoiser(x, sigma, classes)` knows the classes too, integers 0 to "
                            f"{classes - 1} of shape (B,). Class k is the label `model.labels[k]` of the data"
                            if classes else "",
             "data": f"{data.get('name', 'unnamed')} (sha256 {data.get('sha256', 'unknown')})"}
    dtype = torch.bfloat16 if bf16 else torch.float32
    if form == "diffusers":
        denoiser: Any = run.denoiser(weights)
        save_pipeline(out, denoiser.to(dtype), shape, DIFFUSERS_README.format(**about),
                      config["diffusers"]["scheduler"] if config["network"] == DIFFUSERS else None)
        return form, weights
    levels = run.levels if weights == "per-level" else None

    def write(path: Path, tensors: Mapping[str, Tensor]) -> None:
        write_tensors(path, {name: tensor.to(dtype) for name, tensor in tensors.items()})

    with atomic_directory(out) as temporary:
        write_json(temporary / "config.json", {
            **config, "data": {name: data[name] for name in ("name", "sha256") if name in data}, "init": None,
            **({"distilled": {**config["distilled"], "from": None}} if "distilled" in config else {})})
        if levels is None:
            write(temporary / "model.safetensors", run.denoiser_of_classes(weights).state_dict())
        else:
            for step in {*levels["steps"], levels["early_stop"]}:
                write(Run(temporary).snapshot_path(step), read_tensors(run.snapshot_path(step)))
            write_json(temporary / "levels.json", levels)
        write_text(temporary / "README.md", GEOMEM_README.format(**about))
    return form, weights
