"""[C] Figures 2 to 7 on ECG5000; see ``confidence_intervals``."""

from experiments.confidence_intervals import SMOKE, Settings, run

__all__ = ["NAME", "PAPER", "SCALES", "TITLE", "run"]

NAME, PAPER, TITLE = "ci-ecg5000", "[C] Figures 2-7, ECG5000", "confidence intervals over timesteps"
SCALES = {"smoke": SMOKE,
          "small": Settings("ecg", 500, 4500, "mlp", batch=32, base_iterations=782, tuned_iterations=469, samples=500,
                            steps=25),
          "paper": Settings("ecg", 500, 4500, "unet1d", batch=32, base_iterations=782, tuned_iterations=469,
                            samples=1000, steps=100)}
