"""May it be published? Every test for copying and leaning of samples, and of the model where given, in one verdict.

Each test has a p value for a model that owes nothing to its training points:

    ratio_rule   more samples than held-out points are memorized: hypergeometric, exact (Fisher 1935)
    mirrored     the same with training pictures and their mirror images, and through other views where asked
    leaning      samples are nearer to training than to as many held-out points: exchange of labels
    near_copies  samples are nearer to a training point than held-out points ever are: negative hypergeometric, exact
    membership   the losses of training points are below those of held-out points: AUC, corrected for noise levels
    ratio_rule_by_class, leaning_by_class
                 the first and the third test within each class, corrected for their number (Holm 1979)

A test *fires* where its p value is at most ``LEVEL`` over the number of tests (Bonferroni), so an honest model passes
all of them in at least 95 of 100 cases. The verdict is ``copies`` where the ratio rule fires in either orientation, or
where a sample equals a training point (or its image in a view), up to the tolerance of the ratio rule, and no held-out
point does: with few held-out points the tests have no power, and such a sample needs none. Where held-out points do as
well and the rule does not fire, there is no verdict. It is ``leans`` where any other test fires, and
``nothing found`` otherwise: then the *smallest effect* that each test would have found with 90% probability says how
much that is worth.

All but the ratio rule take held-out points for points that the model could have been trained on as well. Where these
are nearer to the training points than to each other or the other way round, or where samples are nearer to *them*, they
are not, and there is no verdict but ``copies``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import betaincinv
from scipy.stats import norm
from torch import Tensor

from geomem.data.table import encoded
from geomem.errors import InputError, are, counted
from geomem.features import PIXELS, FeatureSpace, feature_space
from geomem.memorization import (
    ClassResult,
    Leaning,
    Membership,
    MemorizationRate,
    NearCopies,
    auth_pct,
    by_class,
    c_t,
    heldout_rate,
    leaning,
    membership,
    memorization_rate,
    near_copies,
)
from geomem.memorization.classes import Labels, require_labels
from geomem.memorization.near_copies import p_value_of
from geomem.memorization.views import Views, in_words, pixels
from geomem.points import Array
from geomem.quality import QualityReport, mifid, quality_report
from geomem.statistics import excess_p_value

FORMAT = "geomem.audit/1"
LEVEL = 0.05  # of all tests together
POWER = 0.9
_UNFIT_LEVEL = 0.005  # of each test of whether the held-out points are fit to compare with
VERDICTS = ("copies", "leans", "nothing found")
HEADLINES = {"copies": "copies: it copies training points", "leans": "leans on its training points",
             "nothing found": "nothing found by these tests at this power", None: "none can be given"}


@dataclass(frozen=True)
class AuditTest:
    """One test. finding: ``copies`` or ``leans``, what it shows where it fires. p_value: of a model that owes nothing.

    smallest_effect: what the test would have found with 90% probability, a share of samples (``ratio_rule``,
    ``mirrored``, ``near_copies``), a leaning or an AUC; of tests by class, in any of the classes alone. None where no
    effect is large enough.
    """

    name: str
    finding: str
    p_value: float
    smallest_effect: float | None
    sentence: str


@dataclass(frozen=True, eq=False)
class Audit:
    """What the tests found of n samples; fields that could not be measured are None.

    verdict: one of ``VERDICTS``, or None where the held-out points are not fit to compare with. reasons: a sentence for
    each test that fired, for all where none did, or why there is no verdict.
    trajectory, heldout: the ratio rule on samples and on held-out points; mirrored, mirrored_heldout: the same with
    mirror images. membership: of the model, None where only samples are known. classes: each class with enough points,
    empty where no classes are known. quality: against the held-out points.
    peers: what other tools report, ``auth_pct``, ``c_t`` (``geomem.memorization.peers``) and, of features, ``mifid``
    (``geomem.quality``), None where not defined.
    level: that each p value is held against.
    blind: what these tests cannot see. advice: what to do next.
    """

    verdict: str | None
    reasons: tuple[str, ...]
    tests: tuple[AuditTest, ...]
    level: float
    trajectory: MemorizationRate
    heldout: MemorizationRate
    mirrored: MemorizationRate | None
    mirrored_heldout: MemorizationRate | None
    leaning: Leaning
    near_copies: NearCopies
    membership: Membership | None
    classes: tuple[ClassResult, ...]
    quality: QualityReport
    peers: dict[str, float | None]
    blind: tuple[str, ...]
    advice: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON, of the format geomem.audit/1."""
        measured = {name: getattr(self, name) for name in (
            "trajectory", "heldout", "mirrored", "mirrored_heldout", "leaning", "near_copies", "membership", "quality")}
        return {"format": FORMAT, "verdict": self.verdict, "reasons": list(self.reasons),
                **{name: None if part is None else part.to_dict() for name, part in measured.items()},
                "classes": [part.to_dict() for part in self.classes],
                "peers": self.peers, "tests": [vars(test) for test in self.tests], "level": self.level,
                "blind": list(self.blind), "advice": list(self.advice)}

    def exceeds(self, share: float) -> bool:
        """Whether a script should stop: it copies, no verdict can be given, or more than ``share`` of the samples are
        nearer to training.
        """
        return self.verdict in ("copies", None) or self.leaning.share > share


