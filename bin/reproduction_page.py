"""The page of the papers' experiments: the results in figures/results beside the published figures."""

import json
from pathlib import Path
from typing import Any

from experiments.__main__ import all_experiments, picture_of, results_of

HEAD = """# The papers' experiments

Made from `figures/results` when the documentation is built. [G] is *Two Calm Ends and the Wild Middle*, [C]
*Memorization Control in Diffusion Models from Denoising-centric Perspective* ([references](references.md)). Each
experiment is one command, `bin/reproduce NAME`, at a scale that two cores manage in an hour; none has been run yet at
the scale of the papers (`--scale paper`, which needs a GPU). A theorem, or the order of several figures, holds here or
does not; where the intervals do not settle the order, it counts as not shown. A published figure is compared with our
95% interval only if both measure the same quantity. Memorized means by the ratio rule, as in the papers; leaning, which
the rule [does not see](is-my-model-memorizing.md#what-the-rule-does-not-see), was not measured in these experiments.
"""
CREDIT = ("The digits are those of the UCI Machine Learning Repository (Alpaydin and Kaynak, *Optical Recognition of "
          "Handwritten Digits*, CC BY 4.0), as scikit-learn has them.")


def reproduction_page() -> str:
    """The whole page, in Markdown."""
    results = {path: json.loads(path.read_text(encoding="utf-8")) for experiment in all_experiments().values()
               for path in results_of(experiment).values()}
    return "\n".join([HEAD, *_contradictions(list(results.values())),
                      *(line for path, document in results.items() for line in _section(path, document))])


def _contradicts(row: dict[str, str]) -> bool:
    """Verdicts against a paper are the ones with a word in capitals; see ``experiments.bench``."""
    return any(words in row["verdict"] for words in ("DOES NOT HOLD", "NOT SHOWN", "OUTSIDE", "NOT EQUAL"))


def _contradictions(documents: list[dict[str, Any]]) -> list[str]:
    rows = [(document, row) for document in documents for row in document["compared"]]
    claims = [(document, row) for document, row in rows if _contradicts(row)]
    figures = [(document, row) for document, row in rows
               if row["verdict"].startswith(("difference", "our")) and "outside" in row["verdict"]]
    return ["## What did not come out as published\n", *map(_line, claims), "",
            "Figures outside our 95% interval, where one in twenty is expected by chance:\n", *map(_line, figures), ""]


def _line(entry: tuple[dict[str, Any], dict[str, str]]) -> str:
    document, row = entry
    return (f"- [{_named(document)}](#{_anchor(document)}), {row['quantity']}: {row['ours']}, published "
            f"{row['published']}: {row['verdict']}")


def _anchor(document: dict[str, Any]) -> str:
    letters = [letter for letter in _title(document).lower() if letter.isalnum() or letter in " -"]
    return "".join(letters).replace(" ", "-")


def _title(document: dict[str, Any]) -> str:
    return f"{_named(document)}: {document['title']}"


def _named(document: dict[str, Any]) -> str:
    """Experiment and, where it is not small, the scale."""
    return document["experiment"] + ("" if document["scale"] == "small" else f" ({document['scale']})")


def _section(path: Path, document: dict[str, Any]) -> list[str]:
    lines = [f"## {_title(document)}\n",
             f"{document['paper']}, scale {document['scale']}; settings and every number in "
             f"[{path.name}](../figures/results/{path.name}).\n",
             f"![{document['title']}](../figures/{picture_of(path).name})\n",
             "| | ours [95%] | published | |", "|---|---|---|---|"]
    for row in document["compared"]:
        cells = [row[key].replace("|", "\\|") for key in ("quantity", "ours", "published", "verdict")]
        if _contradicts(row):
            cells[-1] = f"**{cells[-1]}**"
        lines.append(f"| {' | '.join(cells)} |")
    deviations = [*document["deviations"], *([CREDIT] if "picture" in json.dumps(document["result"]) else [])]
    return [*lines, "", "What differs from the paper:\n", *(f"- {line}" for line in deviations), ""]

