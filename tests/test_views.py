"""Mirror images, shifts and brightness: against loops over all views and pairs, with duplicates, for every measure."""

import json

import numpy as np
import pytest
from commands import status

import geomem
from geomem.errors import InputError
from geomem.generation import Samples
from geomem.memorization import near_copies
from geomem.memorization.views import AS_THEY_ARE, Views, distinct, nearest_points
from geomem.points import as_points

SHAPE = (2, 3, 4)


def pictures(seed, n):
    return np.random.default_rng(seed).standard_normal((n, *SHAPE)).astype(np.float32)


TRAIN, HELDOUT, SAMPLES = pictures(1, 30), pictures(2, 40), pictures(3, 25)
COPIES = np.concatenate([TRAIN] * 2)[:50] + np.float32(0.01) * pictures(4, 50)
MIRRORED = COPIES[..., ::-1].copy()


MIRRORED_TOO = Views(SHAPE, mirrored=True)


def rows(points):
    return points.reshape(len(points), -1)


def test_nearest_pairs_are_those_of_all_distances():
    samples = np.concatenate([SAMPLES, MIRRORED[:5], COPIES[:5]])
    both = [np.linalg.norm(rows(x.astype(float))[:, None] - rows(TRAIN.astype(float)), axis=2)
            for x in (samples, samples[..., ::-1])]
    expected = np.minimum(*both)
    distances, indices = nearest_points(rows(samples), rows(TRAIN), 4, MIRRORED_TOO)
    assert indices.tolist() == np.argsort(expected, axis=1)[:, :4].tolist()
    assert distances == pytest.approx(np.sort(expected, axis=1)[:, :4], rel=1e-6)


def test_points_and_their_mirror_images_are_duplicates():
    points = np.concatenate([TRAIN[:4], TRAIN[2:3], TRAIN[1:2, ..., ::-1], TRAIN[4:6], MIRRORED[4:5]])
    found = distinct(points, 1.0, MIRRORED_TOO)
    assert found.index.tolist() == [0, 1, 2, 3, 6, 7]
    assert found.group.tolist() == [0, 1, 2, 3, 2, 1, 4, 5, 4]
    assert found.merged == 3
    plain = distinct(points, 1.0, AS_THEY_ARE)
    assert plain.merged == 1


def compared(picture, down, right, s, brightness):
    """A part of a picture (C, H, W) without a border of s pixels, moved, in float64; in loops and by the definition."""
    channels, height, width = picture.shape
    part = np.array([[[picture[c, y + down, x + right] for x in range(s, width - s)] for y in range(s, height - s)]
                     for c in range(channels)], dtype=np.float64)
    return (part - part.mean()) / part.std() if brightness else part


def all_distances(samples, train, mirrored, s, brightness):
    """(n, N), the smallest over the views."""
    steps = [(down, right) for down in range(-s, s + 1) for right in range(-s, s + 1)]
    known = [compared(t, 0, 0, s, brightness) for t in train]
    return np.array([[min(np.linalg.norm(compared(v, *step, s, brightness) - t) for step in steps
                          for v in ([x, x[..., ::-1]] if mirrored else [x])) for t in known] for x in samples])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("s", "brightness"), [(1, False), (2, False), (0, True), (2, True)])
def test_distances_are_the_smallest_over_all_views(mirrored, s, brightness):
    shape = (2, 7, 6)
    samples, train = (np.random.default_rng(seed).standard_normal((n, *shape)).astype(np.float32)
                      for seed, n in ((1, 6), (2, 12)))
    samples[0] = 3 * np.roll(train[4], (1, -1), axis=(1, 2)) - 1
    views = Views.of(train, mirrored=mirrored, shifts=s, brightness=brightness)
    expected = all_distances(samples, train, mirrored, s, brightness)
    distances, indices = nearest_points(rows(samples), views.reference(as_points("train", train)), 5, views)
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :5], rtol=1e-6, atol=1e-6)
    assert indices.tolist() == np.argsort(expected, axis=1)[:, :5].tolist()
    assert (distances[0, 0] < 1e-5) == (s > 0 and brightness)


@pytest.mark.parametrize("how", [{"shifts": 1}, {"brightness": True}, {"shifts": 2, "brightness": True},
                                 {"shifts": 1, "mirrored": True}])
def test_points_that_a_view_joins_are_one(how):
    """Against the connected components of all pairs within the tolerance over views, in either direction."""
    shape = (1, 8, 8)
    train = np.random.default_rng(3).standard_normal((14, *shape)).astype(np.float32)
    train[5], train[9], train[11] = np.roll(train[2], 1, axis=2), 2 * train[4] + 1, np.roll(train[5], 1, axis=1)
    train[12], train[13] = train[7, :, :, ::-1], np.roll(train[12], -1, axis=1)
    views = Views.of(train, **how)
    apart = all_distances(train, train, views.mirrored, views.shifts, views.brightness)
    close = (apart <= 0.01) | (apart <= 0.01).T
    reached = np.linalg.matrix_power(close.astype(int), len(train)) > 0
    found = distinct(train, 0.01, views)
    assert found.index[found.group].tolist() == [int(np.flatnonzero(row)[0]) for row in reached]
    assert found.merged == len(train) - len({tuple(row) for row in reached.tolist()}) > 0


def moved(points, s, seed):
    """Each picture moved by up to s pixels, with noise where nothing is known of it."""
    rng = np.random.default_rng(seed)
    canvas = rng.standard_normal((len(points), points.shape[1], *(side + 2 * s for side in points.shape[2:])))
    canvas[..., s:-s, s:-s] = points
    height, width = points.shape[2:]
    return np.stack([picture[:, y:y + height, x:x + width] for picture, (y, x) in zip(
        canvas, rng.integers(0, 2 * s + 1, (len(points), 2)), strict=True)]).astype(np.float32)