def audit(samples: Array, train: Array, heldout: Array, *, denoiser: Callable[..., Tensor] | None = None,
          labels: tuple[np.ndarray, np.ndarray] | None = None, classes: Labels | None = None,
          tolerance: float | None = None, mirrored: bool = False, shifts: int = 0, brightness: bool = False,
          features: Callable[..., Any] | None = None, seed: int = 0, device: str | torch.device = "auto",
          class_names: Sequence[str] = ()) -> Audit:
    """Hold ``samples`` (n, ...) against the training points (N, ...) by every test of the module docstring.

    heldout: (M, ...), points of the same law that neither trained nor selected the model. All in one scale and shape,
    numpy or torch, or all of them DataFrames; the ratio rule looks at mirror images as well where points are pictures
    (C, H, W).
    denoiser: the model, where it is known: attacked by ``membership``, with the classes ``labels`` of the points.
    classes: integers (n,), (N,) and (M,), of the samples, training and held-out points, to look at each class alone.
    class_names: of 0, 1, ..., for the sentences.
    mirrored: whether leaning and near-copies do, for models that were trained on them. shifts, brightness: other views
    for these two and for the second ratio rule. features: for all but membership, whose attack is in pixels. tolerance,
    features: as in ``memorization_rate``. seed: of the relabelings and subsets.

    Raises InputError as ``leaning`` and ``quality_report`` do: for shapes that differ, values that are not finite, or
    too few distinct points of a kind.
    """
    train, samples, heldout = encoded(train, samples=samples, heldout=heldout)
    if classes is not None:
        require_labels(classes, samples, train, heldout)
    space = feature_space(features)
    compared: dict[str, Any] = {"tolerance": tolerance, "features": space, "device": device}
    views: dict[str, Any] = {"shifts": shifts, "brightness": brightness}
    leans = leaning(samples, train, heldout, seed=seed, mirrored=mirrored, **views, **compared)
    near = near_copies(samples, train, heldout, mirrored=mirrored, **views, **compared)
    rate = memorization_rate(samples, train, **compared)
    floor, unseen = heldout_rate(heldout, train, **compared)
    pictures = len(train.shape) == 4
    viewed = pictures or brightness
    either_way = memorization_rate(samples, train, mirrored=pictures, **views, **compared) if viewed else None
    either_floor, either_unseen = (heldout_rate(heldout, train, mirrored=pictures, **views, **compared) if viewed else
                                   (None, unseen))
    told = None if denoiser is None else membership(denoiser, train, heldout, labels=labels, seed=seed, device=device,
                                                    tolerance=tolerance if space is None else None)
    of_classes = () if classes is None else by_class(
        rate, floor, samples, train, heldout[unseen], (*classes[:2], classes[2][unseen]), mirrored=mirrored, **views,
        seed=seed, **{**compared, "tolerance": leans.tolerance})
    level = LEVEL / (3 + viewed + (told is not None) + 2 * bool(of_classes))
    tests = [_ratio_rule("ratio_rule", rate, floor, level), _leaning(leans, level), _near_copies(near, level)]
    if either_way is not None and either_floor is not None:
        tests.insert(1, _ratio_rule("mirrored", either_way, either_floor, level))
    if told is not None:
        tests.append(_membership(told, level))
    if of_classes:
        tests += _by_class(of_classes, level, class_names)
    closest, among = (rate, unseen) if either_way is None else (either_way, either_unseen)
    equal = int((closest.nearest_distance <= closest.tolerance).sum())
    leaked = int((~among).sum())
    same = (f"Of {counted(rate.n, 'sample')} {equal:,} {are(equal)} equal to one of "
            f"{in_words(closest.views.to_dict())}; of the held-out points "
            f"{f'{leaked:,} {are(leaked)}' if leaked else 'none is'}.") if equal else ""
    verdict, reasons = _weigh(tests, level, _unfit(leans), same, leaked)
    return Audit(verdict, reasons, tuple(tests), level, rate, floor, either_way, either_floor, leans, near, told,
                 of_classes, quality_report(samples, train, heldout, features=space, seed=seed, device=device),
                 _peers(samples, train, heldout, space, seed, device),
                 _blind(leans.views, pictures, told is not None),
                 () if verdict is None else _ADVICE[verdict])


