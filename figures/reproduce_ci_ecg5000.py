"""Confidence intervals over timesteps on ECG5000. Reads results/reproduce_ci_ecg5000.json, computes nothing."""

from reproduce_ci import draw
from reproduce_common import save

__all__ = ["draw"]

if __name__ == "__main__":
    save(draw, "ci_ecg5000")
