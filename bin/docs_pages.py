"""Hooks of mkdocs: pages made from code and results, and formulas as MathML, which browsers show without a script."""

import base64
import html
import json
import re
import subprocess
import sys
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from names_page import names_page
from reproduction_page import reproduction_page

import geomem

ROOT = Path(__file__).parents[1]
API = """# Python API

Arrays may be NumPy or torch. A wrong argument raises `InputError`, a `ValueError` with one line that says what to do.
These names import from `geomem` itself; the other pages list what each package offers.

| name | package |
|---|---|
"""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    config.nav.append({"Python API": list(api_pages())})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not kept in docs/, and the figures with their results."""
    made = {"reproduction.md": reproduction_page(), "hostile-input.md": hostile_page(), "names.md": names_page(),
            **api_pages()}
    notebooks = {path.stem: notebook_page(path) for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))}
    made["gallery.md"] = gallery(notebooks)
    for name, (text, pictures) in notebooks.items():
        made[f"notebooks/{name}.md"] = text
        for number, picture in enumerate(pictures):
            files.append(File.generated(config, f"notebooks/{name}-{number}.png", content=picture))
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    for path in [*(ROOT / "figures").glob("*.png"), *(ROOT / "figures").glob("results/*.json")]:
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def hostile_page() -> str:
    """What the tests of hostile input try."""
    return subprocess.run([sys.executable, ROOT / "tests" / "hostile_inputs.py"], check=True, capture_output=True,
                          text=True).stdout


def notebook_page(path: Path) -> tuple[str, list[bytes]]:
    """A notebook as Markdown, with what its cells wrote when it was run last (``bin/notebooks``), and its pictures."""
    parts, pictures = [], []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            if "text" in output:
                parts.append(f"```text\n{''.join(output['text'])}```")
            else:
                parts.append(f"![Picture {len(pictures) + 1}]({path.stem}-{len(pictures)}.png)")
                pictures.append(base64.b64decode(output["data"]["image/png"]))
    parts.append(f"[This page as a notebook]({path.name})")
    return "\n\n".join(parts) + "\n", pictures


def gallery(notebooks: dict[str, tuple[str, list[bytes]]]) -> str:
    """Title, first paragraph and last picture of each notebook."""
    entries = []
    for name, (text, pictures) in notebooks.items():
        title, paragraph = text.split("\n\n")[:2]
        entries.append(f"#{title.replace('# ', '# [', 1)}](notebooks/{name}.md)\n\n{paragraph}\n\n"
                       f"[![Last picture](notebooks/{name}-{len(pictures) - 1}.png)](notebooks/{name}.md)\n")
    return "# Gallery\n\nNotebooks that stand alone, and that the tests run.\n\n" + "\n".join(entries)


def api_pages() -> dict[str, str]:
    """One page for each package with public names, and the list of those that ``geomem`` itself exports."""
    rooms = {path.parent.name for path in (ROOT / "geomem").glob("*/__init__.py")} - {"cli"}
    rooms |= {home.split(".")[1] for home in geomem._HOME.values()} | {"points", "statistics"}
    pages = {f"api/{name}.md": f"# geomem.{name}\n\n::: geomem.{name}\n" for name in sorted(rooms)}
    rows = []
    for name, home in sorted(geomem._HOME.items()):
        package = home.split(".")[1]
        target = f"{home}.{name}"
        if (ROOT / "geomem" / package / f"{name}.py").exists():  # its module has the same name and hides it
            module = f"geomem.{package}.{name}"
            target = f"{module}.{name}"
            pages[f"api/{package}.md"] += f"\n## {module}\n\n::: {module}\n"
        rows.append(f"| [`{name}`][{target}] | `geomem.{package}` |\n")
    return {"api/index.md": API + "".join(rows), **pages}


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Pages name figures by their place in the repository, where they are read too."""
    return markdown.replace("](../figures/", "](figures/")


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Formulas that arithmatex has marked become MathML."""
    content = re.sub(r'<span class="arithmatex">\\\((.*?)\\\)</span>', lambda found: mathml(found[1], "inline"),
                     content, flags=re.S)
    return re.sub(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', lambda found: mathml(found[1], "block"),
                  content, flags=re.S)


def mathml(formula: str, display: str) -> str:
    return convert(html.unescape(formula), display=display)
