"""Denoising error and memorization per noise level. Reads results/reproduce_denoising.json, computes nothing."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from reproduce_common import caption, save

from geomem.plots import plot_noise_levels


def draw(document: Mapping[str, Any]) -> Figure:
    """Few images, many images, and the empirical optimal denoiser of the few."""
    pair, levels = document["settings"]["pair"], document["result"]["levels"]
    figure = plot_noise_levels([*((f"{pair[name]:,} images", levels[name]) for name in ("few", "many")),
                                ("empirical optimal", levels["empirical"])], zone=document["result"]["zone"])
    figure.suptitle(caption(document, f"{pair['data']} {pair['side']} x {pair['side']}"), fontsize=10)
    return figure


if __name__ == "__main__":
    save(draw, "denoising")
