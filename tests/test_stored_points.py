"""Points on disk: what an array in memory gives, bit for bit, without reading more than was asked for."""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data_wrong import Payload, png, refused

from geomem.cli.main import main
from geomem.data import StoredPoints, load_data, points
from geomem.points import as_points

PICTURES = np.random.default_rng(0).integers(0, 256, (30, 5, 4, 3), dtype=np.uint8)
KINDS = {
    "grey": PICTURES[..., 0], "channels last": PICTURES, "channels first": PICTURES.transpose(0, 3, 1, 2),
    "float16": (PICTURES / 50 - 2).astype(np.float16), "float32": (PICTURES / 50 - 2).astype(np.float32),
    "float64": PICTURES / 50 - 2, "big-endian": (PICTURES / 50 - 2).astype(">f8"),
    "Fortran order": np.asfortranarray(PICTURES / 50 - 2)}


def write(folder: Path, array: np.ndarray, cuts: tuple[int, ...] = (0, 7, 8, 30)) -> Path:
    """A folder of shards: rows 0 to 6 in one file, 7 in the next, the others in the last."""
    folder.mkdir()
    for i, (low, high) in enumerate(pairwise(cuts)):
        np.save(folder / f"part-{i}.npy", array[low:high])
    return folder


@pytest.fixture
def small_limit(monkeypatch):
    monkeypatch.setattr("geomem.data.points.STORED_BYTES", 1000)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_sequence_of_indices(data):
    array = np.arange(24, dtype=np.float64).reshape(12, 2) / 7
    cuts = sorted(data.draw(st.lists(st.integers(0, 12), max_size=3)))
    stored, expected = StoredPoints(np.split(array, cuts)), array.astype(np.float32)
    for _ in range(data.draw(st.integers(0, 3))):
        n = len(expected)
        if n == 0:
            break
        index = data.draw(st.slices(n) | st.lists(st.integers(-n, n - 1), max_size=15).map(
            lambda i: np.array(i, dtype=int)) | st.lists(st.booleans(), min_size=n, max_size=n).map(np.array))
        np.testing.assert_array_equal(stored.select(index), expected[index])
        np.testing.assert_array_equal(stored[index], expected[index])
        stored, expected = stored.select(index), expected[index]
    assert (stored.shape, stored.dtype, stored.ndim, len(stored)) == (expected.shape, np.float32, 2, len(expected))
    assert (stored.size, stored.nbytes) == (expected.size, expected.nbytes)
    for i in range(-len(expected), len(expected)):
        np.testing.assert_array_equal(stored[i], expected[i])
    np.testing.assert_array_equal(stored[1:5], expected[1:5])
    np.testing.assert_array_equal(stored.take(slice(1, 5)), expected[1:5])


def test_what_stays_stored_and_what_is_read():
    stored = StoredPoints([np.zeros((4, 2)), np.ones((3, 2))])
    assert isinstance(stored[1:5], StoredPoints)
    assert isinstance(stored[1:5][::-2], StoredPoints)
    assert isinstance(stored.select(np.array([5, 0])), StoredPoints)
    for read in (stored[np.array([5, 0])], stored[[5, 0]], stored[np.int64(2)], stored[stored.take(slice(7))[:, 0] > 0],
                 stored.take(slice(1, 6)), np.asarray(stored), np.asarray(stored[:0])):
        assert type(read) is np.ndarray
        assert read.dtype == np.float32
    assert np.asarray(stored, dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy"):
        np.asarray(stored, copy=False)


@pytest.mark.parametrize("index", [(0, 1), (slice(None), 0), None, ..., True, 1.5, np.zeros((2, 2), int), "a", 7, -8,
                                   [0, 7], np.ones(6, bool), [0.5]])
def test_an_index_of_another_kind(index):
    stored = StoredPoints([np.zeros((7, 2))])
    with pytest.raises(IndexError):
        stored[index]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"n_train": 20, "n_heldout": 2}, {"shuffle": True, "n_train": 15, "seed": 3}])
