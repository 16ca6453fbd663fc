"""Memorization and denoising error per noise level of the demo's models. Reads results/*.json, computes nothing.

The result files are ``memorization.json`` of ``bin/demo``: no gap with its last weights, with the best weights per
noise level, and with a gap.
"""

import json
from pathlib import Path

from geomem.plots import plot_noise_levels

HERE = Path(__file__).parent
NAMES = {"no-gap-last": "no gap, last weights", "no-gap-per-level": "no gap, best weights per level",
         "gap-last": "gap auto, last weights"}
documents = {name: json.loads((HERE / "results" / f"digits-{name}.json").read_text()) for name in NAMES}
rows = [(label, documents[name]["per_noise_level"]) for name, label in NAMES.items()]
rows.append(("empirical optimal", documents["no-gap-last"]["reference_denoisers"]["empirical_optimal"]))
plot_noise_levels(rows).savefig(HERE / "digits-noise-levels.png", dpi=150)
