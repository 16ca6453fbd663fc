"""[C] Figures 2 to 7 on Flowers-102; see ``confidence_intervals``."""

from experiments.confidence_intervals import SMOKE, Settings, run

__all__ = ["NAME", "PAPER", "SCALES", "TITLE", "run"]

NAME, PAPER, TITLE = "ci-flowers", "[C] Figures 2-7, Flowers", "confidence intervals over timesteps"
SCALES = {"smoke": SMOKE,
          "small": Settings("flowers", 1000, 400, "unet-tiny", batch=32, base_iterations=1563, tuned_iterations=938,
                            samples=500, steps=20, side=16, precision="bf16"),
          "paper": Settings("flowers", 6149, 2040, "unet-small", batch=64, base_iterations=20_000,
                            tuned_iterations=2900, samples=1000, steps=100, side=64, precision="bf16")}
