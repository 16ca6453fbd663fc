"""Wrong data: each is refused with one line that names it, and nothing of it is run, unpacked or written."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_inputs import npy, png
from PIL import Image
from test_data_readers import write_tree

from geomem.data import load_data
from geomem.errors import InputError

GOOD = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)


def refused(spec: Any, *words: str, **options: Any) -> None:
    """Loading fails with one line, without a warning, and the line holds all ``words``."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as caught:
            load_data(spec, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert " at 0x" not in message
    for word in words:
        assert word in message


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


# Arrays and NumPy files


def with_bad_values() -> np.ndarray:
    array = GOOD.copy()
    array[3, 1], array[5, :2] = np.nan, np.inf
    return array


@pytest.mark.parametrize(("array", "words"), [
    (with_bad_values(), ("3 NaN or infinite", "row 3")), (np.full((4, 2), 1e300), ("8 NaN or infinite", "row 0")),
    (np.zeros((0, 4)), ("empty",)), (np.zeros((4, 0)), ("empty",)), (np.zeros(5), ("(5,)",)), (np.array(3.0), ("()",)),
    (np.zeros((5, 4), np.int64), ("int64", "uint8")), (np.array([["a"]] * 4), ("<U1",)),
    (np.array([[{}]] * 4), ("object",)), (np.zeros((5, 4), np.uint8), ("(5, 4)",)),
    (np.zeros((5, 4, 4, 4), np.uint8), ("(5, 4, 4, 4)",)),
    (GOOD[:1], ("0 train points", "at least 2")), (GOOD[:2], ("1 train point;",)),
    ([[1.0, 2.0]] * 5, ("list",)), (None, ("NoneType",))])
def test_arrays(array, words):
    refused(array, "array", *words)


def test_the_first_bad_row_does_not_depend_on_chunks(monkeypatch):
    monkeypatch.setattr("geomem.points.CHUNK_BYTES", 2 * GOOD[0].nbytes)
    refused(with_bad_values(), "3 NaN or infinite", "row 3")


@pytest.mark.parametrize(("options", "words"), [
    ({"n_train": 9}, ("n_train", "9", "8")), ({"n_train": 1}, ("n_train", "from 2")), ({"n_train": -2}, ("n_train",)),
    ({"n_heldout": 9}, ("n_heldout", "8")), ({"n_heldout": 0}, ("n_heldout", "from 1")),
    ({"heldout": GOOD[:, :3]}, ("(3,)", "(4,)")), ({"heldout": "nowhere.npz"}, ("nowhere.npz",)),
    ({"heldout": np.zeros((4, 2, 2), np.uint8)}, ("(1, 2, 2)",))])
def test_options(options, words):
    refused(GOOD, *words, **{"heldout": GOOD} | options)


def test_scaled_beside_unscaled():
    refused(np.zeros((4, 4, 4), np.uint8), "uint8 images", "float", heldout=np.zeros((4, 1, 4, 4)))


@pytest.mark.parametrize("content", [b"", b"x", b"\x93NUMPY", npy(GOOD)[:-1], npy(GOOD)[:60],
                                     npy(GOOD).replace(b"'descr'", b"'desc('"), npy(np.zeros((0, 4)))])
def test_damaged_npy(tmp_path, content):
    refused(write_tree(tmp_path, {"d.npy": content}) / "d.npy", "d.npy")
    if content:
        refused(write_tree(tmp_path / "d.npz", {"train.npy": content}), "d.npz: train")


@pytest.mark.parametrize(("arrays", "words"), [
    ({"images": GOOD, "y": GOOD}, ("'train'", "images, y")), ({}, ("'train'", "none")),
    ({"train": GOOD, "heldout": GOOD[:, :3]}, ("(3,)",)), ({"train": GOOD, "heldout": GOOD[:0]}, ("heldout", "empty")),
    ({"train": GOOD, "train_labels": np.arange(7)}, ("train", "labels", "(7,)")),
    ({"train": GOOD, "train_labels": np.zeros(8)}, ("labels", "float64"))])
def test_npz_content(tmp_path, arrays, words):
    np.savez(tmp_path / "d.npz", **arrays)
    refused(tmp_path / "d.npz", "d.npz", *words)


def changed(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1:]


@pytest.mark.parametrize("kind", ["npz", "zip"])
def test_damaged_archives(tmp_path, kind):
    path = tmp_path / f"d.{kind}"
    np.savez_compressed(tmp_path / "d.npz", train=GOOD, heldout=GOOD)
    write_tree(tmp_path / "d.zip", {"a.png": png(), "b.png": png()})
    content = path.read_bytes()
    for wrong in (b"", b"text", content[:-10], content[:50], changed(content, 120 if kind == "npz" else 60)):
        path.write_bytes(wrong)
        refused(path, f"d.{kind}")


# Bombs: the limits are lowered, so that no test writes gigabytes


def test_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr("geomem.data.unpacking.MAX_UNPACKED_BYTES", 100_000)
    zeros = np.zeros((10, 50_000), np.float32)
    np.savez_compressed(tmp_path / "d.npz", train=zeros)
    refused(tmp_path / "d.npz", "d.npz", "2,000,128", "bomb")
    refused(write_tree(tmp_path / "d.zip", {"a.png": bytes(10**6), "b.png": b""}), "d.zip", "1,000,000", "bomb")
    refused(write_tree(tmp_path / "d", {f"{i}.png": png(1000, 1000) for i in range(3)}), "d", "3,000,000", "bomb")
    np.savez(tmp_path / "e.npz", train=zeros)
    assert len(load_data(tmp_path / "e.npz").train) == 8


def test_an_image_of_too_many_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for side in (35, 100):  # Pillow itself only warns about the first
        refused(write_tree(tmp_path / f"{side}", {"big.png": png(side, side)}), "big.png", "exceeds limit")


# Images


@pytest.mark.parametrize("where", ["folder", "d.zip"])
@pytest.mark.parametrize(("files", "words"), [
    ({}, ("no images",)), ({"readme.txt": b"x"}, ("no images", ".png")), ({"a.png": png(), "b.png": b""}, ("b.png",)),
    ({"a.png": png(), "b.png": png(40, 40)[:-30]}, ("b.png",)),
    ({"a.png": png(), "b.jpg": b"text"}, ("b.jpg", "image")),
    ({"a.png": png(4, 6), "c/b.png": png(5, 4)}, ("c/b.png: is 4 x 5", "a.png is 6 x 4")),
    ({"a.png": png(kind="I;16")}, ("a.png", "8 bits"))])
def test_images(tmp_path, where, files, words):
    (tmp_path / "folder").mkdir()
    refused(write_tree(tmp_path / where, files), str(tmp_path / where), *words)


def test_links(tmp_path):
    path = write_tree(tmp_path / "d", {"a.png": png(), "sub/b.png": png()})
    (path / "again").symlink_to(path / "sub")
    refused(path, "another way", "link")
    (tmp_path / "e.npy").symlink_to(tmp_path / "e.npy")
    refused(tmp_path / "e.npy", "e.npy")


# Text


@pytest.mark.parametrize(("content", "words"), [
    (b"1 2 3\n1 2\n", ("columns changed from 3 to 2",)), (b"1 2 3\n1 2 x\n", ("row 1", "'x'")),
    (b"label,a,b\n1,2,3\n", ("row 0", "'label'")), (b"1,2,3\n1,,3\n", ("row 1",)),
    (b"1 2 3\n\n0.5 2 3\n", ("integer label", "row 1")), (b"1\n2\n", ("integer label",)),
    (b"nan 2\n", ("integer label",)), (b"\n \n", ("empty",)), (b"1 2 nan\n1 2 3\n", ("1 NaN", "row 0")),
    (b"1 2 \xff\n", ("UTF-8",)), (b"1e300 2 3\n", ("integer label",))])
def test_text(tmp_path, content, words):
    files = {"X_TRAIN.txt": content, "Y_TRAIN.txt": b"1 2 3\n2 2 3\n", "Y_TEST.txt": content}
    refused(write_tree(tmp_path, files) / "X_TRAIN.txt", "X_TRAIN.txt", *words)
    refused(tmp_path / "Y_TRAIN.txt", "Y_TEST.txt", *words)


# Names and recipes


@pytest.mark.parametrize("spec", ["nowhere", "../digits", "digits.toml", "", "a\nb"])
def test_unknown_names_list_the_recipes_and_forms(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(spec, "digits", ".npz", ".zip", ".toml", "hf:NAME")


def test_unknown_form(tmp_path):
    refused(write_tree(tmp_path, {"d.pkl": b"x"}) / "d.pkl", "d.pkl", ".npz")
    refused(write_tree(tmp_path, {"d\ne.npy": b"x"}) / "d\ne.npy", "d e.npy")


SOURCE = '[source]\nkind = "file"\npath = "d.npy"\n'


@pytest.mark.parametrize(("text", "words"), [
    ("x", ()), ("", ("[source]",)), ("[source]\n", ("kind",)), ('[source]\nkind = "file"\n', ("path",)),
    ("source = 3\n", ()), ('[source]\nkind = "ftp"\n', ("ftp", "sklearn")),
    ('[source]\nkind = "sklearn"\nname = "fetch_lfw_people"\n', ("fetch_lfw_people", "load_digits")),
    ('[source]\nkind = "file"\npath = "gone.npy"\n', ("gone.npy",)),
    ('[source]\nkind = "file"\npath = "mine.toml"\n', ("mine.toml", "form")),
    (SOURCE + "[extra]\n", ("extra",)), (SOURCE + "[points]\nshap = [4]\n", ("points.shap",)),
    (SOURCE + "[points]\nshape = [5]\n", ()), (SOURCE + "[points]\nshape = [2]\n", ("[2]", "(4,)")),
    (SOURCE + "[points]\nrange = [0, 1]\n", ("range",)), (SOURCE + "[points]\nrange = [2, 1]\n", ("range",)),
    (SOURCE + '[split]\nrule = "permutation"\nseed = 0\ntrain = 7\nheldout = 2\n', ("8 points",)),
    (SOURCE + '[split]\nrule = "odd"\nseed = 0\ntrain = 4\nheldout = 2\n', ("permutation",)),
    (SOURCE + '[split]\nrule = "permutation"\n', ("train",)),
    (SOURCE + 'heldout = "d.npy"\n[split]\nrule = "permutation"\ntrain = 4\nheldout = 2\n', ("[split]",)),
    (SOURCE + '[expected]\nsha256 = "0"\n', ("[split]",)),
    (SOURCE + 'heldout = "d.npy"\n[expected]\nsha256 = "0"\n', ("expects 0",))])
def test_recipes(tmp_path, text, words):
    np.save(tmp_path / "d.npy", GOOD)
    (tmp_path / "mine.toml").write_text(text)
    refused(tmp_path / "mine.toml", str(tmp_path), *words)
