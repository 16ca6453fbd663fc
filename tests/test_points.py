"""Points of any kind as rows: the same values as the array in memory, without reading stored points whole."""

import numpy as np
import pytest
import torch

from geomem import InputError, points
from geomem.points import as_points, as_rows

DATA = np.random.default_rng(0).standard_normal((11, 2, 3)).astype(np.float32)


class Store:
    """Points in a file, in the manner of HDF5: [slice of positive step or ascending integers], no other index."""

    def __init__(self, array):
        self._array, self.shape, self.dtype, self.most, self.reads = array, array.shape, array.dtype, 0, 0

    def __len__(self):
        return len(self._array)

    def __array__(self, *_args, **_kwargs):
        raise AssertionError("read whole")

    def __getitem__(self, index):
        if isinstance(index, slice):
            assert index.step in (None, 1)
        else:
            assert (np.diff(index) > 0).all()
            assert len(index)
        rows = self._array[index]
        self.most, self.reads = max(self.most, len(rows)), self.reads + 1
        return rows


def memory_map(array, folder):
    np.save(folder / "points.npy", array)
    return np.load(folder / "points.npy", mmap_mode="r")


@pytest.fixture(params=["array", "tensor", "memory map", "store", "source"])
def source(request, tmp_path):
    made = {"array": lambda: DATA, "tensor": lambda: torch.from_numpy(DATA), "store": lambda: Store(DATA),
            "memory map": lambda: memory_map(DATA, tmp_path), "source": lambda: as_points("train", Store(DATA))}
    return as_points("train", made[request.param]())


@pytest.mark.parametrize("index", [
    slice(None), slice(3, 7), slice(-4, None), slice(7, 3), slice(20, 30), slice(None, None, 3), slice(9, 2, -2),
    np.array([4]), np.array([10, 0, 3]), np.array([2, 2, -1, 0, 2]), np.array([], dtype=int)])
def test_rows_as_from_the_array(source, index):
    rows = source.take(index)
    np.testing.assert_array_equal(rows, DATA.reshape(11, 6)[index])
    assert (source.shape, source.dim) == ((11, 2, 3), 6)
    assert rows.dtype == source.dtype == np.float32
    assert rows.flags.c_contiguous
    assert rows.ndim == 2


def test_rows_that_are_not_there(source):
    with pytest.raises(IndexError):
        source.take(np.array([0, 11]))


@pytest.mark.parametrize("kind", ["uint8", "int64", "bool", "float16", "float32", "float64", ">f4", "<f8"])
def test_stored_points_have_the_dtype_of_points_in_memory(kind, tmp_path):
    array = (DATA * 10).astype(kind)
    expected = as_rows(array, "train")
    for stored in (Store(array), memory_map(array, tmp_path)):
        source = as_points("train", stored)
        rows = source.take(np.array([5, 1]))
        assert source.dtype == rows.dtype == expected.dtype
        assert rows.dtype.isnative
        np.testing.assert_array_equal(rows, expected[[5, 1]])


def test_nothing_is_copied_that_need_not_be(tmp_path):
    array = DATA.reshape(11, 6)
    for held in (array, memory_map(DATA, tmp_path)):
        source = as_points("train", held)
        assert np.shares_memory(source.take(slice(2, 9)), held)
    assert as_points("train", source) is source
    assert as_points("train", [[1.0, 2.0]]).take(slice(None)).tolist() == [[1, 2]]


def test_stored_points_are_read_in_runs(monkeypatch):
    monkeypatch.setattr(points, "CHUNK_BYTES", 4 * 6 * 4)  # four points
    store = Store(DATA)
    as_points("train", store)
    assert (store.reads, store.most) == (3, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("wrap", [np.array, torch.from_numpy, Store])
def test_the_first_bad_point_is_named_whatever_the_runs(value, wrap, monkeypatch):
    array = DATA.copy()
    array[6, 1, 2] = array[9, 0, 0] = value
    for size in (2**26, 4 * 6 * 4, 1):
        monkeypatch.setattr(points, "CHUNK_BYTES", size)
        with pytest.raises(InputError, match="train holds NaN or infinite values, the first in point 6;"):
            as_points("train", wrap(array))


def test_opposite_infinities_and_sums_that_overflow():
    array = np.zeros((3, 2))
    array[1] = np.inf, -np.inf  # their sum is NaN
    with pytest.raises(InputError, match="point 1;"):
        as_points("train", Store(array))
    array[:] = 1e308  # finite, although the sum is not
    np.testing.assert_array_equal(as_points("train", Store(array)).take(slice(None)), array)


@pytest.mark.parametrize(("array", "words"), [
    (np.zeros((0, 3)), "shape"), (np.zeros((3, 0)), "shape"), (np.zeros((3, 2), complex), "complex128"),
    (np.array([["a"]]), "<U1"), (np.array([[{}]]), "object")])
@pytest.mark.parametrize("wrap", [np.array, Store])
def test_wrong_points(array, words, wrap):
    with pytest.raises(InputError, match=words):
        as_points("train", wrap(array))


def test_a_dtype_that_numpy_does_not_know():
    store = Store(DATA)
    store.dtype = "bfloat16-ish"
    with pytest.raises(InputError, match="unknown to NumPy"):
        as_points("train", store)


def test_bfloat16_tensors():
    values = torch.from_numpy(DATA).bfloat16()
    np.testing.assert_array_equal(as_rows(values, "train"), values.float().numpy().reshape(11, 6))
