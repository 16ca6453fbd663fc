"""Did it work? Closeness of generated samples to held-out data, and statistics over runs."""

from geomem._renamed import renamed
from geomem.quality.distances import mean_training_distance
from geomem.quality.distributions import jensen_shannon, wasserstein_1
from geomem.quality.frechet import frechet_distance
from geomem.quality.inception import InceptionFeatures, inception_features
from geomem.quality.kernel import kernel_distance
from geomem.quality.manifold import PrecisionRecall, precision_recall
from geomem.quality.metrics import METRICS, Judge, Measurement
from geomem.quality.report import QualityReport, quality_report
from geomem.quality.statistics import (
    Correlation,
    DifferenceOverSeeds,
    MeanOverRuns,
    difference_over_seeds,
    mean_over_runs,
    nested_bootstrap,
    pareto_front,
    pearson_correlation,
)

__all__ = [
    "METRICS",
    "Correlation",
    "DifferenceOverSeeds",
    "InceptionFeatures",
    "Judge",
    "MeanOverRuns",
    "Measurement",
    "PrecisionRecall",
    "QualityReport",
    "difference_over_seeds",
    "frechet_distance",
    "inception_features",
    "jensen_shannon",
    "kernel_distance",
    "mean_over_runs",
    "mean_training_distance",
    "nested_bootstrap",
    "pareto_front",
    "pearson_correlation",
    "precision_recall",
    "quality_report",
    "wasserstein_1",
]
__getattr__ = renamed(__name__)
