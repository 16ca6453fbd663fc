"""One verdict from all tests: what each situation is called, that honest models pass, and what could not be seen."""

import json

import numpy as np
import pytest
import torch
from commands import status
from PIL import Image
from scipy.stats import binom, fisher_exact
from test_foreign_models import folder
from test_report import require_sound

import geomem
from geomem.errors import InputError
from geomem.memorization.evidence import _smallest_share
from geomem.models import EmpiricalDenoiser, GaussianDenoiser
from geomem.run_audit import LEVEL
from geomem.statistics import excess_p_value, holm


def points(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


TRAIN, HELDOUT, HONEST = points([5, 1], 60, 1, 4, 4), points([5, 2], 80, 1, 4, 4), points([5, 3], 150, 1, 4, 4)


def repeated(part):
    return np.concatenate([part] * 3)[:150]


@pytest.mark.parametrize(("samples", "verdict", "fires"), [
    (HONEST, "nothing found", set()),
    (repeated(TRAIN) + 0.01 * points(4, 150, 1, 4, 4), "copies", {"ratio_rule", "mirrored", "leaning", "near_copies"}),
    (repeated(TRAIN)[..., ::-1] + 0.01 * points(4, 150, 1, 4, 4), "copies", {"mirrored"}),
    (0.75 * repeated(TRAIN) + 0.25 * repeated(np.roll(TRAIN, 1, axis=0)), "leans", {"leaning", "near_copies"})],
    ids=["honest", "copies", "mirrored copies", "blends of two training points"])
def test_verdict_of_a_situation(samples, verdict, fires):
    found = geomem.audit(samples.copy(), TRAIN, HELDOUT)
    assert found.verdict == verdict
    assert {test.name for test in found.tests if test.p_value <= found.level} == fires
    assert {test.name for test in found.tests if test.fires} == fires
    assert len(found.reasons) == (len(fires) or len(found.tests))
    assert found.exceeds(0.6) == (verdict != "nothing found")
    assert found.level == LEVEL / 4


def test_copies_that_only_views_show():
    """Moved by a pixel and paler: nothing as they are, copies where shifts and brightness are looked through."""
    samples = 0.5 * np.roll(repeated(TRAIN), 1, axis=3) + 2
    plain, found = (geomem.audit(samples, TRAIN, HELDOUT, **how) for how in ({}, {"shifts": 1, "brightness": True}))
    assert plain.verdict != "copies"
    assert found.verdict == "copies"
    assert {test.name for test in found.tests if test.p_value <= found.level} >= {"mirrored", "leaning", "near_copies"}
    assert found.mirrored.to_dict()["shifts"] == 1
    assert "moved by up to 1 pixel, in any brightness" in found.reasons[0]
    assert "shifts by up to 1 pixel and another brightness" in found.blind[0]


def test_held_out_points_that_are_mirror_images_of_training_points_are_no_floor():
    """They are left out of it, and counted where mirror images are looked for."""
    leaky = np.concatenate([HELDOUT, TRAIN[:10, ..., ::-1]])
    plain, leaked = (geomem.audit(HONEST, TRAIN, part, mirrored=True) for part in (HELDOUT, leaky))
    assert leaked.leaning.leaked == leaked.near_copies.leaked == 10
    assert leaked.mirrored_heldout.to_dict() == plain.mirrored_heldout.to_dict()
    assert leaked.heldout.n == 90


def classes_of(*sizes):
    return tuple(np.arange(size) % 3 for size in sizes)


def test_one_copied_class_is_found_among_honest_ones():
    """A fifth of the samples of class 2 are copies: too few among all samples for leaning, enough within their class.

    The figures of a class are those of ``leaning`` and of a loop on its points alone.
    """
    known, unseen, asked = points([5, 1], 90, 3), points([5, 2], 300, 3), points([5, 3], 300, 3)
    classes = classes_of(300, 90, 300)
    copied = np.flatnonzero(classes[0] == 2)[:20]
    asked[copied] = known[classes[1] == 2][:20] + 1e-4 * points(6, 20, 3)
    found = geomem.audit(asked, known, unseen, classes=classes)
    assert [(part.label, part.n, part.n_train, part.n_heldout) for part in found.classes] == [
        (label, 100, 30, 100) for label in range(3)]
    assert found.level == LEVEL / 5
    assert [part.ratio_rule_p_value <= found.level for part in found.classes] == [False, False, True]
    alone = geomem.leaning(*(part[labels == 2] for part, labels in zip((asked, known, unseen), classes, strict=True)),
                           tolerance=found.leaning.tolerance, relabelings=1200)
    assert found.classes[2].leaning.to_dict() == alone.to_dict()
    assert found.classes[2].count == found.trajectory.memorized[classes[0] == 2].sum() >= 20
    exact = [fisher_exact([[part.count, 100 - part.count], [part.heldout_count, 100 - part.heldout_count]],
                          alternative="greater").pvalue for part in found.classes]
    assert found.classes[2].ratio_rule_p_value == pytest.approx(3 * min(exact))
    assert "class 2" in next(test.sentence for test in found.tests if test.name == "ratio_rule_by_class")
    named = geomem.audit(asked, known, unseen, classes=classes, class_names=("8", "9", "10"))
    assert ["class 10 " in test.sentence for test in named.tests if "by_class" in test.name] == [True, True]


def test_classes_with_few_points_are_left_out_and_labels_must_fit():
    labels = [np.where(np.arange(n) < 9, 7, np.arange(n) % 2) for n in (150, 60, 80)]
    assert [part.label for part in geomem.audit(HONEST, TRAIN, HELDOUT, classes=tuple(labels)).classes] == [0, 1]
    assert geomem.audit(HONEST, TRAIN, HELDOUT, classes=(*classes_of(150, 60, 80)[:2], np.zeros(80))).classes == ()
    with pytest.raises(InputError, match="one integer for each point"):
        geomem.audit(HONEST, TRAIN, HELDOUT, classes=classes_of(150, 60, 81))


def test_no_verdict_where_training_and_held_out_points_are_exchanged():
    leaning = 0.75 * repeated(TRAIN) + 0.25 * repeated(np.roll(TRAIN, 1, axis=0))
    found = geomem.audit(leaning, HELDOUT, TRAIN)
    assert found.verdict is None
    assert "exchanged" in found.reasons[0]
    assert found.exceeds(0.99)


def test_no_verdict_where_held_out_points_follow_another_law_but_copies_stay_copies():
    elsewhere = HELDOUT + 3
    assert "another law" in geomem.audit(HONEST, TRAIN, elsewhere).reasons[0]
    assert geomem.audit(HONEST, TRAIN, elsewhere).verdict is None
    assert geomem.audit(repeated(TRAIN), TRAIN, elsewhere).verdict == "copies"


@pytest.mark.parametrize(("times", "said"), [(1.5, "spread more widely"), (0.6, "spread less widely")])
def test_no_verdict_where_held_out_vectors_are_spread_otherwise_but_copies_stay_copies(times, said):
    train, heldout, honest = points(1, 200, 16), times * points(2, 200, 16), points(3, 300, 16)
    found = geomem.audit(honest, train, heldout)
    assert found.verdict is None
    assert any(said in reason for reason in found.reasons)
    assert geomem.audit(honest, train, heldout / np.float32(times)).verdict == "nothing found"
    assert geomem.audit(np.repeat(honest, 3, axis=0), np.repeat(train, 9, axis=0), heldout / np.float32(times)
                        ).verdict == "nothing found", "repeated points count once"
    assert geomem.audit(train, train, heldout).verdict == "copies"


NOISY = repeated(TRAIN) + 0.01 * points(4, 150, 1, 4, 4)
HALF = np.concatenate([NOISY[:75], HONEST[:75]])
LEAKED = np.concatenate([TRAIN[:50], HELDOUT[:3]])


@pytest.mark.parametrize(("samples", "heldout", "verdict", "left"), [
    (NOISY, HELDOUT[:1], "copies", 1), (NOISY[..., ::-1].copy(), HELDOUT[:3], "copies", 3),
    (NOISY, LEAKED, "copies", 3), (HALF, HELDOUT[:3], None, 3), (HALF, HELDOUT[:9], "copies", 9),
    (HONEST, HELDOUT[:9], None, 9), (NOISY, HELDOUT[:0], None, 0), (repeated(TRAIN), HELDOUT[:0], "copies", 0),
    (NOISY, TRAIN[:20], None, 0), (TRAIN[:2], TRAIN[:20], None, 0),
    (np.repeat(HONEST[:1], 50, axis=0), HELDOUT[:9], None, 9)],
    ids=["copies, one point", "mirrored copies, three points", "copies, three points and leaks", "half of them, three",
         "half of them, nine", "honest", "copies, no point", "equal, no point", "copies, leaks only",
         "equal, leaks only", "one honest sample many times"])
def test_few_held_out_points_tell_copies_and_give_no_all_clear(samples, heldout, verdict, left):
    """The ratio rule by Fisher's test, and equality; what needs more points is named."""
    found = geomem.audit(samples, TRAIN, heldout)
    assert found.verdict == verdict
    assert found.exceeds(1.0)
    assert [found.leaning, found.near_copies, found.membership, found.quality] == [None] * 4
    assert list(found.left_out) == ["leaning", "near_copies", "quality"]
    assert ("no held-out points are given" if not len(heldout) else f"60 distinct training points and {left} held-out "
            f"point{'s' * (left != 1)} that selected nothing are left") in found.left_out["leaning"]
    assert [test.name for test in found.tests] == ["ratio_rule", "mirrored"]
    assert found.level == LEVEL / 2
    if verdict is None:
        assert found.left_out["leaning"] in found.reasons[0]
        assert found.reasons[-1] == found.tests[-1].sentence
    if left:  # of the held-out points those that equal training points are memorized alone
        count, n, equal = found.mirrored.count, len(samples), len(heldout) - left
        assert found.tests[1].p_value == pytest.approx(fisher_exact(
            [[count, n - count], [equal, left]], alternative="greater").pvalue)
    json.dumps(found.to_dict(), allow_nan=False)


def test_few_training_points_and_classes_are_no_obstacle_either():
    found = geomem.audit(HONEST, TRAIN[:4], HELDOUT, classes=classes_of(150, 4, 80))
    assert (found.verdict, found.classes) == (None, ())
    assert list(found.left_out) == ["leaning", "near_copies", "classes", "quality"]
    assert geomem.audit(np.tile(TRAIN[:4], (5, 1, 1, 1)), TRAIN[:4], HELDOUT).verdict == "copies"


def test_few_held_out_points_raise_no_wrong_alarm():
    """In two dimensions, where the ratio rule takes one point in nine for a copy; at most the 99.9% quantile of 5%."""
    alarms = sum(geomem.audit(*(points([run, k], n, 2) for k, n in enumerate((40, 30, 1 + 4 * (run % 3))))
                              ).verdict == "copies" for run in range(60))
    assert alarms <= binom(60, LEVEL).ppf(0.999)


def test_what_fires_is_said_where_there_is_no_verdict():
    """Near-copies among held-out points of another law: no verdict for that reason, but they are named."""
    blends = 0.75 * repeated(TRAIN) + 0.25 * repeated(np.roll(TRAIN, 1, axis=0))
    found = geomem.audit(blends, TRAIN, HELDOUT + 3)
    fired = [test for test in found.tests if test.fires]
    assert found.verdict is None
    assert "near_copies" in {test.name for test in fired}
    assert found.reasons[-len(fired):] == tuple(
        f"Beside that, and no verdict for that reason, {test.name.replace('_', ' ')} fires: {test.sentence}"
        for test in fired)


def test_held_out_points_that_were_left_out_beforehand_count_as_equal_ones():
    samples = np.concatenate([TRAIN[:1], HONEST[:40]])
    assert geomem.audit(samples, TRAIN, HELDOUT).verdict == "copies"
    found = geomem.audit(samples, TRAIN, HELDOUT, leaked=2)
    assert found.verdict is None
    assert "of the held-out points 2 are" in found.reasons[0]
    plain = geomem.audit(HONEST, TRAIN, np.concatenate([HELDOUT, TRAIN[:5]]))
    assert plain.quality == geomem.audit(HONEST, TRAIN, HELDOUT).quality


@pytest.mark.parametrize("m", [6, 80])
def test_no_all_clear_where_samples_are_held_out_points(m):
    """Whoever trained on all pictures and lets geomem split them: exact copies of those held out are no honest samples.
    """
    samples = np.concatenate([HELDOUT[:2], HELDOUT[2:5, ..., ::-1], HONEST])
    found = geomem.audit(samples, TRAIN, HELDOUT[:m])
    assert found.verdict is None
    assert any("Of the samples 5 are equal to held-out points" in reason for reason in found.reasons)
    assert geomem.audit(HONEST, TRAIN, HELDOUT).verdict == "nothing found"


def test_input_that_is_wrong_is_named_however_few_the_held_out_points():
    broken = np.full_like(HELDOUT[:3], np.nan)
    for heldout, message in ((HELDOUT[:3, ..., :2], "held-out points have shape"), (broken, "heldout holds NaN")):
        with pytest.raises(InputError, match=message):
            geomem.audit(HONEST, TRAIN, heldout)
    with pytest.raises(InputError, match="only 1 distinct"):
        geomem.audit(HONEST, np.zeros_like(TRAIN), HELDOUT)


def test_a_folder_of_twenty_pictures(tmp_path, capsys):
    """Split by the command, four are held out and three test: the samples are found out, and honest ones not cleared.
    """
    rng, out = np.random.default_rng(0), tmp_path / "out"
    (tmp_path / "photos").mkdir()
    for k in range(20):
        Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8)).save(tmp_path / "photos" / f"{k}.png")
    known = geomem.load_data(str(tmp_path / "photos")).train
    moved = known[np.arange(200) % 16, ..., ::-1] + 0.02 * points(1, 200, 1, 6, 6)
    for samples, verdict in ((moved, "copies"), (points(2, 200, 1, 6, 6).clip(-1, 1), None)):
        np.savez(tmp_path / "samples.npz", samples=samples.astype(np.float32))
        words = "audit", tmp_path / "samples.npz", "--data", tmp_path / "photos", "--fail-over", 1
        assert status(*words, "--json", "--out", out / str(verdict)) == 3
        document = json.loads(capsys.readouterr().out)
        assert document["verdict"] == verdict
        assert [test["fires"] for test in document["tests"]] == [False, verdict == "copies"]
        assert "1 went to the choice of weights, 3 are left" in document["advice"][-1]
        page = require_sound((out / str(verdict) / "audit.html").read_text(encoding="utf-8"))
        for part in (*document["reasons"], *document["advice"], *document["left_out"].values()):
            assert part in page.text
        assert ("copies by the ratio rule, 200 in all" in page.text) == (verdict == "copies")
        assert len([row for row in page.all("li") if row.get("class") == "memorized"]) == 24 * (verdict == "copies")
        assert status(*words) == 3
        text = capsys.readouterr().out
        assert "leaning             not measured" in text
        assert document["advice"][-1] in text


