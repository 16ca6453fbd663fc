"""The tests of an audit: what each measurement says for or against a model that owes nothing to its training points.

Each has a p value for such a model, and a sentence. ``smallest_effect`` is what it would have found with probability
``POWER``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import betaincinv
from scipy.stats import norm

from geomem.errors import counted
from geomem.memorization.classes import ClassResult
from geomem.memorization.leaning import Leaning
from geomem.memorization.membership import Membership
from geomem.memorization.near_copies import NearCopies, p_value_of
from geomem.memorization.ratio import MemorizationRate
from geomem.memorization.views import in_words
from geomem.statistics import excess_p_value

POWER = 0.9


@dataclass(frozen=True)
class AuditTest:
    """One test. finding: ``copies`` or ``leans``, what it shows where it fires. p_value: of a model that owes nothing;
    fires: whether it is at most the level of each test of the audit.

    smallest_effect: what the test would have found with 90% probability, a share of samples (``ratio_rule``,
    ``mirrored``, ``near_copies``), a leaning or an AUC; of tests by class, in any of the classes alone. None where no
    effect is large enough.
    """

    name: str
    finding: str
    p_value: float
    fires: bool
    smallest_effect: float | None
    sentence: str


def percent(value: float, interval: Any) -> str:
    return f"{value:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


def _smallest_share(n: int, fires: Callable[[np.ndarray], np.ndarray]) -> float | None:
    """The smallest share of n samples for which a test is POWER sure to fire. fires: whether it does, by count of them.

    With c the smallest count at which it fires, P(Binomial(n, s) >= c) = I_s(c, n - c + 1), solved for s.
    """
    counts = np.arange(1, n + 1)
    firing = fires(counts)
    if not firing.any():
        return None
    c = int(counts[firing.argmax()])
    return float(betaincinv(c, n - c + 1, POWER))


def _smallest_excess(n: int, other: int, m: int, level: float) -> float | None:
    """Of n samples, beside ``other`` of m held-out points."""
    return _smallest_share(n, lambda count: excess_p_value(count, n, other, m) <= level)


def _smallest_above_half(stderr: float, level: float) -> float | None:
    """The smallest share or area that is found where an honest one is 1/2 with this standard error."""
    smallest = 0.5 + float(norm.isf(level) + norm.ppf(POWER)) * stderr
    return smallest if smallest < 1 else None


def ratio_rule_test(name: str, rate: MemorizationRate, floor: MemorizationRate | None, level: float,
                    equal: int) -> AuditTest:
    """Fisher's exact test. With m held-out points, none of them memorized, it fires where the share of many samples is
    above about 1 - level^(1/m), and without any (floor None) never. equal: held-out points that ``floor`` leaves out
    because they equal training points; here they count as memorized, as samples do.
    """
    found = (f"By the ratio rule {percent(rate.rate, rate)} of {counted(rate.n, 'sample')} are copies of "
             f"{in_words(rate.views.to_dict())}")
    if floor is None:
        return AuditTest(name, "copies", 1.0, False, None, f"{found}; no held-out point is left to say how many would "
                         "be of a model that copies nothing.")
    p_value = float(excess_p_value(rate.count, rate.n, floor.count + equal, floor.n + equal))
    return AuditTest(name, "copies", p_value, p_value <= level,
                     _smallest_excess(rate.n, floor.count + equal, floor.n + equal, level),
                     f"{found}; of {counted(floor.n, 'held-out point')} {percent(floor.rate, floor)} are"
                     + (f", beside {equal:,} that equal training points." if equal else "."))


def leaning_test(leans: Leaning, level: float) -> AuditTest:
    return AuditTest("leaning", "leans", leans.p_value, leans.p_value <= level,
                     _smallest_above_half(leans.null_stderr, level),
                     f"{percent(leans.share, leans)} of the samples are nearer to the training points than to as many "
                     "held-out points; 50% owe them nothing.")


def near_copies_test(near: NearCopies, level: float) -> AuditTest:
    single = level / len(near.tests)
    smallest = _smallest_share(near.n, lambda count: p_value_of(count, near.n, near.n_heldout, 1) <= single)
    beyond = ("any held-out point is" if near.best == near.tests[0] else
              f"all but {near.best.quantile:.0%} of the held-out points are")
    return AuditTest("near_copies", "leans", near.p_value, near.p_value <= level, smallest,
                     f"{near.share:.1%} of the samples are nearer to a training point than {beyond}; "
                     f"{near.expected:.1%} would be expected.")


def membership_test(told: Membership, level: float) -> AuditTest:
    m, n, strongest = told.n_train, told.n_heldout, told.strongest
    spread = float(np.sqrt((m + n + 1) / (12 * m * n)))  # of the area where both kinds have one law
    return AuditTest("membership", "leans", told.p_value, told.p_value <= level,
                     _smallest_above_half(spread, level / len(told.attacks)),
                     "Whoever has the model tells training from held-out points by its errors at sigma = "
                     f"{strongest.sigma:.3g} with an area under the curve of "
                     f"{percent(strongest.area.value, strongest.area)}, at best; 50% is chance.")


def class_tests(classes: tuple[ClassResult, ...], level: float, names: Sequence[str]) -> list[AuditTest]:
    """The ratio rule and leaning, each in the class where it is worst; the effect is found in whichever class it is."""
    single, worst = level / len(classes), f"This is the worst of {len(classes)} classes."
    shares = [_smallest_excess(part.n, part.heldout_count, part.n_heldout, single) for part in classes]
    leanings = [_smallest_above_half(part.leaning.null_stderr, single) for part in classes]
    copied = min(classes, key=lambda part: part.ratio_rule_p_value)
    near = min(classes, key=lambda part: part.leaning_p_value)
    return [
        AuditTest("ratio_rule_by_class", "copies", copied.ratio_rule_p_value, copied.ratio_rule_p_value <= level,
                  _largest(shares),
                  f"Of {copied.n:,} samples of class {_named(copied.label, names)} {percent(copied.rate, copied)} are "
                  f"copies of training points by the ratio rule; of {copied.n_heldout:,} held-out points of it "
                  f"{copied.heldout_count / copied.n_heldout:.1%} are. {worst}"),
        AuditTest("leaning_by_class", "leans", near.leaning_p_value, near.leaning_p_value <= level, _largest(leanings),
                  f"{percent(near.leaning.share, near.leaning)} of the samples of class {_named(near.label, names)} "
                  f"are nearer to its training points than to as many held-out points of it; 50% owe them nothing. "
                  f"{worst}")]


def _largest(effects: list[float | None]) -> float | None:
    known = [effect for effect in effects if effect is not None]
    return max(known) if len(known) == len(effects) else None


def _named(label: int, names: Sequence[str]) -> str:
    return names[label] if 0 <= label < len(names) else str(label)