def _weigh(tests: list[AuditTest], level: float, unfit: tuple[str, ...], same: str, leaked: int
           ) -> tuple[str | None, tuple[str, ...]]:
    """The verdict and its reasons. unfit: why the held-out points are not fit to compare with, if they are not. same:
    how many samples are training points in some view, if any. leaked: how many held-out points are.
    """
    fired = [test for test in tests if test.p_value <= level]
    if same and not leaked:
        return "copies", (same, *(test.sentence for test in fired))
    findings = {test.finding for test in fired}
    if unfit and "copies" not in findings:
        return None, unfit
    if same and "copies" not in findings:  # of what repeats itself, or has leaked
        return None, (f"{same} Take those out of the held-out points.", *(test.sentence for test in fired))
    return next((kind for kind in VERDICTS if kind in findings), VERDICTS[-1]), tuple(
        test.sentence for test in fired or tests)


def _unfit(leans: Leaning) -> tuple[str, ...]:
    """A sentence for each sign that the held-out points are no points that the model could have been trained on."""
    signs, floor = [], leans.floor
    if floor is not None and 2 * min(floor.p_value, 1 - floor.p_value) < _UNFIT_LEVEL:
        signs.append("The held-out points follow another law than the training points, or share sources with them: "
                     f"{_percent(floor.share, floor)} of them are nearer to the training points than to as many other "
                     "held-out points, where 50% would be. Split the data again, at random.")
    if 1 - leans.p_value < _UNFIT_LEVEL:
        signs.append("The samples are nearer to the held-out points than to the training points: only "
                     f"{_percent(leans.share, leans)} are nearer to the latter. Was the model trained on the held-out "
                     "points, or are the two sets exchanged?")
    return tuple(signs)


def _percent(value: float, interval: Any) -> str:
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


def _ratio_rule(name: str, rate: MemorizationRate, floor: MemorizationRate, level: float) -> AuditTest:
    return AuditTest(name, "copies", float(excess_p_value(rate.count, rate.n, floor.count, floor.n)),
                     _smallest_excess(rate.n, floor.count, floor.n, level),
                     f"By the ratio rule {_percent(rate.rate, rate)} of {rate.n:,} samples are copies of "
                     f"{in_words(rate.views.to_dict())}; of {floor.n:,} held-out points {_percent(floor.rate, floor)} "
                     "are.")


def _leaning(leans: Leaning, level: float) -> AuditTest:
    return AuditTest("leaning", "leans", leans.p_value, _smallest_above_half(leans.null_stderr, level),
                     f"{_percent(leans.share, leans)} of the samples are nearer to the training points than to as many "
                     "held-out points; 50% owe them nothing.")


def _near_copies(near: NearCopies, level: float) -> AuditTest:
    test, single = min(near.tests, key=lambda test: test.p_value), level / len(near.tests)
    smallest = _smallest_share(near.n, lambda count: p_value_of(count, near.n, near.n_heldout, 1) <= single)
    beyond = ("any held-out point is" if test == near.tests[0] else
              f"all but {test.quantile:.0%} of the held-out points are")
    return AuditTest("near_copies", "leans", near.p_value, smallest,
                     f"{test.count / near.n:.1%} of the samples are nearer to a training point than {beyond}; "
                     f"{test.expected / near.n:.1%} would be expected.")


