"""Samples on another usual range than the training points: refused, and honest points of any kind never."""

import numpy as np
import pytest
from commands import status
from sklearn.datasets import load_digits, load_sample_images

import geomem
from geomem import InputError
from geomem.points import as_points
from geomem.scales import USUAL, note_other_range, other_range, require_one_scale

PAIRS = [(a, b) for a in USUAL for b in USUAL if a != b]


def on(usual, pictures):
    """Pictures on [0, 1] brought to another range."""
    return (usual[0] + (usual[1] - usual[0]) * pictures).astype(np.float32)


@pytest.fixture(scope="module")
def digits():
    return np.random.default_rng(0).permutation(load_digits().images[:, None] / 16)


@pytest.fixture(scope="module")
def photos():
    """Crops of two photographs, (N, 3, 16, 16) on [0, 1]; a fifth of them is bright all over."""
    pictures = [np.asarray(image).transpose(2, 0, 1) / 255 for image in load_sample_images().images]
    crops = [picture[:, i:i + 16, j:j + 16] for picture in pictures for i in range(0, 400, 16)
             for j in range(0, 624, 16)]
    return np.random.default_rng(0).permutation(np.stack(crops))


def found(points, train):
    return other_range(as_points("points", points), as_points("train", train))


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_copies_on_another_scale_are_refused_either_way_round(a, b, digits):
    train, copies = on(b, digits[:200]), on(a, digits[:20])
    assert found(copies, train) == (a, b)
    heldout = on(b, digits[200:400])
    for measure in (lambda: geomem.memorization_rate(copies, train), lambda: geomem.leaning(copies, train, heldout),
                    lambda: geomem.leaning(train, train, on(a, digits[200:400])),
                    lambda: geomem.audit(copies, train, heldout), lambda: geomem.load_data(train, heldout=copies)):
        with pytest.raises(InputError, match=r"on \[.*\], .* on \[.*bring both to one range, the former by"):
            measure()


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_the_map_that_is_named_makes_them_one(a, b, digits):
    with pytest.raises(InputError) as told:
        require_one_scale("samples", on(a, digits[:20]), on(b, digits))
    mapped = eval(str(told.value).split("the former by ")[1], {"x": on(a, digits[:20])})
    np.testing.assert_allclose(mapped, on(b, digits[:20]), atol=1e-5 * (b[1] - b[0]))


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_samples_that_are_no_copies_are_refused_on_another_scale(a, b, digits, photos):
    assert found(on(a, digits[200:400]), on(b, digits[400:])) == (a, b)
    if a != (0.0, 1.0) or b != (-1.0, 1.0):  # among bright photographs such samples may be some of them
        assert found(on(a, photos[:200]), on(b, photos[200:])) == (a, b)


def test_copies_among_pictures_that_lie_on_both_ranges_are_refused(photos):
    """A few copies on [0, 1] among samples, and training pictures on [-1, 1] of which many are above 0."""
    samples = on(USUAL[0], np.concatenate([photos[500:510], photos[:200]]))
    assert found(samples, on(USUAL[1], photos[200:])) == (USUAL[0], USUAL[1])


@pytest.mark.parametrize("usual", USUAL)
def test_honest_pictures_are_not_refused(usual, digits, photos):
    for pictures in (digits, photos):
        train, fresh = on(usual, pictures[300:]), pictures[:300]
        bright, width = fresh[fresh.min(axis=(1, 2, 3)) >= 0.47], usual[1] - usual[0]
        blurred = np.full_like(fresh, 0) + train.mean(0) + 0.1 * width * (fresh - fresh.mean(0))
        noisy = on(usual, fresh) + np.random.default_rng(1).normal(0, 0.3 * width, fresh.shape)
        for samples in (on(usual, fresh), on(usual, fresh[:1]), on(usual, bright), train[:50], blurred, noisy,
                        np.zeros_like(train[:9]), on(usual, np.round(fresh * 255) / 255)):
            assert not len(samples) or found(samples.astype(np.float32), train) is None


def test_bright_and_dark_classes_alone_are_not_refused(digits):
    """A class all of whose values lie on another usual range, in low and in high dimension, is one of the data."""
    rng = np.random.default_rng(0)
    for d in (1, 2, 64):
        train = np.concatenate([rng.uniform(-1, 1, (1900, d)), rng.uniform(0, 1, (100, d))])
        assert found(rng.uniform(0, 1, (200, d)), train) is None
    for k in range(1000):  # few samples in few dimensions
        assert found(rng.uniform(-1, 1, (1, 2)), rng.uniform(-1, 1, (8, 2))) is None, k


@pytest.mark.parametrize("scale", [0.18215, 1, 5])
def test_latents_and_standardized_series_are_not_refused(scale):
    rng = np.random.default_rng(0)
    for shape in ((4, 8, 8), (1, 100), (2,)):
        train, samples = scale * rng.normal(size=(500, *shape)), scale * rng.normal(size=(200, *shape))
        for given in (samples, samples / 2, 2 * samples, np.abs(samples), np.tanh(samples), 0 * samples):
            assert found(given, train) is None
        assert found(np.tanh(samples), np.tanh(train)) is None


def test_ranges_that_do_not_fit_are_said_whichever_way_round(caplog):
    rng = np.random.default_rng(0)
    train = rng.normal(size=(300, 20))
    for factor, shift, told in ((1, 0, False), (1.2, 0.1, False), (0.2, 0, True), (6, 0, True), (1, 8, True)):
        for a, b in ((train, factor * train + shift), (factor * train + shift, train)):
            caplog.clear()
            note_other_range("samples", a, b)
            assert ("never taken for copies" in caplog.text) == told, (factor, shift)


@pytest.mark.parametrize("command", ["memorization", "audit", "quality", "risk"])
def test_commands_refuse_samples_on_another_scale_in_one_line(command, digits, tmp_path, capsys):
    np.savez(tmp_path / "data.npz", train=on(USUAL[0], digits[:60]), heldout=on(USUAL[0], digits[60:120]))
    np.savez(tmp_path / "copies.npz", samples=on(USUAL[1], digits[:20]))
    arguments = [tmp_path / "data.npz", "--samples", tmp_path / "copies.npz"] if command == "risk" else [
        tmp_path / "copies.npz", "--data", tmp_path / "data.npz"]
    assert status(command, *arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "on [-1, 1], the training points of data on [0, 1]" in error
