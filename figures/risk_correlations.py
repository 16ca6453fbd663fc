"""What goes with the copies of a training point. Reads results/risk_*.json, computes nothing.

The result files are ``study.json`` of ``bin/risk-study``:
    bin/risk-study OUT digits --n-train 200 -- --network unet-tiny --batch 256 --iterations 700
    bin/risk-study OUT ECG5000_TRAIN.txt --n-train 200 --shuffle -- --network mlp --batch 256 --iterations 3000
    bin/risk-study OUT faces16.npz -- --network unet-tiny --batch 128 --iterations 450
faces16.npz holds the first 128 training faces and the test faces as means of 2 x 2 pixels; seed 1 was not trained
there.
"""

import json
from pathlib import Path

from geomem.plots.style import BLUE, GREEN, ORANGE, look, new_figure

HERE = Path(__file__).parent
DATA = {"digits": "digits", "ecg": "ECG5000", "faces16": "faces 16 x 16"}
OUTCOMES = {"copies": ("copies by the ratio rule", BLUE), "close_samples": ("as many, by distance alone", ORANGE),
            "nearest_samples": ("all samples nearest to it", GREEN)}
ROWS = [("planted", "score", "risk score, duplicates planted"), ("planted", "group_size", "occurrences, planted"),
        ("seed-0", "nearest_distance", "distance to nearest other"),
        ("seed-0", "neighbour_distance", "to 10th nearest"),
        ("seed-0", "sigma_half", r"$\sigma$ where weight is 1/2"), ("seed-0", "distance_to_mean", "distance to mean"),
        ("agreement", None, "the same of a second training")]
found = {name: json.loads(path.read_text()) for name in DATA
         if (path := HERE / "results" / f"risk_{name}.json").exists()}
with look():
    figure = new_figure(3.1 * len(found) + 2.2, 4.4)
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (name, study) in zip(panels, found.items(), strict=True):
        for place, (run, predictor, _) in enumerate(ROWS):
            row = study["agreement_of_two_trainings"] if run == "agreement" else \
                study["runs"][run]["correlations"][predictor]
            if row is None:  # trained once
                continue
            for shift, (outcome, (label, colour)) in zip((-0.22, 0, 0.22), OUTCOMES.items(), strict=True):
                one = row[outcome]
                axes.plot([one["low"], one["high"]], [place + shift] * 2, color=colour, lw=1.6)
                axes.plot(one["rho"], place + shift, "o", color=colour, ms=4, label=None if place else label)
        rates = [f"{study['runs'][run]['memorized']['rate']:.0%}" for run in ("seed-0", "planted")]
        axes.axvline(0, color="0.5", lw=0.8)
        axes.set(title=f"{DATA[name]}\nmemorized {rates[0]}, planted {rates[1]}", xlim=(-0.55, 0.85))
    panels[0].set(yticks=range(len(ROWS)), yticklabels=[label for *_, label in ROWS])
    panels[0].invert_yaxis()
    figure.supxlabel("Spearman's rank correlation over training points, 95% interval", fontsize=9)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
figure.savefig(HERE / "risk-correlations.png", dpi=150)