def test_one_sample_that_is_a_training_point_is_a_copy_however_few_the_held_out_points():
    samples = np.concatenate([TRAIN[:1], HONEST[:40]])
    result = geomem.audit(samples, TRAIN, HELDOUT[:12])
    assert min(test.p_value for test in result.tests) > result.level
    assert result.verdict == "copies"
    assert result.reasons[0] == ("Of 41 samples 1 is equal to one of training points or their mirror images; of the "
                                 "held-out points none is.")
    assert geomem.audit(HONEST[:41], TRAIN, HELDOUT[:12]).verdict == "nothing found"
    mirrored = geomem.audit(samples[..., ::-1].copy(), TRAIN, HELDOUT[:12])
    assert (mirrored.verdict, mirrored.reasons[0]) == ("copies", result.reasons[0])
    leaked = geomem.audit(samples, TRAIN, np.concatenate([HELDOUT[:12], TRAIN[:1]]))
    assert leaked.verdict is None
    assert "of the held-out points 1 is. Take those out" in leaked.reasons[0]


def test_honest_models_pass():
    """At most 5% of them fail some test; of 50, at most the 99.9% quantile of that."""
    fails = sum(geomem.audit(*(points([run, k], n, 3) for k, n in enumerate((40, 30, 30)))).verdict
                in ("copies", "leans") for run in range(50))
    assert fails <= binom(50, LEVEL).ppf(0.999)


