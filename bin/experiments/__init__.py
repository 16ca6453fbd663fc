"""The experiments of the two papers in four scales (``bin/reproduce --list``).

[G] is arXiv 2602.17846, [C] is arXiv 2601.21348. Each is an ``Experiment`` of a module here: one frozen record of
settings per scale, ``run(bench, settings)``, which gives what was found, ours beside the published figures, and every
deviation, and ``draw(document)``, its picture. All of the science is geomem's.

    smoke   seconds, on digits: that the experiment runs; its figures say nothing about the papers
    small   two cores, under an hour, on real data in sizes cut down
    medium  hours on two cores: images of 32 x 32 as in the papers, still few of them and a small network
    paper   the sizes of the papers; most need a GPU
"""

MODULES = ("weight_and_coverage", "bounds_against_coverage", "self_weight", "concentration", "flow_cosine", "denoising",
           "swapped_windows", "one_step", "dummy_and_gap", "timestep_gaps", "gap_samples", "confidence_intervals")
RESULTS = (*MODULES[:-1], "ci_ecg5000", "ci_pokemon", "ci_flowers")  # files figures/results/reproduce_*.json, in order