def test_the_data_set_is_that_of_the_array_in_memory(tmp_path, kind, options, request):
    array = KINDS[kind].copy(order="K")
    array[11] = array[4]
    np.save(tmp_path / "whole.npy", array)
    expected = load_data(array, **options)
    request.getfixturevalue("small_limit")
    for path in (tmp_path / "whole.npy", write(tmp_path / "shards", array)):
        data = load_data(path, **options)
        assert isinstance(data.train, StoredPoints)
        assert type(data.heldout) is np.ndarray
        assert data.name == path.stem
        assert (data.sha256, data.std, data.dim) == (expected.sha256, expected.std, expected.dim)
        assert (data.duplicates, data.pixels, data.notes) == (expected.duplicates, expected.pixels, expected.notes)
        np.testing.assert_array_equal(data.train, expected.train)
        np.testing.assert_array_equal(data.heldout, expected.heldout)
        source = as_points("train", data.train)
        np.testing.assert_array_equal(source.take(slice(3, 8)), expected.train.reshape(len(expected.train), -1)[3:8])


def test_small_data_are_in_memory_and_large_ones_stay_stored(tmp_path, request):
    np.save(tmp_path / "d.npy", PICTURES)
    for path in (tmp_path / "d.npy", write(tmp_path / "shards", PICTURES)):
        data = load_data(path)
        assert type(data.train) is np.ndarray
        assert data.sha256 == load_data(PICTURES).sha256
    request.getfixturevalue("small_limit")
    assert isinstance(load_data(np.load(tmp_path / "d.npy", mmap_mode="r")).train, StoredPoints)
    assert type(load_data(PICTURES).train) is np.ndarray  # in memory already


@pytest.mark.parametrize("options", [{}, {"shuffle": True, "n_train": 300}])
def test_no_more_than_a_run_is_read_at_a_time(tmp_path, monkeypatch, small_limit, options):
    array = np.random.default_rng(1).standard_normal((400, 6))
    np.save(tmp_path / "held.npy", array[:5])
    read = []
    convert = points._as_float32
    monkeypatch.setattr(points, "_as_float32", lambda rows: read.append(len(rows)) or convert(rows))
    monkeypatch.setattr("geomem.points.CHUNK_BYTES", 12 * 6 * 4)
    # The tolerance for near duplicates takes 1,000 points and a few neighbours of each, however many there are.
    for name in ("_tolerance", "_largest_tolerance"):
        monkeypatch.setattr(f"geomem.duplicates.{name}", lambda *_: 0.0)
    data = load_data(write(tmp_path / "shards", array, (0, 199, 400)), heldout=tmp_path / "held.npy", **options)
    assert (len(data.sha256), data.duplicates, data.std > 0) == (64, 0, True)
    as_points("train", data.train)
    assert max(read) <= 12
    assert sum(read) > 4 * len(data.train)


def test_standard_deviation_in_runs(monkeypatch):
    values = np.float32(1000) + np.random.default_rng(2).standard_normal((500, 7)).astype(np.float32)
    data = load_data(values, heldout=values[:3])
    assert data.std == float(values.std(dtype="float64"))  # bit for bit where one run holds all
    monkeypatch.setattr("geomem.points.CHUNK_BYTES", 13 * 7 * 4)
    runs = load_data(values, heldout=values[:3])
    np.testing.assert_allclose(runs.std, np.std(values.astype(np.float64)), rtol=1e-13)