@pytest.mark.parametrize("count", [0, 1, 5, 30])
def test_excess_is_fishers_exact_test(count):
    exact = fisher_exact([[count, 40 - count], [3, 57]], alternative="greater").pvalue
    assert excess_p_value(count, 40, 3, 60) == pytest.approx(exact)


def test_holm_is_its_definition():
    """One after the other, the smallest first, each against the level over those that remain; until one does not fire.
    """
    p_values = np.array([0.04, 0.001, 0.2, 0.011, 0.012])
    for level in (0.005, 0.03, 0.045, 0.05, 0.2, 0.5):
        fires = set()
        for k in np.argsort(p_values):
            if p_values[k] > level / (5 - len(fires)):
                break
            fires.add(int(k))
        assert set(np.flatnonzero(holm(p_values) <= level)) == fires


def test_smallest_share_is_found_with_its_power():
    """A test that fires at 7 of 200 or more finds the share s with P(Binomial(200, s) >= 7) = 90%."""
    share = _smallest_share(200, lambda count: count >= 7)
    assert binom(200, share).sf(6) == pytest.approx(0.9)
    assert _smallest_share(5, lambda count: count >= 7) is None


def test_command_writes_what_scripts_rely_on(tmp_path, capsys):
    data, samples, out = (tmp_path / name for name in ("data.npz", "samples.npz", "out"))
    np.savez(data, train=TRAIN, heldout=HELDOUT)
    np.savez(samples, samples=repeated(TRAIN))
    assert status("audit", samples, "--data", data, "--json", "--out", out, "--fail-over", "0.6") == 3
    document = json.loads(capsys.readouterr().out)
    assert document["format"] == "geomem.audit/1"
    assert document["verdict"] == "copies"
    assert {"reasons", "trajectory", "mirrored", "leaning", "near_copies", "quality"} <= set(document)
    assert json.loads((out / "audit.json").read_text()) == document
    assert (out / "closest.png").stat().st_size > 1000
    np.savez(samples, samples=HONEST)
    assert status("audit", samples, "--data", data, "--fail-over", "0.7") == 0
    assert "verdict: nothing found by these tests at this power" in capsys.readouterr().out


