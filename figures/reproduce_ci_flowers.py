"""Confidence intervals over timesteps on Flowers-102. Reads results/reproduce_ci_flowers.json, computes nothing."""

from reproduce_ci import draw
from reproduce_common import save

__all__ = ["draw"]

if __name__ == "__main__":
    save(draw, "ci_flowers")