def test_shards_follow_each_other_by_name(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    for name, value in (("b", 1), ("a", 0), ("c", 2), (".hidden", 9)):
        np.save(folder / f"{name}.npy", np.full((4, 2), float(value)))
    np.save(folder / "bb.npy", np.empty((0, 2)))  # a writer that got no rows
    (folder / "README.txt").write_text("not data")
    os.rename(folder / "c.npy", tmp_path / "elsewhere.npy")
    os.symlink(tmp_path / "elsewhere.npy", folder / "c.npy")
    data = load_data(folder, heldout=np.zeros((2, 2)))
    np.testing.assert_array_equal(data.train[:, 0], np.repeat([0, 1, 2], 4))


def test_a_folder_with_images_is_one_of_images(tmp_path):
    folder = write(tmp_path / "d", PICTURES)
    (folder / "deep").mkdir()
    for i in range(5):
        (folder / "deep" / f"{i}.png").write_bytes(png(value=i))
    assert load_data(folder).dim == 64


# Wrong files


def header(path: Path, shape: str, rows: int, descr: str = "<f4") -> None:
    """A version 1 file whose header says ``shape``, before ``rows`` rows of 8 bytes."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(8 * rows))


@pytest.mark.parametrize("shape", ["(9, 2)", "(7, 2)", "(-8, 2)", "(8, -2)", "(2**70, 2)", "(1000000000000000000, 2)",
                                   "(8, 2, 0)", "(4611686018427387904, 4)", "(8.0, 2)", "8", "()", "'aa'"])
def test_a_header_that_lies(tmp_path, shape):
    for folder in (tmp_path, tmp_path / "shards"):
        folder.mkdir(exist_ok=True)
        header(folder / "a.npy", "(8, 2)", 8)
        assert load_data(folder / "a.npy").dim == 2
        header(folder / "b.npy", shape, 8)
    refused(tmp_path / "b.npy", "b.npy")
    refused(tmp_path / "shards", "b.npy")


def test_a_header_that_python_2_wrote(tmp_path):
    header(tmp_path / "a.npy", "(8L, 2L)", 8)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.write(tmp_path / "a.npy", "train.npy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_data(tmp_path / "a.npy").dim == load_data(tmp_path / "a.npz").dim == 2


def test_pickle_is_never_run(tmp_path):
    folder = write(tmp_path / "d", KINDS["float32"])
    np.save(folder / "part-0.npy", np.array([Payload(tmp_path / "trace")] * 4, dtype=object), allow_pickle=True)
    refused(folder, "part-0.npy", "Python objects")
    header(folder / "part-0.npy", "(8, 2)", 8, "|O")
    refused(folder, "part-0.npy", "Python objects")
    assert not (tmp_path / "trace").exists()


def test_files_that_are_none(tmp_path):
    folder = write(tmp_path / "d", KINDS["float32"])
    for make in (os.mkdir, os.mkfifo, lambda path: os.symlink("nowhere", path)):
        path = folder / "x\ny.npy"
        make(path)
        refused(folder, "x y.npy", "not a file")
        os.rmdir(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(("other", "words"), [
    (np.zeros((3, 5, 4), np.float32), ("one shape of a row",)), (np.zeros((3, 5, 4, 3)), ("float64", "float32")),
    (np.zeros((), np.float32), ("shape ()",)), (np.full((3, 5, 4, 3), np.inf, np.float32), ("row 30", "180 NaN"))])
def test_shards_that_do_not_fit(tmp_path, other, words, small_limit):
    folder = write(tmp_path / "d", KINDS["float32"])
    np.save(folder / "part-3.npy", other)
    refused(folder, *words)


@pytest.mark.parametrize(("array", "words"), [
    (np.zeros((30, 2), np.int64), ("int64",)), (np.zeros(30), ("(30,)",)), (np.zeros((30, 0)), ("empty",)),
    (np.zeros((30, 2), np.uint8), ("(30, 2)",)), (np.full((30, 40), 1e300), ("1,200 NaN or infinite",))])
def test_arrays_that_are_no_points(tmp_path, array, words, small_limit):
    refused(write(tmp_path / "d", array), "d: ", *words)


# Use


def test_commands_on_stored_points(tmp_path, monkeypatch, capsys):
    array = np.random.default_rng(3).standard_normal((150, 6))
    np.save(tmp_path / "d.npy", array)
    runs = []
    for limit in (1 << 30, 100):
        monkeypatch.setattr("geomem.data.points.STORED_BYTES", limit)
        run = tmp_path / f"run-{limit}"
        main(["train", str(tmp_path / "d.npy"), "--out", str(run), "--iterations", "20", "--batch", "16", "--gap",
              "auto", "--device", "cpu"])
        config = json.loads((run / "config.json").read_text())
        weights = (run / "model.safetensors").read_bytes()
        main(["memorization", str(run), "--json", "--n-samples", "8", "--sigmas", "2", "--n-points", "4"])
        report = json.loads(capsys.readouterr().out)
        runs.append((config["data"]["sha256"], config["sigma_data"], weights, report["trajectory"],
                     report["per_noise_level"]))
    assert runs[0] == runs[1]