BIG_TRAIN, BIG_HELDOUT = (np.random.default_rng(seed).standard_normal((40, 1, 12, 12)).astype(np.float32)
                          for seed in (11, 12))


@pytest.mark.parametrize(("copies", "how"), [
    (moved(BIG_TRAIN, 2, 5), {"shifts": 2}), (0.4 * BIG_TRAIN + 2, {"brightness": True}),
    (0.4 * moved(BIG_TRAIN, 2, 5)[..., ::-1] + 2, {"mirrored": True, "shifts": 2, "brightness": True})],
    ids=["moved", "paler", "moved, mirrored and paler"])
def test_copies_seen_through_views_only(copies, how):
    """All of them, and the record says what was looked through; unseen pictures treated alike are none."""
    known = BIG_TRAIN
    assert geomem.memorization_rate(copies, known).rate < 0.1  # those that were moved by nothing
    found = geomem.memorization_rate(copies, known, **how)
    assert found.rate == 1
    assert found.nearest.tolist() == list(range(40))
    looked = {"space": "pixels", "mirrored": False, "shifts": 0, "brightness": False} | how
    others = moved(BIG_HELDOUT, 2, 6)
    leans = geomem.leaning(copies, known, others, **how)
    near = near_copies(copies, known, others, **how)
    assert (leans.share, near.count) == (1, 40)
    for part in (found, leans, near, leans.floor):
        assert {name: part.to_dict()[name] for name in looked} == looked
    assert geomem.memorization_rate(others, known, **how).rate == 0
    leaked = np.concatenate([others, copies[:7]])
    assert geomem.leaning(others, known, leaked, tolerance=0.05, **how).leaked == 7


def test_points_of_one_value_are_nothing_in_any_brightness():
    flat = np.full((3, 1, 4, 4), [[[[0.1]]], [[[7.0]]], [[[0.0]]]], dtype=np.float32)
    views = Views.of(flat, brightness=True)
    assert (np.asarray(views.reference(as_points("flat", flat))) == 0).all()


@pytest.mark.parametrize(("shape", "how", "message"), [
    ((4, 3, 8, 8), {"shifts": 4}, "less than half"), ((4, 3, 8, 8), {"shifts": -1}, "less than half"),
    ((4, 9), {"shifts": 1}, "cannot be shifted")])
def test_shifts_that_leave_nothing_are_refused(shape, how, message):
    points = np.random.default_rng(0).standard_normal(shape)
    with pytest.raises(InputError, match=message):
        geomem.memorization_rate(points, points, **how)


def test_mirrored_copies_are_copies():
    assert geomem.memorization_rate(MIRRORED, TRAIN).rate == 0
    found = geomem.memorization_rate(MIRRORED, TRAIN, mirrored=True)
    assert found.rate == 1
    assert found.mirrored
    assert found.nearest.tolist() == (np.arange(50) % 30).tolist()
    augmented = np.concatenate([TRAIN, TRAIN[..., ::-1]])  # else no sample is nearer to one of a pair than to the other
    assert geomem.memorization_rate(MIRRORED, augmented, mirrored=True).rate == 1
    assert geomem.memorization_rate(HELDOUT, TRAIN, mirrored=True).rate == 0


def test_mirrored_copies_lean_and_are_near_copies():
    assert geomem.leaning(MIRRORED, TRAIN, HELDOUT).p_value > 0.05
    assert geomem.leaning(MIRRORED, TRAIN, HELDOUT, mirrored=True).share > 0.99
    assert near_copies(MIRRORED, TRAIN, HELDOUT, mirrored=True).count == 50
    leaked = np.concatenate([HELDOUT, TRAIN[:5, ..., ::-1]])
    assert geomem.leaning(SAMPLES, TRAIN, leaked, mirrored=True).leaked == 5


def test_only_pictures_have_mirror_images():
    with pytest.raises(InputError, match="no mirror image"):
        geomem.memorization_rate(rows(SAMPLES), rows(TRAIN), mirrored=True)


def test_command_looks_for_mirror_images_where_asked_and_where_the_run_was_trained_on_them(tmp_path, capsys):
    data, samples = tmp_path / "data.npz", tmp_path / "samples.npz"
    np.savez(data, train=TRAIN, heldout=HELDOUT)
    for about, options, rate in (({}, [], 0.0), ({}, ["--mirrored"], 1.0), ({"flip": True}, [], 1.0)):
        Samples(MIRRORED, about).save(samples)
        assert status("memorization", samples, "--data", data, "--json", *options) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["trajectory"]["rate"] == rate
        assert found["trajectory"]["mirrored"] == (rate == 1)
    copies = np.roll(np.pad(TRAIN, ((0, 0), (0, 0), (2, 2), (2, 2))), 1, axis=3)
    np.savez(data, train=np.pad(TRAIN, ((0, 0), (0, 0), (2, 2), (2, 2))), heldout=np.pad(
        HELDOUT, ((0, 0), (0, 0), (2, 2), (2, 2))))
    np.savez(samples, samples=3 * copies)
    assert status("memorization", samples, "--data", data, "--shifts", 2, "--brightness") == 0
    said = capsys.readouterr().out
    assert "generated samples   100.0%" in said
    assert "looked for copies of training points, moved by up to 2 pixels, in any brightness and contrast" in said
