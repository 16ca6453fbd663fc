"""Figure of the README: the two curves of 200 digits. Reads results/digits-danger-zone.json, computes nothing.

The result file is ``danger-zone.json`` of ``geomem danger-zone digits --n-train 200 --out DIR``.
"""

import json
from pathlib import Path

from geomem.plots import plot_curves

HERE = Path(__file__).parent
document = json.loads((HERE / "results" / "digits-danger-zone.json").read_text())
plot_curves([("digits", document)], title="200 digits").savefig(HERE / "digits-curves.png", dpi=150)
