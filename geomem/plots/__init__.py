"""Figures. Every function takes plain records or arrays and returns a matplotlib Figure; none saves it."""

from geomem._renamed import renamed
from geomem.plots.bounds import plot_bounds
from geomem.plots.curves import plot_curves
from geomem.plots.density import plot_density
from geomem.plots.forecast import plot_forecast
from geomem.plots.levels import plot_noise_levels
from geomem.plots.pareto import plot_pareto
from geomem.plots.points import plot_points
from geomem.plots.risk import plot_copies, plot_risk
from geomem.plots.samples import plot_closest, plot_samples
from geomem.plots.swap import plot_swap, plot_swap_samples
from geomem.plots.training import plot_training
from geomem.plots.watch import plot_watch

__all__ = [
    "plot_bounds",
    "plot_closest",
    "plot_copies",
    "plot_curves",
    "plot_density",
    "plot_forecast",
    "plot_noise_levels",
    "plot_pareto",
    "plot_points",
    "plot_risk",
    "plot_samples",
    "plot_swap",
    "plot_swap_samples",
    "plot_training",
    "plot_watch",
]
__getattr__ = renamed(__name__)
