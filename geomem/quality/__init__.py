"""Did it work? Closeness of generated samples to held-out data."""

from geomem._renamed import renamed
from geomem.quality.distances import mean_training_distance
from geomem.quality.distributions import jensen_shannon, wasserstein_1
from geomem.quality.frechet import frechet_distance
from geomem.quality.inception import InceptionFeatures, inception_features
from geomem.quality.kernel import kernel_distance
from geomem.quality.manifold import PrecisionRecall, precision_recall
from geomem.quality.metrics import METRICS, Judge, Measurement
from geomem.quality.report import QualityReport, quality_report

__all__ = [
    "METRICS",
    "InceptionFeatures",
    "Judge",
    "Measurement",
    "PrecisionRecall",
    "QualityReport",
    "frechet_distance",
    "inception_features",
    "jensen_shannon",
    "kernel_distance",
    "mean_training_distance",
    "precision_recall",
    "quality_report",
    "wasserstein_1",
]
__getattr__ = renamed(__name__)