def test_memorization_and_audit_give_one_share_of_near_copies(tmp_path, capsys):
    """Significant or not."""
    np.savez(tmp_path / "data.npz", train=TRAIN, heldout=HELDOUT)
    for samples, significant in ((HONEST, False), (NOISY, True)):
        np.savez(tmp_path / "samples.npz", samples=samples)
        found = {}
        for command in ("memorization", "audit"):
            words = command, tmp_path / "samples.npz", "--data", tmp_path / "data.npz"
            assert status(*words, "--json") == 0
            found[command] = json.loads(capsys.readouterr().out)["near_copies"]
            assert status(*words) == 0
            text = capsys.readouterr().out
            assert f"{found[command]['share']:.1%}" in text
        assert found["memorization"] == found["audit"]
        assert found["audit"]["significant"] == significant
        assert found["audit"]["count"] == significant * round(found["audit"]["share"] * len(samples))


def test_page_of_a_file_of_samples(tmp_path, capsys):
    """Figures, pictures and sentences are those of the JSON, and names of files are text."""
    data, samples, out = tmp_path / "data.npz", tmp_path / "<b>&.npz", tmp_path / "out"
    classes = dict(zip(("labels", "train_labels", "heldout_labels"), classes_of(150, 60, 80), strict=True))
    np.savez(samples, samples=repeated(TRAIN), labels=classes.pop("labels"))
    np.savez(data, train=TRAIN, heldout=HELDOUT, **classes)
    assert status("audit", samples, "--data", data, "--json", "--out", out) == 0
    document = json.loads(capsys.readouterr().out)
    page = require_sound((out / "audit.html").read_text(encoding="utf-8"))
    leans = document["leaning"]
    for words in ("May these samples be published?", "Verdict: copies of training points.", "<b>&.npz",
                  *document["reasons"], *document["blind"], *document["advice"], data.stem,
                  f"{100 * leans['share']:.1f}% [{100 * leans['low']:.1f}, {100 * leans['high']:.1f}]",
                  f"{document['quality']['frechet_at_floor_size']:#.3g}", "copies by the ratio rule, 150 in all",
                  "near-copies , 150 in all"):
        assert " ".join(words.split()) in page.text, words
    assert [part["label"] for part in document["classes"]] == [0, 1, 2]
    assert "Class by class" in page.text
    assert "Membership" not in page.text
    assert len([picture for picture in page.all("img") if picture["class"] == "pair"]) == 24


