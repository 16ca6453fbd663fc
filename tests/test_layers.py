"""Data flows one way: no room imports one that comes after it, and nothing heavy loads before it is needed."""

import ast
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import geomem
from geomem.cli.main import cli

PACKAGE = Path(geomem.__file__).parent
ORDER = ["_renamed", "errors", "rng", "files", "devices", "processes", "points", "duplicates", "scales", "statistics",
         "data", "geometry", "noise", "models", "features", "theory", "generation", "memorization", "quality",
         "run_audit", "training", "plots", "report", "integrations", "run_training", "run_forecast", "cli"]
HEAVY = {"torch", "faiss", "seaborn", "matplotlib", "datasets", "diffusers", "sklearn", "scipy", "pandas",
         "transformers", "lightning", "accelerate", "torchmetrics", "peft"}


def imports(path):
    """Modules named in a file of the package, imports inside functions included."""
    return named_in(path, ".".join(["geomem", *path.relative_to(PACKAGE).parent.parts]))


def named_in(path, package=""):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], base])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def room_of(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "geomem" and parts[1] in ORDER else None


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem in ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_points_upward(path):
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    used = {room_of(module) for module in imports(path)} - {None}
    upward = {room for room in used if ORDER.index(room) > ORDER.index(here)}
    if path.relative_to(PACKAGE) == Path("noise/danger_zone.py"):
        upward -= {"plots"}  # of ZoneReport.plot, when it is called
    assert not upward, f"{here} imports {upward}"


OUTSIDE = [path for folder in ("geomem", "bin", "figures") for path in sorted((PACKAGE.parent / folder).rglob("*.py"))
           if path.parent != PACKAGE / "cli" and path.parent.name != "__pycache__"]


def test_only_the_program_itself_imports_the_command_line():
    users = {str(path.relative_to(PACKAGE.parent)) for path in OUTSIDE
             if any(module == "geomem.cli" or module.startswith("geomem.cli.") for module in named_in(path))}
    assert users == {"geomem/__main__.py"}


def test_every_room_is_in_the_order_and_in_the_wheel():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"data_recipes"}
    assert rooms <= set(ORDER)
    text = (PACKAGE.parent / "setup.cfg").read_text()
    listed = text.split("packages =")[1].split("package_dir")[0].split()
    assert set(listed) == {"geomem", "geomem.data_recipes"} | {f"geomem.{room}" for room in rooms}


def test_only_neighbours_imports_faiss():
    users = [path.name for path in FILES if any(module.split(".")[0] == "faiss" for module in imports(path))]
    assert users == ["neighbours.py"]


def loaded_by(code):
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    return set(json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                                         check=True).stdout.splitlines()[-1]))


@pytest.mark.parametrize("code", ["import geomem", "import geomem.cli.main", "import geomem.data",
                                  "import geomem; dir(geomem)"])
def test_light_imports(code):
    assert not loaded_by(code) & HEAVY


@pytest.mark.parametrize(("out", "unneeded"), [
    ("", {"matplotlib"}), ("'--out', {out!r}", set())], ids=["printed", "drawn"])
def test_danger_zone_loads_nothing_that_it_does_not_need(tmp_path, out, unneeded):
    code = ("from geomem.cli.main import main\nmain(['danger-zone', 'digits', '--n-train', '50', '--sigmas', '5', "
            + out.format(out=str(tmp_path / "zone")) + "])")
    assert not loaded_by(code) & ({"diffusers", "datasets", "seaborn", "pandas", "transformers"} | unneeded)


def test_help_answers_at_once():
    """In processor time, which other work on the machine prolongs less than time on the clock; the best of five."""
    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "geomem", "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert any(seconds() < 0.5 for _ in range(5))


MISSPELT = {"danger-zone": "digts", "bounds": "digts", "risk": "digts", "train": "digts --out run",
            "forecast": "digts --out run", "memorization": "run --data digts", "audit": "run --data digts",
            "swap": "run gaussian --data digts", "quality": "s.npz --data digts",
            "distil": "run --data digts --out new", "generate": "run --data digts --out s.npz",
            "report": "run --data digts --out page.html", "data show": "digts"}


def test_a_misspelt_data_set_is_refused_before_anything_heavy_is_loaded():
    take_data = {name for name, command in cli.commands.items() if "data" in {param.name for param in command.params}}
    assert take_data | {"data show"} == set(MISSPELT)
    commands = [f"{name} {rest}".split() for name, rest in [*MISSPELT.items(), ("risk", "digits --heldout digts")]]
    code = f"""
from geomem.cli.main import main
for arguments in {commands}:
    try:
        main(arguments)
    except SystemExit as stop:
        assert stop.code == 2
    else:
        raise AssertionError(arguments)
"""
    assert not loaded_by(code) & HEAVY


def test_public_names_exist():
    for name in geomem.__all__:
        assert getattr(geomem, name) is not None
    with pytest.raises(AttributeError):
        geomem.nothing_of_that_name  # noqa: B018


def test_type_checkers_see_the_public_names():
    """The names loaded on first use are those imported where only type checkers look, from the same places."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {alias.asname: node.module for node in block.body for alias in node.names if alias.name == alias.asname}
    assert seen == geomem._HOME
    assert (PACKAGE / "py.typed").exists()
