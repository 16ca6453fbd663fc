"""Did it work? Closeness of generated samples to held-out data."""

from geomem._renamed import renamed
from geomem.features.inception import InceptionFeatures, inception_features
from geomem.quality.comparison import Comparison, compare_samples
from geomem.quality.distributions import jensen_shannon, mean_training_distance, wasserstein_1
from geomem.quality.frechet import frechet_distance, mifid
from geomem.quality.kernel import kernel_distance
from geomem.quality.manifold import PrecisionRecall, precision_recall
from geomem.quality.metrics import METRICS, Judge, Measurement
from geomem.quality.report import QualityReport, quality_report
from geomem.quality.swaps import SwapTable, named_window, swap_experiment, swap_rows

__all__ = [
    "METRICS",
    "Comparison",
    "InceptionFeatures",
    "Judge",
    "Measurement",
    "PrecisionRecall",
    "QualityReport",
    "SwapTable",
    "compare_samples",
    "frechet_distance",
    "inception_features",
    "jensen_shannon",
    "kernel_distance",
    "mean_training_distance",
    "mifid",
    "named_window",
    "precision_recall",
    "quality_report",
    "swap_experiment",
    "swap_rows",
    "wasserstein_1",
]
__getattr__ = renamed(__name__)
