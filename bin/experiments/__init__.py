"""The experiments of the two papers, one module each, in three scales (``bin/reproduce --list``).

[G] is arXiv 2602.17846, [C] is arXiv 2601.21348. A module has one frozen record of settings per scale in ``SCALES``,
and ``run(bench, settings)``, which gives what was found, ours beside the published figures, and every deviation.
All of the science is geomem's: models are trained by ``geomem train`` and judged by geomem's functions.

    smoke   seconds, on digits: that the experiment runs; its figures say nothing about the papers
    small   two cores, under an hour, on real data in sizes cut down
    paper   the sizes of the papers; needs a GPU
"""

MODULES = ("weight_and_coverage", "bounds_against_coverage", "self_weight", "concentration", "flow_cosine", "denoising",
           "swapped_windows", "one_step", "dummy_and_gap", "timestep_gaps", "gap_samples", "ci_ecg5000", "ci_pokemon",
           "ci_flowers")
