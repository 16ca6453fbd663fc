"""Did the model memorize? The ratio rule on generated samples, per noise level and per training point."""

from geomem._renamed import renamed
from geomem.memorization.classes import ClassResult, by_class
from geomem.memorization.copies import CopyCounts, copies_per_point
from geomem.memorization.leaning import Leaning, leaning
from geomem.memorization.levels import PerNoiseLevel, memorization_per_noise_level
from geomem.memorization.membership import Membership, membership
from geomem.memorization.near_copies import NearCopies, near_copies
from geomem.memorization.peers import auth_pct, c_t
from geomem.memorization.ratio import MemorizationRate, heldout_rate, memorization_rate
from geomem.memorization.risk import RiskReport, risk_report
from geomem.memorization.swap import control_windows, swapped_samples
from geomem.memorization.views import Views
from geomem.memorization.watch import LeaningCheck, MemorizationCheck, Watch, default_watch_every

__all__ = [
    "ClassResult",
    "CopyCounts",
    "Leaning",
    "LeaningCheck",
    "Membership",
    "MemorizationCheck",
    "MemorizationRate",
    "NearCopies",
    "PerNoiseLevel",
    "RiskReport",
    "Views",
    "Watch",
    "auth_pct",
    "by_class",
    "c_t",
    "control_windows",
    "copies_per_point",
    "default_watch_every",
    "heldout_rate",
    "leaning",
    "membership",
    "memorization_per_noise_level",
    "memorization_rate",
    "near_copies",
    "risk_report",
    "swapped_samples",
]
__getattr__ = renamed(__name__)
