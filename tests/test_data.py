"""Data sets: scaling, splits, subsets, hash."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from geomem.data import DataSet, from_uint8, load_data, to_uint8
from geomem.rng import random_order


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def pictures(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def rows(points: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in points}


# Scaling


def test_every_pixel_value_is_scaled_exactly_and_comes_back():
    values = np.arange(256, dtype=np.uint8)
    scaled = from_uint8(values)
    assert scaled.dtype == np.float32
    exact = np.arange(256) / 127.5 - 1
    # Half an ulp of v / 127.5, below 2, and half an ulp of the difference, below 1.
    assert np.abs(scaled - exact).max() <= 2.0**-24 + 2.0**-25
    assert scaled[0] == -1
    assert scaled[255] == 1
    np.testing.assert_array_equal(to_uint8(scaled), values)


def test_to_uint8_rounds_and_clips():
    np.testing.assert_array_equal(to_uint8(np.array([-3, -1, 1, 3, 0.4 / 127.5, -0.4 / 127.5])),
                                  [0, 0, 255, 255, 128, 127])


@pytest.mark.parametrize(("shape", "axes"), [
    ((6, 4, 5), None), ((6, 4, 5, 1), (0, 3, 1, 2)), ((6, 4, 5, 3), (0, 3, 1, 2)),
    ((6, 3, 4, 5), (0, 1, 2, 3)), ((6, 1, 4, 5), (0, 1, 2, 3)), ((6, 3, 4, 3), (0, 3, 1, 2))])
def test_uint8_layouts_become_channels_first(shape, axes):
    images = pictures(*shape)
    data = load_data(images, heldout=images)
    expected = images[:, None] if axes is None else images.transpose(axes)
    np.testing.assert_array_equal(data.train, expected / np.float32(127.5) - np.float32(1))
    np.testing.assert_array_equal(to_uint8(data.train), expected)
    assert data.pixels
    assert data.train.flags.c_contiguous


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 1, 7), (5, 3, 4, 4)])
def test_floats_are_taken_as_they_are(kind, shape):
    array = (100 * noise(*shape)).astype(kind)
    data = load_data(array, heldout=array)
    np.testing.assert_array_equal(data.train, array.astype(np.float32))
    assert data.train.dtype == data.heldout.dtype == np.float32
    assert not data.pixels
    assert data.dim == np.prod(shape[1:])


def test_tensors():
    torch = pytest.importorskip("torch")
    array = noise(9, 4)
    for tensor in (torch.tensor(array, requires_grad=True), torch.tensor(array, dtype=torch.float64)):
        np.testing.assert_array_equal(load_data(tensor, heldout=array).train, array)
    assert load_data(torch.tensor(array).bfloat16()).train.dtype == np.float32
    assert load_data(torch.tensor(pictures(9, 3, 4, 4))).pixels


# Split and subsets


def test_split_is_announced_seeded_disjoint_and_whole():
    array = noise(101, 3)
    data, again, other = load_data(array), load_data(array), load_data(array, seed=1)
    assert (len(data.train), len(data.heldout)) == (81, 20)
    assert not rows(data.train) & rows(data.heldout)
    assert rows(data.train) | rows(data.heldout) == rows(array)
    np.testing.assert_array_equal(data.heldout, again.heldout)
    assert rows(other.heldout) != rows(data.heldout)
    assert data.notes == ("no held-out part: 20 of 101 points held out at random (seed 0)",)
    positions = [int(np.flatnonzero((array == row).all(axis=1))[0]) for row in data.train]
    assert positions == sorted(positions)


@pytest.mark.parametrize(("n", "n_heldout"), [(3, 1), (5, 1), (10, 2), (60_000, 10_000)])
def test_size_of_the_split(n, n_heldout):
    assert len(load_data(noise(n, 1)).heldout) == n_heldout


def test_random_order_never_changes():
    """Frozen, since published subsets depend on it."""
    assert random_order(8, 0, "split").tolist() == [6, 0, 5, 2, 3, 4, 1, 7]
    assert sorted(random_order(1000, 3, "x")) == list(range(1000))


def test_subsets_are_the_first_points_and_come_after_the_split():
    array = noise(100, 3)
    whole, cut = load_data(array), load_data(array, n_train=30, n_heldout=7)
    np.testing.assert_array_equal(cut.train, whole.train[:30])
    np.testing.assert_array_equal(cut.heldout, whole.heldout[:7])
    np.testing.assert_array_equal(load_data(array, n_train=30).heldout, whole.heldout)


def test_shuffled_subsets_are_random_nested_and_seeded():
    array = noise(100, 3)
    whole = load_data(array, shuffle=True)
    cut = load_data(array, shuffle=True, n_train=30)
    np.testing.assert_array_equal(cut.train, whole.train[:30])
    assert rows(whole.train) == rows(load_data(array).train)
    assert rows(cut.train) != rows(load_data(array, n_train=30).train)
    held = noise(20, 3, seed=1)
    assert rows(load_data(array, heldout=held, shuffle=True, n_train=30, seed=1).train) != rows(
        load_data(array, heldout=held, shuffle=True, n_train=30).train)


@pytest.mark.parametrize(("m", "n_validation"), [(1, 0), (2, 0), (3, 1), (100, 33), (1500, 500), (1600, 500)])
def test_points_that_steer_are_never_among_those_that_judge(m, n_validation):
    data = load_data(noise(4, 2), heldout=noise(m, 2, seed=1))
    assert len(data.validation) == data.n_validation == n_validation
    assert not rows(data.validation) & rows(data.test)
    assert rows(data.validation) | rows(data.test) == rows(data.heldout)


def test_heldout_spec_takes_the_place_of_the_held_out_part(tmp_path):
    np.savez(tmp_path / "a.npz", train=noise(5, 3), heldout=noise(4, 3, seed=1))
    np.savez(tmp_path / "b.npz", train=noise(6, 3, seed=2), heldout=noise(7, 3, seed=3))
    data = load_data(tmp_path / "a.npz", heldout=tmp_path / "b.npz")
    np.testing.assert_array_equal(data.heldout, noise(6, 3, seed=2))
    assert data.notes == ("held-out points from b in place of those of a",)


def test_cutting_whole_classes_away_is_announced(tmp_path):
    labels = np.repeat(np.arange(4), 10)
    np.savez(tmp_path / "a.npz", train=noise(40, 3), train_labels=labels, heldout=noise(40, 3, seed=1),
             heldout_labels=labels)
    data = load_data(tmp_path / "a.npz", n_train=15)
    assert data.notes == ("the 15 training points hold 2 of 4 classes; --shuffle mixes them",)
    assert load_data(tmp_path / "a.npz", shuffle=True).notes == ()


# Hash and duplicates


def test_hash_is_of_the_content_alone(tmp_path):
    train = np.arange(300, dtype=np.float32).reshape(50, 6)
    held = -train[:20]
    first = DataSet("a", train, held)
    assert first.sha256 == hashlib.sha256(
        b"(50, 6) float32\n" + train.tobytes() + b"(20, 6) float32\n" + held.tobytes()).hexdigest()
    assert DataSet("b", np.asfortranarray(train), held.copy(), notes=("x",)).sha256 == first.sha256
    changed = train.copy()
    changed[3, 2] += 1
    for other in (DataSet("a", changed, held), DataSet("a", held, train), DataSet("a", train[:49], held),
                  DataSet("a", train.reshape(50, 2, 3), held.reshape(20, 2, 3))):
        assert other.sha256 != first.sha256


def test_hash_and_duplicates_do_not_depend_on_chunks(monkeypatch):
    train = noise(50, 6)
    train[[7, 30, 44]] = train[2]
    train[10], train[11] = 0.0, -0.0
    held = noise(20, 6, seed=1)
    whole = DataSet("a", train, held)
    assert whole.duplicates == 4
    monkeypatch.setattr("geomem.points.CHUNK_BYTES", 7 * 6 * 4)
    chunked = DataSet("a", train, held)
    assert (chunked.sha256, chunked.duplicates) == (whole.sha256, whole.duplicates)