def test_pictures_in_folders_are_named(tmp_path, capsys):
    """Classes by their folders, and training points by their files."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 24), ("test", 40)):
        for k in range(n):
            path = tmp_path / "data" / part / ("cats", "dogs")[k % 2]
            path.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8)).save(path / f"{k}.png")
    known = geomem.load_data(str(tmp_path / "data"))
    np.savez(tmp_path / "samples.npz", samples=known.train, labels=known.train_labels)
    assert status("audit", tmp_path / "samples.npz", "--data", tmp_path / "data", "--json", "--out",
                  tmp_path / "out") == 0
    assert [part["name"] for part in json.loads(capsys.readouterr().out)["classes"]] == ["cats", "dogs"]
    page = require_sound((tmp_path / "out" / "audit.html").read_text(encoding="utf-8"))
    assert "cats" in page.text
    assert known.files([0])[0] in page.text


def test_audit_of_a_folder_of_diffusers(tmp_path, capsys):
    """From its weights to the page; the model itself is tested, too."""
    path = folder(tmp_path / "model", pytest.importorskip("diffusers").DDPMScheduler())
    np.savez(tmp_path / "data.npz", train=points(1, 40, 1, 8, 8), heldout=points(2, 60, 1, 8, 8))
    assert status("audit", path, "--data", tmp_path / "data.npz", "--n-samples", 12, "--json", "--out",
                  tmp_path / "out") == 0
    document = json.loads(capsys.readouterr().out)
    assert {test["name"] for test in document["tests"]} == {"ratio_rule", "mirrored", "leaning", "near_copies",
                                                            "membership"}
    page = require_sound((tmp_path / "out" / "audit.html").read_text(encoding="utf-8"))
    assert "May this model be published?" in page.text
    assert f"at sigma {document['membership']['strongest']['sigma']:#.3g}" in page.text
    assert np.load(tmp_path / "out" / "samples.npz")["samples"].shape == (12, 1, 8, 8)


def test_a_model_that_tells_its_training_points_is_no_clean_one():
    """Its samples are honest, its losses are not; a model that never saw the points passes."""
    knowing = EmpiricalDenoiser(torch.from_numpy(TRAIN))
    found = geomem.audit(HONEST, TRAIN, HELDOUT, denoiser=knowing)
    assert found.verdict == "leans"
    assert [test.name for test in found.tests if test.p_value <= found.level] == ["membership"]
    assert found.level == LEVEL / 5
    honest = geomem.audit(HONEST, TRAIN, HELDOUT, denoiser=GaussianDenoiser(torch.from_numpy(HONEST)))
    assert honest.verdict == "nothing found"
    assert 0.5 < honest.tests[-1].smallest_effect < 0.9


RAW = [1000 * part + 5000 for part in (points([7, 1], 60, 1, 8), points([7, 2], 80, 1, 8), points([7, 3], 150, 1, 8))]


@pytest.mark.parametrize(("samples", "train", "heldout", "said"), [
    ((RAW[0] - 5000) / 1000, *RAW[:2], "The samples have values from"),
    (np.full_like(RAW[2], 5000), *RAW[:2], "The samples have values from"),
    (RAW[2], RAW[0], 3 * RAW[1], "The held-out points have values from"),
    (HONEST[:2], TRAIN, HELDOUT, "So few samples"), (HONEST[:9], TRAIN, HELDOUT, "So few samples")],
    ids=["standardized copies", "constant", "held-out points on another scale", "two samples", "nine samples"])
def test_no_all_clear_where_no_test_could_fire(samples, train, heldout, said):
    found = geomem.audit(samples, train, heldout)
    assert found.verdict is None
    assert any(reason.startswith(said) for reason in found.reasons)
    assert found.exceeds(1.0)


def test_a_single_sample_is_judged():
    copied, honest = (geomem.audit(part[:1], TRAIN, HELDOUT) for part in (TRAIN, HONEST))
    assert (copied.verdict, honest.verdict) == ("copies", None)
    assert copied.quality is honest.quality is None
    assert honest.left_out == {"quality": "one sample has no covariance"}


@pytest.mark.parametrize("seed", range(5))
def test_honest_samples_of_data_that_repeat_themselves_are_no_copies(seed):
    """Categories, of which most are equal by chance; and pictures of which some are blank."""
    rng = np.random.default_rng(seed)
    train, heldout, samples = (rng.integers(0, 3, (n, 3)).astype(np.float32) for n in (100, 100, 200))
    assert geomem.audit(samples, train, heldout).verdict != "copies"
    train, heldout, samples = (points([8, k, seed], n, 1, 4, 4) for k, n in enumerate((60, 60, 200)))
    train[0] = samples[:3] = 0
    assert geomem.audit(samples, train, heldout).verdict != "copies"
    samples[4] = train[4]
    assert geomem.audit(samples, train[1:], heldout).verdict == "copies"


def test_held_out_points_that_were_set_aside_now_clear_no_samples_from_elsewhere(tmp_path, capsys):
    np.save(tmp_path / "all.npy", np.concatenate([TRAIN, HELDOUT]))
    np.save(tmp_path / "unseen.npy", points([9, 1], 60, 1, 4, 4))
    np.savez(tmp_path / "samples.npz", samples=HONEST)
    asked = "audit", tmp_path / "samples.npz", "--data", tmp_path / "all.npy", "--fail-over", "0.9", "--json"
    assert status(*asked) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] is None
    assert "--heldout" in document["reasons"][0]
    assert status(*asked, "--heldout", tmp_path / "unseen.npy") == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "nothing found"
