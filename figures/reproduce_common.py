"""What the pictures of bin/reproduce share: reading the result file, saving the picture, the line under the title."""

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

HERE = Path(__file__).parent


def save(draw: Callable[[Mapping[str, Any]], Figure], name: str) -> None:
    """Draw results/reproduce_NAME.json, which is OUT/EXPERIMENT.json of bin/reproduce, to reproduce-NAME.png."""
    document = json.loads((HERE / "results" / f"reproduce_{name}.json").read_text())
    draw(document).savefig(HERE / f"reproduce-{name.replace('_', '-')}.png", dpi=150)


def caption(document: Mapping[str, Any], text: str) -> str:
    """Paper, scale and what is specific to the picture."""
    return f"{document['paper']}, scale {document['scale']}: {text}"


def images_of(settings: Mapping[str, Any]) -> str:
    """What was trained on."""
    return f"{settings['n_train']:,} images of {settings['data']}, {settings['side']} x {settings['side']}, one seed"


def shown(axes: Axes, picture: str, rows: Sequence[str] | int) -> None:
    """A grid of images, a PNG in base64, with the names of its rows, or without where only their number is given."""
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.grid(False)
    axes.set_xticks([])
    if isinstance(rows, int):
        axes.set_yticks([])
    else:
        height = len(image) / len(rows)
        axes.set_yticks([height * (k + .5) for k in range(len(rows))], rows, fontsize=7)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
