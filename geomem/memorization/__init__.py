"""Did the model memorize? The ratio rule on generated samples, per noise level and per training point."""

from geomem.memorization.copies import CopyCounts, RankCorrelation, copies_per_point, rank_correlation
from geomem.memorization.levels import PerNoiseLevel, memorization_per_noise_level
from geomem.memorization.ratio import MemorizationRate, memorization_rate, wilson_interval

__all__ = [
    "CopyCounts",
    "MemorizationRate",
    "PerNoiseLevel",
    "RankCorrelation",
    "copies_per_point",
    "memorization_per_noise_level",
    "memorization_rate",
    "rank_correlation",
    "wilson_interval",
]
