"""[C] Figures 2 to 7 on Pokemon artwork; see ``confidence_intervals``."""

from experiments.confidence_intervals import SMOKE, Settings, run

__all__ = ["NAME", "PAPER", "SCALES", "TITLE", "run"]

NAME, PAPER, TITLE = "ci-pokemon", "[C] Figures 2-7, Pokemon", "confidence intervals over timesteps"
SCALES = {"smoke": SMOKE,
          "small": Settings("pokemon", 800, 216, "unet-tiny", batch=32, base_iterations=1250, tuned_iterations=750,
                            samples=500, steps=20, side=16, precision="bf16"),
          "paper": Settings("pokemon", 800, 216, "unet-small", batch=32, base_iterations=5000, tuned_iterations=750,
                            samples=1000, steps=100, side=64, precision="bf16")}
