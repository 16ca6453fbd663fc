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
are nearer to the training points than to each other or the other way round, or spread more or less widely, or where
samples are nearer to *them* or equal to some, they are not, and there is no verdict but ``copies``. Nor is there an
all-clear where samples lie on another scale, are too few, or equal training points where some of these are equal to
each other. Where fewer than 10 held-out or training points are left, the ratio rule and equality are all there is,
there is no verdict but ``copies``, and what was not measured is named (``left_out``). Fisher's test is exact with few
held-out points as well, and sees only large shares then: with 3 of them, none memorized, it fires where more than about
71% of many samples of pictures are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import mannwhitneyu
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
from geomem.memorization.evidence import (
    AuditTest,
    class_tests,
    leaning_test,
    membership_test,
    near_copies_test,
    percent,
    ratio_rule_test,
)
from geomem.memorization.heldout import TooFewPoints
from geomem.memorization.views import Views, in_words, nearest_points, pixels
from geomem.points import Array, Points, as_points, as_rows, first_equal
from geomem.quality import QualityReport, mifid, quality_report
from geomem.scales import values_apart

FORMAT = "geomem.audit/1"
LEVEL = 0.05  # of all tests together
_UNFIT_LEVEL = 0.005  # of each test of whether the held-out points are fit to compare with
VERDICTS = ("copies", "leans", "nothing found")
HEADLINES = {"copies": "copies of training points", "leans": "leans on its training points",
             "nothing found": "nothing found by these tests at this power", None: "none can be given"}


