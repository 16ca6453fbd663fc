"""Did the model memorize? The ratio rule on generated samples and per noise level."""

from geomem.memorization.levels import PerNoiseLevel, memorization_per_noise_level
from geomem.memorization.ratio import MemorizationRate, memorization_rate, wilson_interval

__all__ = [
    "MemorizationRate",
    "PerNoiseLevel",
    "memorization_per_noise_level",
    "memorization_rate",
    "wilson_interval",
]
