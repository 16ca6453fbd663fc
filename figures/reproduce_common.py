"""What the pictures of bin/reproduce share: reading the result file, saving the picture, the line under the title."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

HERE = Path(__file__).parent


def save(draw: Callable[[Mapping[str, Any]], Figure], name: str) -> None:
    """Draw results/reproduce_NAME.json, which is OUT/EXPERIMENT.json of bin/reproduce, to reproduce-NAME.png."""
    document = json.loads((HERE / "results" / f"reproduce_{name}.json").read_text())
    draw(document).savefig(HERE / f"reproduce-{name.replace('_', '-')}.png", dpi=150)


def caption(document: Mapping[str, Any], text: str) -> str:
    """Paper, scale and what is specific to the picture."""
    return f"{document['paper']}, scale {document['scale']}: {text}"
