"""The notebooks of docs/ run from a fresh start, and what the documentation shows of them is what they write."""

import base64
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def cells(path):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def shown(path):
    """What each cell shows: its text without the numbers, which rounding may change, and "picture"."""
    return [[re.sub(r"[0-9.]+", "#", "".join(output["text"])).split() if "text" in output else "picture"
             for output in cell["outputs"]] for cell in cells(path)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_three_minutes_and_shows_what_is_stored(path, tmp_path):
    for package in set(re.findall(r"^(?:from|import) (\w+)", "\n".join("".join(cell["source"]) for cell in cells(path)),
                                  re.M)):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    subprocess.run([sys.executable, ROOT / "bin" / "run_notebooks.py", path, "--out", tmp_path], check=True,
                   timeout=180, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert shown(tmp_path / path.name) == shown(path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_ends_with_a_picture_and_is_small(path):
    outputs = [output for cell in cells(path) for output in cell["outputs"]]
    assert any("text" in output for output in outputs)
    pictures = [base64.b64decode(output["data"]["image/png"]) for output in outputs if "data" in output]
    assert pictures[-1].startswith(b"\x89PNG")
    assert cells(path)[-1]["outputs"][0]["output_type"] in ("display_data", "stream")
    assert max(map(len, pictures)) < 60_000
    assert len(cells(path)) < 12


def test_the_loop_of_monai_has_at_most_five_new_lines():
    training = "\n".join("".join(cell["source"]) for cell in cells(ROOT / "docs/notebooks/monai-volumes.ipynb")[:2])
    new = [line for line in training.splitlines() if "# new" in line]
    assert len(new) <= 5
    plain = "\n".join(line for line in training.splitlines() if line not in new)
    assert not re.search("geomem|monitor|denoiser|Denoiser", plain)
    compile(plain, "the plain loop", "exec")
