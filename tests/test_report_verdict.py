"""From figures to sentences: differences against published intervals, and the wording of each case."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm

from geomem.report import DataFacts, RunFacts, compare, frechet_difference, judge, share_difference
from geomem.statistics import wilson_interval

# Newcombe 1998 (Statistics in Medicine 17, 873-890), table II, method 10: x1/n1 - x2/n2, lower and upper limit.
PUBLISHED = [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090),
             ((6, 7), (2, 7), 0.0582, 0.8062), ((5, 56), (0, 29), -0.0381, 0.1926),
             ((0, 10), (0, 20), -0.1611, 0.2775), ((0, 10), (0, 10), -0.2775, 0.2775),
             ((10, 10), (0, 20), 0.6791, 1.0000), ((10, 10), (0, 10), 0.6075, 1.0000)]


def share(count, n):
    low, high = wilson_interval(count, n)
    return {"rate": count / n, "low": low, "high": high, "n": n}


def quality(frechet, half, floor=0.8, n=1000):
    return {"frechet": frechet, "frechet_low": max(0, frechet - half), "frechet_high": frechet + half,
            "frechet_floor": floor, "frechet_floor_low": floor - 0.1, "frechet_floor_high": floor + 0.1,
            "frechet_at_floor_size": frechet, "floor_n": [400, 400], "n_samples": n, "n_heldout": 800}


DATA = DataFacts("digits", "a" * 64, (1, 8, 8), 200, 1200, 400, 800, 0, (), np.zeros((1, 1, 8, 8)), None, "", "")
FLOOR = {"share": 0.504, "low": 0.455, "high": 0.553}
HONEST = {"share": 0.51, "low": 0.46, "high": 0.56, "p_value": 0.4, "n": 1000, "m": 100, "floor": FLOOR}
RUN = RunFacts("run", DATA, {}, "", None, None, [], [], None, "last", heldout=share(1, 800), leaning=HONEST)


def audited(verdict, *fires):
    tests = [{"name": name, "p_value": 0.001 if name in fires else 0.9, "fires": name in fires,
              "sentence": f"Of {name}.",
              "finding": "leans", "smallest_effect": 0.1}
             for name in ("ratio_rule", "leaning", "near_copies", "mirrored")]
    return {"verdict": verdict, "level": 0.0125, "tests": tests, "reasons": ["Because of the split."], "blind": []}


def run(count, n, judged=None, data=DATA, verdict="nothing found"):
    return replace(RUN, trajectory=share(count, n), quality=judged, data=data, audit=audited(verdict))


@pytest.mark.parametrize(("first", "second", "low", "high"), PUBLISHED)
def test_difference_of_shares_is_newcombes(first, second, low, high):
    found = share_difference(share(*first), share(*second))
    assert found[0] == pytest.approx(first[0] / first[1] - second[0] / second[1])
    assert np.round(found[1:], 4).tolist() == [low, high]
    back = share_difference(share(*second), share(*first))
    assert back == pytest.approx([-found[0], -found[2], -found[1]])


def test_difference_of_shares_from_its_definition():
    """The interval does not rest on the table in print: scipy has Wilson's intervals, and its coverage is that of every
    pair of counts, weighed by their probability. Newcombe gives 0.95 in the mean, hardly ever below 0.93.
    """
    n, m, found, covered = 12, 17, {}, []
    for x, y in product(range(n + 1), range(m + 1)):
        (p, l1, u1), (q, l2, u2) = ((k / size, *binomtest(k, size).proportion_ci(0.95, method="wilson"))
                                    for k, size in ((x, n), (y, m)))
        found[x, y] = share_difference(share(x, n), share(y, m))
        assert found[x, y] == pytest.approx((p - q, p - q - math.hypot(p - l1, u2 - q),
                                             p - q + math.hypot(u1 - p, q - l2)), abs=1e-9)
    for p, q in ((0.1, 0.1), (0.5, 0.3), (0.8, 0.2), (0.05, 0.4), (0.6, 0.65), (0.9, 0.95)):
        weights = np.outer(binom.pmf(range(n + 1), n, p), binom.pmf(range(m + 1), m, q))
        covered.append(sum(weights[pair] for pair, (_, low, high) in found.items() if low <= p - q <= high))
    assert min(covered) > 0.93
    assert 0.94 < np.mean(covered) < 0.98


def test_difference_of_frechet_distances_adds_variances():
    z = norm.ppf(0.975)
    a, b = quality(1.2, z * 0.03), quality(1.0, z * 0.04)
    assert frechet_difference(a, b) == pytest.approx((0.2, 0.2 - z * 0.05, 0.2 + z * 0.05))
    near_zero = {**quality(0.01, 0.05), "frechet_low": 0.0}  # its interval ends at 0, its width does not
    assert frechet_difference(near_zero, b)[2] == pytest.approx(-0.99 + math.hypot(0.05, z * 0.04))


def test_headlines():
    copies, clean, few = judge(run(310, 1000, verdict="copies")), judge(run(0, 1000)), judge(run(0, 20))
    assert [verdict.kind for verdict in (copies, clean, few, judge(RUN))] == ["copies", "clean", "open", "unknown"]
    assert copies.headline == "This run copies: 31.0% [28.2, 33.9] of its 1,000 samples are copies of training points."
    assert "0.1% [0.0, 0.7] of 800 held-out points" in copies.sentences[0]
    assert "0.0% [0.0, 0.4]" in clean.headline
    assert "up to 16.1% possible" in few.headline


@pytest.mark.parametrize(("found", "kind", "words"), [
    ("leans", "leans", "leans on its training points: 73.0% [68.0, 78.0]"),
    ("nothing found", "clean", "73.0% [68.0, 78.0] are nearer to training")])
def test_leaning_stands_in_the_headline(found, kind, words):
    verdict = judge(replace(run(0, 1000, verdict=found), leaning={**HONEST, "share": 0.73, "low": 0.68, "high": 0.78}))
    assert verdict.kind == kind
    assert words in verdict.headline
    assert "Of held-out points themselves 50.4% [45.5, 55.3] are." in verdict.sentences


def test_leaning_stands_beside_copies_too():
    text = " ".join(judge(run(310, 1000, verdict="copies")).sentences)
    assert "51.0% [46.0, 56.0] of its samples are nearer to training points than to as many held-out ones" in text


@pytest.mark.parametrize(("found", "kind"), [
    (audited("copies", "ratio_rule", "mirrored"), "copies"), (audited("leans", "near_copies"), "leans"),
    (audited("nothing found"), "clean"), (audited(None), "unknown")], ids=lambda case: str(case)[:20])
def test_the_audit_decides_where_there_is_one(found, kind):
    verdict = judge(replace(run(0, 1000), audit=found))
    assert verdict.kind == kind
    assert ("Of near_copies." in verdict.sentences) == (kind == "leans")
    assert ("Of mirrored." in verdict.sentences) == (kind == "copies")
    assert ("Because of the split." in verdict.sentences) == (kind == "unknown")


@pytest.mark.parametrize(("count", "n", "floor", "kind"), [
    # Held out 0.1% [0.0, 0.7]: an interval from 0.2% overlaps.
    (1, 100, share(1, 800), "open"), (3, 100, share(1, 800), "copies"),
    # Held-out data that look like copies are no verdict against a run.
    (310, 1000, share(300, 1000), "open"), (400, 1000, share(300, 1000), "copies")])
def test_without_an_audit_intervals_tell_copies_and_give_no_all_clear(count, n, floor, kind):
    verdict = judge(replace(run(count, n), heldout=floor, leaning=None, audit=None))
    assert verdict.kind == kind
    assert (kind == "copies") == ("leans on its training points is not known" not in verdict.headline)


def test_few_samples_leave_the_question_open():
    """Held out 0.1% [0.0, 0.7]: an interval that ends 5 points above 0.7% leaves nothing open."""
    assert [judge(run(0, n)).kind for n in (63, 64)] == ["open", "clean"]


def test_quality_is_held_against_the_floor():
    assert any("about as close" in line for line in judge(run(0, 1000, quality(0.85, 0.1))).sentences)
    worse = judge(run(0, 1000, quality(1.2, 0.1))).sentences
    assert any("farther" in line and "1.20 at equal numbers beside 0.800 (400 against 400" in line for line in worse)
    copies = judge(run(900, 1000, quality(1.2, 0.1), verdict="copies")).sentences
    assert any("does not notice copying" in line for line in copies)


def test_comparison_names_the_better_run_and_whether_the_intervals_allow_it():
    sentences = compare([("Run A", run(310, 1000, quality(1.0, 0.1))), ("Run B", run(2, 1000, quality(1.3, 0.1))),
                         ("Run C", run(0, 1000, quality(1.05, 0.1)))])
    assert sentences[0] == ("Run C copies least: 0.0% [0.0, 0.4]. The difference exceeds the intervals against Run A, "
                            "not against Run B.")
    assert sentences[1].startswith("Run A has the samples closest to held-out data: 1.00 [0.900, 1.10]. ")
    assert sentences[1].endswith("against Run B, not against Run C.")
    assert sentences[2] == "Together: Run C is not beaten on either count."


def test_comparison_of_equals_and_of_opposites():
    equal = compare([("Run A", run(3, 1000, quality(1.0, 0.1))), ("Run B", run(2, 1000, quality(1.02, 0.1)))])
    assert all("no run can be told from the best" in line for line in equal)
    assert len(equal) == 2
    torn = compare([("Run A", run(500, 1000, quality(1.0, 0.1))), ("Run B", run(2, 1000, quality(2.0, 0.1)))])
    assert "which matters more is for you to say" in torn[-1]


def test_what_cannot_be_compared_is_not():
    other = replace(DATA, sha256="b" * 64)
    assert compare([("Run A", run(1, 10)), ("Run B", run(9, 10, data=other))])[0].startswith("The runs were trained on "
                                                                                             "different data")
    first = "Run A", run(0, 1000, quality(1, 0.1))
    for second in (run(0, 500, quality(2, 0.1, n=500)), run(0, 1000, {**quality(2, 0.1), "n_heldout": 400})):
        lines = compare([first, ("Run B", second)])
        assert any("different numbers of points" in line for line in lines)
        assert not any("closest" in line for line in lines)


def test_what_was_made_otherwise_is_said_and_names_are_listed():
    runs = [(f"Run {name}", replace(run(count, 1000), sampling="heun")) for name, count in (
        ("A", 500), ("B", 400), ("C", 300), ("D", 0))]
    assert compare(runs)[0].endswith("against Run A, Run B and Run C.")
    assert not any("same way" in line for line in compare(runs))
    runs[1] = "Run B", replace(runs[1][1], sampling="ddim")
    assert compare(runs)[-1] == "The samples were not all made in the same way; see each run."


def test_frechet_distances_are_compared_at_equal_numbers():
    """1,000 samples are nearer to 67 points than 33 of them to the 34 others, whatever their law."""
    for equal, words in ((1.4, "are farther"), (0.85, "about as close")):
        sentences = judge(run(0, 1000, {**quality(0.6, 0.1), "frechet_at_floor_size": equal})).sentences
        assert any(words in line and "0.700 to 0.900 in ten splits" in line for line in sentences)
