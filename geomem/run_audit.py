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
all of them in at least 95 of 100 cases. The verdict is ``copies`` where the ratio rule fires in either orientation,
``leans`` where any other test does, and ``nothing found`` otherwise: then the *smallest effect* that each test would
have found with 90% probability says how much that is worth.

All but the ratio rule take held-out points for points that the model could have been trained on as well. Where these
are nearer to the training points than to each other or the other way round, or where samples are nearer to *them*, they
are not, and there is no verdict but ``copies``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import betaincinv
from scipy.stats import norm
from torch import Tensor

from geomem.errors import InputError
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
    numpy or torch; the ratio rule looks at mirror images as well where points are pictures (C, H, W).
    denoiser: the model, where it is known: attacked by ``membership``, with the classes ``labels`` of the points.
    classes: integers (n,), (N,) and (M,), of the samples, training and held-out points, to look at each class alone.
    class_names: of 0, 1, ..., for the sentences.
    mirrored: whether leaning and near-copies do, for models that were trained on them. shifts, brightness: other views
    for these two and for the second ratio rule. features: for all but membership, whose attack is in pixels. tolerance,
    features: as in ``memorization_rate``. seed: of the relabelings and subsets.

    Raises InputError as ``leaning`` and ``quality_report`` do: for shapes that differ, values that are not finite, or
    too few distinct points of a kind.
    """
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
    either_floor = heldout_rate(heldout, train, mirrored=pictures, **views, **compared)[0] if viewed else None
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
        tests += [_ratio_rule_by_class(of_classes, level, class_names),
                  _leaning_by_class(of_classes, level, class_names)]
    verdict, reasons = _weigh(tests, level, _unfit(leans))
    return Audit(verdict, reasons, tuple(tests), level, rate, floor, either_way, either_floor, leans, near, told,
                 of_classes, quality_report(samples, train, heldout, features=space, seed=seed, device=device),
                 _peers(samples, train, heldout, space, seed, device),
                 _blind(leans.views, pictures, told is not None),
                 () if verdict is None else _ADVICE[verdict])


def _weigh(tests: list[AuditTest], level: float, unfit: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """The verdict and its reasons. unfit: why the held-out points are not fit to compare with, if they are not."""
    fired = [test for test in tests if test.p_value <= level]
    findings = {test.finding for test in fired}
    if unfit and "copies" not in findings:
        return None, unfit
    return next((kind for kind in VERDICTS if kind in findings), VERDICTS[-1]), tuple(
        test.sentence for test in fired or tests)


def _unfit(leans: Leaning) -> tuple[str, ...]:
    """A sentence for each sign that the held-out points are no points that the model could have been trained on."""
    signs = []
    floor = leans.floor
    if floor is not None and 2 * min(floor.p_value, 1 - floor.p_value) < _UNFIT_LEVEL:
        signs.append(f"The held-out points follow another law than the training points, or share sources with them: "
                     f"{floor.share:.1%} [{floor.low:.1%}, {floor.high:.1%}] of them are nearer to the training points "
                     "than to as many other held-out points, where 50% would be. Split the data again, at random.")
    if 1 - leans.p_value < _UNFIT_LEVEL:
        signs.append(f"The samples are nearer to the held-out points than to the training points: only "
                     f"{leans.share:.1%} [{leans.low:.1%}, {leans.high:.1%}] are nearer to the latter. Was the model "
                     "trained on the held-out points, or are the two sets exchanged?")
    return tuple(signs)


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


def _ratio_rule(name: str, rate: MemorizationRate, floor: MemorizationRate, level: float) -> AuditTest:
    n, m, other = rate.n, floor.n, floor.count
    smallest = _smallest_share(n, lambda count: excess_p_value(count, n, other, m) <= level)
    return AuditTest(name, "copies", float(excess_p_value(rate.count, n, other, m)), smallest,
                     f"By the ratio rule {rate.rate:.1%} [{rate.low:.1%}, {rate.high:.1%}] of {n:,} samples are copies "
                     f"of {in_words(rate.views.to_dict())}; of {m:,} held-out points {floor.rate:.1%} "
                     f"[{floor.low:.1%}, {floor.high:.1%}] are.")


def _smallest_leaning(leans: Leaning, level: float) -> float | None:
    smallest = 0.5 + float(norm.isf(level) + norm.ppf(POWER)) * leans.null_stderr
    return smallest if smallest < 1 else None


def _leaning(leans: Leaning, level: float) -> AuditTest:
    return AuditTest("leaning", "leans", leans.p_value, _smallest_leaning(leans, level),
                     f"{leans.share:.1%} [{leans.low:.1%}, {leans.high:.1%}] of the samples are nearer to the training "
                     f"points than to as many held-out points; 50% owe them nothing.")


def _near_copies(near: NearCopies, level: float) -> AuditTest:
    test = min(near.tests, key=lambda test: test.p_value)
    nearest = near.tests[0]
    single = level / len(near.tests)
    smallest = _smallest_share(near.n, lambda count: p_value_of(count, near.n, near.n_heldout, 1) <= single)
    return AuditTest("near_copies", "leans", near.p_value, smallest,
                     f"{test.count / near.n:.1%} of the samples are nearer to a training point than "
                     + ("any held-out point is" if test == nearest else
                        f"all but {test.quantile:.0%} of the held-out points are")
                     + f"; {test.expected / near.n:.1%} would be expected.")


def _membership(told: Membership, level: float) -> AuditTest:
    m, n, strongest = told.n_train, told.n_heldout, told.strongest
    spread = float(np.sqrt((m + n + 1) / (12 * m * n)))  # of the area where both kinds have one law
    smallest = 0.5 + float(norm.isf(level / len(told.attacks)) + norm.ppf(POWER)) * spread
    area = strongest.area
    return AuditTest("membership", "leans", told.p_value, smallest if smallest < 1 else None,
                     f"Whoever has the model tells training from held-out points by its errors at sigma = "
                     f"{strongest.sigma:.3g} with an area under the curve of {area.value:.1%} [{area.low:.1%}, "
                     f"{area.high:.1%}], at best; 50% is chance.")


def _ratio_rule_by_class(classes: tuple[ClassResult, ...], level: float, names: Sequence[str]) -> AuditTest:
    first = min(classes, key=lambda part: part.ratio_rule_p_value)
    effects = [_smallest_share(part.n, lambda count, part=part: excess_p_value(  # type: ignore[misc]
        count, part.n, part.heldout_count, part.n_heldout) <= level / len(classes)) for part in classes]
    return AuditTest("ratio_rule_by_class", "copies", first.ratio_rule_p_value, _in_any(effects),
                     f"Of {first.n:,} samples of class {_named(first.label, names)} {first.rate:.1%} "
                     f"[{first.low:.1%}, {first.high:.1%}] are copies of training points by the ratio rule; of "
                     f"{first.n_heldout:,} held-out points of it {first.heldout_count / first.n_heldout:.1%} are. This "
                     f"is the worst of {len(classes)} classes.")


def _leaning_by_class(classes: tuple[ClassResult, ...], level: float, names: Sequence[str]) -> AuditTest:
    first = min(classes, key=lambda part: part.leaning_p_value)
    leans = first.leaning
    return AuditTest("leaning_by_class", "leans", first.leaning_p_value,
                     _in_any([_smallest_leaning(part.leaning, level / len(classes)) for part in classes]),
                     f"{leans.share:.1%} [{leans.low:.1%}, {leans.high:.1%}] of the samples of class "
                     f"{_named(first.label, names)} are nearer to its training points than to as many held-out points "
                     f"of it; 50% owe them nothing. This is the worst of {len(classes)} classes.")


def _named(label: int, names: Sequence[str]) -> str:
    return names[label] if 0 <= label < len(names) else str(label)


def _in_any(effects: list[float | None]) -> float | None:
    """What is found in whichever class it is: the largest of them."""
    known = [effect for effect in effects if effect is not None]
    return max(known) if len(known) == len(effects) else None


def _peers(samples: Array, train: Array, heldout: Array, space: FeatureSpace | None, seed: int,
           device: str | torch.device) -> dict[str, float | None]:
    if space is not None:
        samples, train, heldout = (space(part) for part in (samples, train, heldout))
    figures: dict[str, float | None] = {"auth_pct": auth_pct(samples, train, device=device)}
    try:
        figures["c_t"] = c_t(samples, train, heldout, seed=seed, device=device)
    except InputError:
        figures["c_t"] = None
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
