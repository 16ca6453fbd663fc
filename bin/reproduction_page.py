"""The page of the papers' experiments: the results in figures/results beside the published figures."""

import json
from pathlib import Path
from typing import Any

from experiments.__main__ import all_experiments, picture_of, results_of

TITLE = "# The papers' experiments\n"
HEAD = """Made from `figures/results` when the documentation is built. [G] is *Two Calm Ends and the Wild Middle*, [C]
*Memorization Control in Diffusion Models from Denoising-centric Perspective* ([references](references.md)). Each
experiment is one command, `bin/reproduce NAME --scale SCALE`: `small` takes two cores an hour at most, `medium` some
hours, for images of 32 x 32 as in the papers, and `paper` has the papers' sizes, for which most need a GPU. A theorem,
or the order of several figures, holds here or does not; where the intervals do not settle the order, it counts as not
shown. A published figure is compared with our 95% interval only if both measure the same quantity. Memorized means by
the ratio rule, as in the papers; leaning, which the rule [does not
see](is-my-model-memorizing.md#what-the-rule-does-not-see), was measured at the scales medium and paper.
"""
COPIED = 0.75  # memorized share that [G]'s baselines reach
WORDS = {"baseline": "no gap", "gap": "gap", "gap-auto": "`--gap auto`"}
CREDIT = ("The digits are those of the UCI Machine Learning Repository (Alpaydin and Kaynak, *Optical Recognition of "
          "Handwritten Digits*, CC BY 4.0), as scikit-learn has them.")


def reproduction_page() -> str:
    """The whole page, in Markdown."""
    results = {path: json.loads(path.read_text(encoding="utf-8")) for experiment in all_experiments().values()
               for path in results_of(experiment).values()}
    documents = list(results.values())
    return "\n".join([TITLE, *_verdict(documents), HEAD, *_contradictions(documents),
                      *(line for path, document in results.items() for line in _section(path, document))])


def _verdict(documents: list[dict[str, Any]]) -> list[str]:
    """On section 5 of [G], from Figure 4 at every scale that was run."""
    lines, kept = [], []
    for document in documents:
        if document["experiment"] != "dummy-and-gap":
            continue
        settings, methods = document["settings"], document["result"]["methods"]
        reached = next((k for k, row in enumerate(methods["baseline"]) if row["memorized"] >= COPIED), None)
        places = sorted({place % settings["checkpoints"] for place in (reached, -1) if place is not None})
        lines.append(f"- {settings['n_train']:,} cars of {settings['side']} x {settings['side']}, one seed, "
                     f"{settings['samples']:,} samples: " + "; ".join(
                         f"step {methods['baseline'][k]['step']:,}: " + ", ".join(
                             f"{WORDS[name]} {_share(rows[k])}" for name, rows in methods.items() if name in WORDS)
                         for k in places))
        kept += [methods["gap"][k]["memorized"] / methods["baseline"][k]["memorized"] for k in places]
    told = "It did not" if min(kept) > .5 else "It did" if max(kept) < .1 else "It depends"
    return ["**Does leaving out the danger zone prevent copies, as section 5 of [G] has it (Figure 4: 0.7% of the "
            f"samples with the gap, 78.8% without)? {told} here.** Where the baseline first copies {COPIED:.0%}, and "
            "at the end:\n", *lines, "",
            "The wider range that `--gap auto` leaves out delays copies, and costs quality. Networks, steps and "
            "numbers of images are smaller than in [G], whose batch size and gap are not published.\n"]


def _share(row: dict[str, Any]) -> str:
    copied = f"{row['memorized']:.1%} [{row['low']:.1%}, {row['high']:.1%}]"
    if "leaning" not in row:
        return copied
    leaning = row["leaning"]
    return copied + f" (nearer to training {leaning['share']:.0%} [{leaning['low']:.0%}, {leaning['high']:.0%}])"


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

