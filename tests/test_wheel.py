"""The package as people get it: a wheel in an empty environment, far from any checkout."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def built_wheel(folder):
    """A wheel of the checkout, built from a copy so that nothing is left in it."""
    source = folder / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("geomem", "data_recipes"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source],
                   check=True)
    return next(folder.glob("geomem-*.whl"))


@pytest.mark.slow
def test_a_wheel_in_an_empty_environment_finds_the_zone_of_the_digits(tmp_path):
    """Without extras: pip install geomem is all that a newcomer does. The zone is that of the checkout."""
    wheel = built_wheel(tmp_path)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    install = [tmp_path / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    subprocess.run([*install, "torch"], check=True)
    subprocess.run([*install, wheel], check=True)
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command):
        return subprocess.run(command, cwd=outside, env=environment, check=True, capture_output=True, text=True).stdout

    here = run(tmp_path / "venv" / "bin" / "python", "-c", "import geomem; print(geomem.__file__)")
    assert Path(here.strip()).is_relative_to(tmp_path / "venv")
    found = json.loads(run(tmp_path / "venv" / "bin" / "geomem", "danger-zone", "digits", "--json"))
    environment["PYTHONPATH"] = str(ROOT)
    expected = json.loads(run(sys.executable, "-m", "geomem", "danger-zone", "digits", "--json"))
    assert found["data"] == expected["data"]
    assert found["zone"]["sigma_low"] == pytest.approx(expected["zone"]["sigma_low"], rel=1e-6)
    listed = run(tmp_path / "venv" / "bin" / "python", "-m", "zipfile", "-l", wheel)
    assert "geomem/py.typed" in listed
    assert "tests/" not in listed
