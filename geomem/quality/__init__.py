"""Did it work? Closeness of generated samples to held-out data."""

from geomem.quality.frechet import frechet_distance
from geomem.quality.report import QualityReport, quality_report

__all__ = ["QualityReport", "frechet_distance", "quality_report"]