@dataclass(frozen=True, eq=False)
class Audit:
    """What the tests found of n samples; fields that could not be measured are None.

    verdict: one of ``VERDICTS``, or None where the held-out points are too few or not fit to compare with. reasons: a
    sentence for each test that fired, for all where none did; or why there is no verdict, and what fired all the same.
    left_out: what was not measured because too few points are left, and why: then leaning, near_copies, membership and
    quality are None, and the verdict is ``copies`` or None.
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
    left_out: dict[str, str]
    trajectory: MemorizationRate
    heldout: MemorizationRate | None
    mirrored: MemorizationRate | None
    mirrored_heldout: MemorizationRate | None
    leaning: Leaning | None
    near_copies: NearCopies | None
    membership: Membership | None
    classes: tuple[ClassResult, ...]
    quality: QualityReport | None
    peers: dict[str, float | None]
    blind: tuple[str, ...]
    advice: tuple[str, ...]

    @property
    def closest(self) -> MemorizationRate:
        """The ratio rule over as many views as were looked through."""
        return self.mirrored or self.trajectory

    @property
    def copied(self) -> np.ndarray:
        """(n,) bool, the samples that are copies by ``closest``, or equal to a training point."""
        return self.closest.memorized | (self.closest.nearest_distance <= self.closest.tolerance)

    def to_dict(self) -> dict[str, Any]:
        """For JSON, of the format geomem.audit/1."""
        measured = {name: getattr(self, name) for name in (
            "trajectory", "heldout", "mirrored", "mirrored_heldout", "leaning", "near_copies", "membership", "quality")}
        return {"format": FORMAT, "verdict": self.verdict, "reasons": list(self.reasons),
                **{name: None if part is None else part.to_dict() for name, part in measured.items()},
                "classes": [part.to_dict() for part in self.classes],
                "peers": self.peers, "tests": [vars(test) for test in self.tests], "level": self.level,
                "left_out": self.left_out, "blind": list(self.blind), "advice": list(self.advice)}

    def exceeds(self, share: float) -> bool:
        """Whether a script should stop: it copies, no verdict can be given, or more than ``share`` of the samples are
        nearer to training.
        """
        return self.verdict in ("copies", None) or self.leaning is None or self.leaning.share > share


def audit(samples: Array, train: Array, heldout: Array, *, denoiser: Callable[..., Tensor] | None = None,
          labels: tuple[np.ndarray, np.ndarray] | None = None, classes: Labels | None = None,
          tolerance: float | None = None, mirrored: bool = False, shifts: int = 0, brightness: bool = False,
          features: Callable[..., Any] | None = None, seed: int = 0, device: str | torch.device = "auto",
          class_names: Sequence[str] = (), leaked: int = 0, limits: Sequence[str] = ()) -> Audit:
    """Hold ``samples`` (n, ...) against the training points (N, ...) by every test of the module docstring.

    heldout: (M, ...), points of the same law that neither trained nor selected the model. All in one scale and shape,
    numpy or torch, or all of them DataFrames; the ratio rule looks at mirror images as well where points are pictures
    (C, H, W).
    denoiser: the model, where it is known: attacked by ``membership``, with the classes ``labels`` of the points.
    classes: integers (n,), (N,) and (M,), of the samples, training and held-out points, to look at each class alone.
    class_names: of 0, 1, ..., for the sentences. leaked: held-out points that were left out beforehand because they
    equal training points. limits: sentences on why "nothing found" could not be relied on; then that is not said.
    mirrored: whether leaning and near-copies do, for models that were trained on them. shifts, brightness: other views
    for these two and for the second ratio rule. features: for all but membership, whose attack is in pixels. tolerance,
    features: as in ``memorization_rate``. seed: of the relabelings and subsets.

    Raises InputError as ``memorization_rate`` and ``quality_report`` do: for shapes that differ, values that are not
    finite, or fewer than two distinct training points.
    """
    train, samples, heldout = encoded(train, samples=samples, heldout=heldout)
    if classes is not None:
        require_labels(classes, samples, train, heldout)
    space = feature_space(features)
    compared: dict[str, Any] = {"tolerance": tolerance, "features": space, "device": device}
    views: dict[str, Any] = {"shifts": shifts, "brightness": brightness}
    pictures = len(train.shape) == 4
    viewed = pictures or brightness
    rate = memorization_rate(samples, train, **compared)
    floor, unseen = _floor(heldout, train, **compared)
    fresh = heldout if unseen.all() else heldout[unseen]
    either_way = memorization_rate(samples, train, mirrored=pictures, **views, **compared) if viewed else None
    either_floor, among = (_floor(heldout, train, mirrored=pictures, **views, **compared) if viewed else
                           (None, unseen))
    leans = near = told = quality = None
    of_classes: tuple[ClassResult, ...] = ()
    why = ""
    try:
        if not len(heldout):
            raise TooFewPoints("no held-out points are given; give at least 10 that neither trained nor selected the "
                               "model")
        leans = leaning(samples, train, heldout, seed=seed, mirrored=mirrored, **views, **compared)
        near = near_copies(samples, train, heldout, mirrored=mirrored, **views, **compared)
        told = None if denoiser is None else membership(denoiser, train, heldout, labels=labels, seed=seed,
                                                        device=device, tolerance=None if space else tolerance)
    except TooFewPoints as error:
        leans = near = told = None
        why = str(error)
    else:
        if rate.n > 1:
            quality = quality_report(samples, train, fresh, features=space, seed=seed, device=device)
        if classes is not None and floor is not None:
            of_classes = by_class(rate, floor, samples, train, fresh, (*classes[:2], classes[2][unseen]),
                                  mirrored=mirrored, **views, seed=seed, **{**compared, "tolerance": leans.tolerance})
    level = LEVEL / (1 + viewed + 2 * (leans is not None) + (told is not None) + 2 * bool(of_classes))
    tests = [ratio_rule_test("ratio_rule", rate, floor, level, leaked + int((~unseen).sum()))]
    leaked += int((~among).sum())
    tests += [ratio_rule_test("mirrored", either_way, either_floor, level, leaked)] if either_way else []
    tests += [leaning_test(leans, level), near_copies_test(near, level)] if leans and near else []
    tests += [membership_test(told, level)] if told else []
    tests += class_tests(of_classes, level, class_names) if of_classes else []
    closest = either_way or rate
    plain = np.ptp(as_rows(samples, "samples"), axis=1) == 0  # blank pictures are no evidence
    equal = int(((closest.nearest_distance <= closest.tolerance) & ~plain).sum())
    same = (f"Of {counted(rate.n, 'sample')} {equal:,} {are(equal)} equal to one of "
            f"{in_words(closest.views.to_dict())}; of the held-out points "
            f"{f'{leaked:,} {are(leaked)}' if leaked else 'none is'}.") if equal else ""
    doubts = [f"{same} Take those out of the held-out points."] if same and leaked else []
    if floor is not None and (met := _equal(samples, fresh, closest, device)):
        doubts.append(f"Of the samples {met:,} {are(met)} equal to held-out points, and a model that never saw them "
                      "hardly makes such. Was it trained on them? Give others.")
    if leans is not None and (spread := _spread_apart(train, fresh)):
        doubts.append(spread)
    limits = [*limits, *_limits(samples, train, heldout, tests)]
    if same and rate.merged:  # of data that repeat themselves, new points are equal to old ones
        limits, same = [same, *limits], ""
    verdict, reasons = _weigh(tests, leans, why, same if not leaked else "", doubts, limits)
    return Audit(verdict, reasons, tuple(tests), level,
                 {name: why for name, asked in (
                     ("leaning", True), ("near_copies", True), ("membership", denoiser is not None),
                     ("classes", classes is not None), ("quality", True)) if why and asked} | (
                         {"quality": "one sample has no covariance"} if rate.n == 1 else {}),
                 rate, floor, either_way, either_floor, leans, near, told, of_classes, quality,
                 _peers(samples, train, fresh if leans else None, space, seed, device),
                 _blind(closest.views, pictures, told is not None), () if verdict is None else _ADVICE[verdict])


def _floor(heldout: Array, train: Array, **how: Any) -> tuple[MemorizationRate | None, np.ndarray]:
    """``heldout_rate``, None where no held-out point is left."""
    if not len(heldout):
        return None, np.zeros(0, dtype=bool)
    found, unseen = heldout_rate(heldout, train, **how)
    return found if unseen.any() else None, unseen


def _equal(samples: Array, heldout: Array, rule: MemorizationRate, device: str | torch.device) -> int:
    """How many samples are held-out points, as ``rule`` compares points."""
    known = rule.views.reference(as_points("heldout", heldout))
    distances, _ = nearest_points(as_rows(samples, "samples"), known, 1, rule.views, device=device)
    return int((distances <= rule.tolerance).sum())


def _spread_apart(train: Array, heldout: Array) -> str:
    """A sentence where distinct held-out points (M, ...) lie farther from the mean of both kinds than distinct training
    points (N, ...), or nearer to it, by the test of Mann and Whitney; else "".
    """
    known, unseen = (part.select(np.unique(first_equal(part)))
                     for part in (as_points("train", train), as_points("heldout", heldout)))
    both = Points([known, unseen])
    centre = sum(rows.sum(axis=0, dtype=np.float64) for _, rows in both.chunks()) / len(both)
    distance = np.concatenate([np.linalg.norm(rows - centre, axis=1) for _, rows in both.chunks()])
    test = mannwhitneyu(distance[len(known):], distance[:len(known)])
    if test.pvalue >= _UNFIT_LEVEL:
        return ""
    farther = test.statistic / (len(known) * len(unseen))
    return ("The held-out points follow another law than the training points: they are spread "
            f"{'more' if farther > 0.5 else 'less'} widely, farther from the mean of both in {farther:.1%} of the "
            "pairs, where 50% would be. Split the data again, at random.")


def _limits(samples: Array, train: Array, heldout: Array, tests: list[AuditTest]) -> Iterator[str]:
    """A sentence for each reason why tests that do not fire say nothing."""
    for name, points in (("samples", samples), ("held-out points", heldout)):
        if len(points) and (apart := values_apart(points, train)):
            yield (f"The {name} have {apart}: so far apart, no copy would be near its original. Are they on another "
                   "scale?")
    if any(test.name == "leaning" and test.smallest_effect is None for test in tests):  # below about 12 samples always
        yield "So few samples and points show no leaning, however large; give more, 1,000 samples if you can."


def _weigh(tests: list[AuditTest], leans: Leaning | None, why: str, same: str, doubts: list[str], limits: list[str]
           ) -> tuple[str | None, tuple[str, ...]]:
    """The verdict and its reasons. why: leaning and what else needs held-out points was not measured. same: samples are
    training points in some view, and no held-out point is. doubts: what else speaks against the held-out points.
    limits: what speaks against an all-clear alone.
    """
    fired = [test for test in tests if test.fires]
    sentences = tuple(test.sentence for test in fired)
    if same:
        return "copies", (same, *sentences)
    findings = {test.finding for test in fired}
    if "copies" in findings:
        return "copies", sentences
    if leans is None:
        least = tests[-1].smallest_effect
        weak = f" With so few points they are found from {least:.0%} of the samples on." if least else ""
        return None, (f"Only copies were looked for: {why}.{weak}", *doubts, *limits,
                      *(test.sentence for test in tests))
    if signs := (*_unfit(leans), *doubts):
        return None, (*signs, *limits, *(f"Beside that, and no verdict for that reason, "
                                         f"{test.name.replace('_', ' ')} fires: {test.sentence}" for test in fired))
    if fired:
        return "leans", sentences
    return None if limits else "nothing found", (*limits, *(test.sentence for test in tests))


def _unfit(leans: Leaning) -> tuple[str, ...]:
    """A sentence for each sign that the held-out points are no points that the model could have been trained on."""
    signs, floor = [], leans.floor
    if floor is not None and 2 * min(floor.p_value, 1 - floor.p_value) < _UNFIT_LEVEL:
        signs.append("The held-out points follow another law than the training points, or share sources with them: "
                     f"{percent(floor.share, floor)} of them are nearer to the training points than to as many other "
                     "held-out points, where 50% would be. Split the data again, at random.")
    if 1 - leans.p_value < _UNFIT_LEVEL:
        signs.append("The samples are nearer to the held-out points than to the training points: only "
                     f"{percent(leans.share, leans)} are nearer to the latter. Was the model trained on the held-out "
                     "points, or are the two sets exchanged?")
    return tuple(signs)


def _peers(samples: Array, train: Array, heldout: Array | None, space: FeatureSpace | None, seed: int,
           device: str | torch.device) -> dict[str, float | None]:
    if space is not None:
        samples, train, heldout = space(samples), space(train), None if heldout is None else space(heldout)
    figures: dict[str, float | None] = {"auth_pct": auth_pct(samples, train, device=device), "c_t": None}
    if heldout is not None:
        with suppress(InputError):  # too few points for its cells
            figures["c_t"] = c_t(samples, train, heldout, seed=seed, device=device)
    return figures if space is None or len(samples) < 2 else {**figures, "mifid": mifid(samples, train)}


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