def _membership(told: Membership, level: float) -> AuditTest:
    m, n, strongest = told.n_train, told.n_heldout, told.strongest
    spread = float(np.sqrt((m + n + 1) / (12 * m * n)))  # of the area where both kinds have one law
    return AuditTest("membership", "leans", told.p_value, _smallest_above_half(spread, level / len(told.attacks)),
                     "Whoever has the model tells training from held-out points by its errors at sigma = "
                     f"{strongest.sigma:.3g} with an area under the curve of "
                     f"{_percent(strongest.area.value, strongest.area)}, at best; 50% is chance.")


def _by_class(classes: tuple[ClassResult, ...], level: float, names: Sequence[str]) -> list[AuditTest]:
    """The ratio rule and leaning, each in the class where it is worst; the effect is found in whichever class it is."""
    single, worst = level / len(classes), f"This is the worst of {len(classes)} classes."
    shares = [_smallest_excess(part.n, part.heldout_count, part.n_heldout, single) for part in classes]
    leanings = [_smallest_above_half(part.leaning.null_stderr, single) for part in classes]
    copied = min(classes, key=lambda part: part.ratio_rule_p_value)
    near = min(classes, key=lambda part: part.leaning_p_value)
    return [
        AuditTest("ratio_rule_by_class", "copies", copied.ratio_rule_p_value, _largest(shares),
                  f"Of {copied.n:,} samples of class {_named(copied.label, names)} {_percent(copied.rate, copied)} are "
                  f"copies of training points by the ratio rule; of {copied.n_heldout:,} held-out points of it "
                  f"{copied.heldout_count / copied.n_heldout:.1%} are. {worst}"),
        AuditTest("leaning_by_class", "leans", near.leaning_p_value, _largest(leanings),
                  f"{_percent(near.leaning.share, near.leaning)} of the samples of class {_named(near.label, names)} "
                  f"are nearer to its training points than to as many held-out points of it; 50% owe them nothing. "
                  f"{worst}")]


def _largest(effects: list[float | None]) -> float | None:
    known = [effect for effect in effects if effect is not None]
    return max(known) if len(known) == len(effects) else None


def _named(label: int, names: Sequence[str]) -> str:
    return names[label] if 0 <= label < len(names) else str(label)


def _peers(samples: Array, train: Array, heldout: Array, space: FeatureSpace | None, seed: int,
           device: str | torch.device) -> dict[str, float | None]:
    if space is not None:
        samples, train, heldout = (space(part) for part in (samples, train, heldout))
    figures: dict[str, float | None] = {"auth_pct": auth_pct(samples, train, device=device), "c_t": None}
    with suppress(InputError):  # too few points for its cells
        figures["c_t"] = c_t(samples, train, heldout, seed=seed, device=device)
    return figures if space is None else {**figures, "mifid": mifid(samples, train)}


def _blind(views: Views, pictures: bool, model: bool) -> tuple[str, ...]:
    aside = [*(["mirror images"] if pictures else []),
             *([f"shifts by up to {pixels(views.shifts)}"] if views.shifts else []),
             *(["another brightness or contrast"] if views.brightness else [])]
    looked = f"{' and '.join(aside)} aside, " if aside else ""
    what = "in data values" if views.space == PIXELS else f"between the features {views.space}"
    return (f"Distances are Euclidean, {what}: {looked}copies that are shifted, cropped, turned, recoloured or "
            "copied in part are not seen.",
            *(() if model else ("What the model itself gives away is not known from its samples.",)),
            "Only the training points that were given are looked for; points that a pretrained model saw before are "
            "not.",
            "Held-out points must follow the law of the training points; another source moves every figure here.")


_ADVICE = {
    "copies": ("Publish neither these samples nor the model.",
               "Train again and take the best weights per noise level or an early stop, both of which geomem train "
               "keeps; geomem risk names the training points that are copied most."),
    "leans": ("No copies beyond the floor, but samples or model tell what the training points were: publish only where "
              "that is no harm.",
              "Earlier weights and more training points lean less."),
    "nothing found": ("More samples and more held-out points would find smaller effects than those named here.",)}
