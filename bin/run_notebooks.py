"""Runs notebooks and stores what they print and draw: ``bin/notebooks [FILE...]``, by default all of docs/notebooks.

Each runs in a process of its own and in an empty folder, cell after cell, as Jupyter would run it, which is not needed.
Kept of each cell: what it prints, the figures of pyplot that it leaves open, and its last value where that is a figure.
With ``--out DIR`` the files are written there, and those of the repository stay as they are.
"""

import argparse
import ast
import base64
import contextlib
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"


def picture(figure) -> dict:
    """A figure as an output of a cell."""
    file = io.BytesIO()
    figure.savefig(file, dpi=100, bbox_inches="tight")
    return {"output_type": "display_data", "metadata": {},
            "data": {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": ["<Figure>"]}}


def outputs_of(source: str, names: dict, where: str) -> list[dict]:
    """Run one cell in the namespace ``names``; what it printed and drew, in Jupyter's form."""
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

    tree = ast.parse(source, where)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, where, "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), where, "eval"), names)
    text = printed.getvalue()
    outputs = [{"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)}] if text else []
    figures = [plt.figure(number) for number in plt.get_fignums()]
    outputs += [picture(figure) for figure in figures]
    plt.close("all")
    return outputs + ([picture(value)] if isinstance(value, Figure) and value not in figures else [])


def run(path: Path, out: Path) -> None:
    """Run a notebook in the working folder, and write it with its outputs to ``out``."""
    import matplotlib

    matplotlib.use("agg")
    notebook, names = json.loads(path.read_text(encoding="utf-8")), {"__name__": "__main__"}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(code, start=1):
        cell["outputs"] = outputs_of("".join(cell["source"]), names, f"{path.name}, cell {number}")
        cell["execution_count"] = number
    out.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, help="folder of the results; by default each file is overwritten")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for path in [path.resolve() for path in options.notebooks or sorted(NOTEBOOKS.glob("*.ipynb"))]:
        out = (options.out or path.parent).resolve() / path.name
        if options.here:
            run(path, out)
            continue
        print(path.name, file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, __file__, path, "--out", out.parent, "--here"], cwd=folder, check=True)


if __name__ == "__main__":
    main()
