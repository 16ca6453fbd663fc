"""The common look: sizes, colours and the noise-level axis.

Figures are made without pyplot, so they need no display, are never kept alive in the background, and leave
the caller's settings as they were.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike

from geomem.errors import printable

# A letter that no font has is drawn as a box; of names in other scripts there would be a warning for each letter.
warnings.filterwarnings("ignore", r"Glyph .* missing from (current )?font", UserWarning)

# seaborn's palette "colorblind", and below its style "ticks" for paper at 1.15 times its size: written out, because to
# import seaborn takes as long as to import torch.
COLOURS: list[tuple[float, float, float]] = [to_rgb(f"#{colour}") for colour in (
    "0173b2", "de8f05", "029e73", "d55e00", "cc78bc", "ca9161", "fbafe4", "949494", "ece133", "56b4e9")]
LOOK: dict[Any, Any] = {
    "text.color": "0.15", "axes.labelcolor": "0.15", "axes.edgecolor": "0.15", "xtick.color": "0.15",
    "ytick.color": "0.15", "figure.facecolor": "white", "axes.facecolor": "white", "patch.edgecolor": "white",
    "patch.force_edgecolor": True, "axes.axisbelow": True, "lines.solid_capstyle": "round",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["Arial", "DejaVu Sans", "Liberation Sans", "Bitstream Vera Sans", "sans-serif"],
    **dict.fromkeys(["font.size", "axes.labelsize", "axes.titlesize", "legend.title_fontsize"], 11.04),
    **dict.fromkeys(["xtick.labelsize", "ytick.labelsize", "legend.fontsize"], 10.12),
    **dict.fromkeys(["axes.linewidth", "xtick.major.width", "ytick.major.width"], 1.0),
    **dict.fromkeys(["grid.linewidth", "patch.linewidth", "xtick.minor.width", "ytick.minor.width"], 0.8),
    **dict.fromkeys(["lines.markersize", "xtick.major.size", "ytick.major.size"], 4.8),
    **dict.fromkeys(["xtick.minor.size", "ytick.minor.size"], 3.2), "lines.linewidth": 1.2,
}
BLUE, ORANGE, GREEN = COLOURS[:3]
RED = "#c8001e"
GREY = "0.45"
SIGMA_LABEL = r"noise level $\sigma$ (data units)"


class _HasToDict(Protocol):
    def to_dict(self) -> dict[str, Any]: ...


Record = Mapping[str, Any] | _HasToDict  # a result of the library, or its ``to_dict()`` as a file holds it


def fields(record: Record) -> Mapping[str, Any]:
    """What a record holds, by name."""
    return record if isinstance(record, Mapping) else record.to_dict()


def zone_edges(zone: Any) -> tuple[float, float] | None:
    """(low, high) of a danger zone, of its mapping or of a pair; None for none."""
    if zone is None:
        return None
    if isinstance(zone, Mapping):
        return zone["sigma_low"], zone["sigma_high"]
    return (zone.sigma_low, zone.sigma_high) if hasattr(zone, "sigma_low") else tuple(zone)


@contextmanager
def look() -> Iterator[None]:
    """Fonts, grid and line widths for what is drawn inside."""
    settings = LOOK | {"axes.grid": True, "grid.color": "0.92", "axes.spines.top": False, "axes.spines.right": False,
                       "legend.frameon": False, "svg.fonttype": "none", "pdf.fonttype": 42}
    with matplotlib.rc_context(settings):
        yield


def plain(text: str) -> str:
    """Text from elsewhere, a name above all, as it is: a dollar sign begins no formula, and nothing is unprintable."""
    return printable(text).replace("$", r"\$")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, size in inches."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def curve(axes: Axes, x: ArrayLike, y: ArrayLike, low: ArrayLike | None = None,
          high: ArrayLike | None = None, *, colour: Any, style: str = "-", label: str | None = None,
          width: float = 1.8) -> None:
    """A measured curve with its 95% band; ``name_bands`` puts all of them into the legend."""
    axes.plot(x, y, style, color=colour, lw=width, ms=3, label=label)
    if low is not None and high is not None:
        axes.fill_between(x, low, high, color=colour, alpha=0.22, lw=0 if np.size(x) > 1 else 6)  # one point: a bar


def name_bands(axes: Axes) -> None:
    """Intervals in the legend, as one entry for those of all colours."""
    axes.fill([], [], color=GREY, alpha=0.35, lw=0, label="95% intervals")


def sigma_axis(axes: Axes) -> None:
    """Logarithmic noise levels below, written as plain numbers."""
    axes.set(xscale="log", xlabel=SIGMA_LABEL)
    axes.xaxis.set_major_formatter("{x:g}")


def plain_log_axis(axis: Axis) -> None:
    """Ticks of a logarithmic axis, as many as its limits have room for, written as plain numbers."""
    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    axis.set_major_locator(MaxNLocator(5) if decades < 1 else LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
