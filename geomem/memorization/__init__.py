"""Did the model memorize? The ratio rule on generated samples, per noise level and per training point."""

from geomem._renamed import renamed
from geomem.memorization.copies import CopyCounts, RankCorrelation, copies_per_point, rank_correlation
from geomem.memorization.levels import PerNoiseLevel, memorization_per_noise_level
from geomem.memorization.ratio import MemorizationRate, memorization_rate, wilson_interval
from geomem.memorization.swap import PairedShareDifference, control_windows, paired_share_difference, swapped_samples
from geomem.memorization.watch import Look, Watch, default_watch_every

__all__ = [
    "CopyCounts",
    "Look",
    "MemorizationRate",
    "PairedShareDifference",
    "PerNoiseLevel",
    "RankCorrelation",
    "Watch",
    "control_windows",
    "copies_per_point",
    "default_watch_every",
    "memorization_per_noise_level",
    "memorization_rate",
    "paired_share_difference",
    "rank_correlation",
    "swapped_samples",
    "wilson_interval",
]
__getattr__ = renamed(__name__)
