"""How data are read where there is a choice: channels, sizes, columns; and samples that are pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commands import status
from PIL import Image
from test_data import noise, pictures
from test_data_official import encoded, images_are, table
from test_data_readers import png, write_tree
from test_data_wrong import refused

from geomem.data import StoredPoints, load_data, to_uint8
from geomem.generation import holds_samples, read_samples
from geomem.report.commands import data_arguments

pytestmark = pytest.mark.usefixtures("one_child")
COLOUR = pictures(6, 4, 4, 3)


# Channels


@pytest.mark.parametrize(("shape", "channels", "axes", "said"), [
    ((8, 8, 3), None, (0, 3, 1, 2), "are read as 8 x 8 with 3 channels; --channels first reads 8 x 3 with 8 channels"),
    ((5, 6, 1), None, (0, 3, 1, 2), "are read as 5 x 6 with 1 channels; --channels first"),
    ((8, 8, 3), "first", (0, 1, 2, 3), None), ((8, 8, 3), "last", (0, 3, 1, 2), None),
    ((8, 8, 8), "last", (0, 3, 1, 2), None), ((3, 8, 8), None, (0, 1, 2, 3), None),
    ((3, 8, 4), None, (0, 1, 2, 3), "are read as 8 x 4 with 3 channels; --channels last reads 3 x 8 with 4 channels"),
    ((4, 4, 3), None, (0, 3, 1, 2), "are read as 4 x 4 with 3 channels; --channels first reads 4 x 3 with 4 channels"),
    ((16, 4, 4), None, (0, 1, 2, 3), None), ((4, 8, 8), None, (0, 1, 2, 3), None)])
@pytest.mark.parametrize("where", ["memory", "d.npy", "large.npy"])
def test_channels_of_floats(tmp_path, monkeypatch, where, shape, channels, axes, said):
    array = noise(9, *shape)
    spec = array
    if where != "memory":
        np.save(spec := tmp_path / where, array)
    if where == "large.npy":
        monkeypatch.setattr("geomem.data.points.STORED_BYTES", 100)
    data = load_data(spec, heldout=array[:4], channels=channels)
    assert isinstance(data.train, StoredPoints) == (where == "large.npy")
    np.testing.assert_array_equal(np.asarray(data.train), array.transpose(axes))
    np.testing.assert_array_equal(data.heldout, array[:4].transpose(axes))
    notes = [note for note in data.notes if "channels" in note]
    assert (f"points of shape {shape} {said}" in notes[0]) if said else not notes


@pytest.mark.parametrize(("channels", "axes"), [("first", (0, 1, 2, 3)), ("last", (0, 3, 1, 2)), (None, (0, 3, 1, 2))])
def test_channels_of_pictures_where_both_could_be(channels, axes):
    images = pictures(6, 3, 4, 3)
    data = load_data(images, heldout=255 - images, channels=channels)
    np.testing.assert_array_equal(to_uint8(data.train), images.transpose(axes))


def test_channels_that_cannot_be(tmp_path):
    refused(noise(9, 4), "--channels", "leave it out", channels="last")
    refused(pictures(9, 4, 4, 3), "1 or 3 channels first", "--channels last", channels="first")
    refused(write_tree(tmp_path / "d", {"a.png": png(COLOUR[0])}), "--channels", channels="last")
    refused("digits", "recipe", "--channels", channels="last")
    refused(noise(9, 4), "first or last", channels="middle")


# Size


SIZES = [(40, 40), (60, 40), (8, 8), (20, 20)]  # width, height


@pytest.mark.parametrize("crop", [False, True])
def test_pictures_of_several_sizes(tmp_path, crop):
    originals = [Image.fromarray(pictures(height, width, 3, seed=width)) for width, height in SIZES]
    tree = {f"{k}.png": png(np.asarray(image)) for k, image in enumerate(originals)}
    where = write_tree(tmp_path / "d", tree)
    data = load_data(where, heldout=where, size=20, crop=crop)
    wide = originals[1].crop((10, 0, 50, 40)) if crop else originals[1]
    expected = [image.resize((20, 20), Image.Resampling.LANCZOS) for image in (originals[0], wide, *originals[2:])]
    images_are(data.train, np.stack([np.asarray(image) for image in expected]))
    assert data.notes[0] == ("3 of 4 images scaled to 20 x 20 (Lanczos); 1 not square: "
                             + ("only the middle of them" if crop else "stretched; --crop takes the middle")
                             + "; 1 enlarged")
    refused(where, "60 x 40", "--size")


def test_sizes_that_cannot_be(tmp_path):
    where = write_tree(tmp_path / "d", {"a.png": png(COLOUR[0])})
    for size in (0, -1, 5000, 2.5, True):
        refused(where, "size is", size=size)
    refused(where, "--size", crop=True)
    refused(noise(9, 4), "arrays", "--size", size=3)
    refused("digits", "recipe", "--size", size=3)


def test_a_run_knows_how_its_data_were_read(tmp_path, capsys):
    where = write_tree(tmp_path / "d", {f"{k:02}.png": png(image) for k, image in enumerate(pictures(40, 6, 8, 3))})
    run = tmp_path / "run"
    assert status("train", where, "--size", 4, "--crop", "--network", "mlp", "--iterations", 2, "--out", run,
                  "--watch-every", 0) == 0
    recorded = json.loads((run / "config.json").read_text())["data"]
    assert (recorded["size"], recorded["crop"], "channels" in recorded) == (4, True, False)
    assert data_arguments(recorded)[-3:] == ["--size", "4", "--crop"]
    capsys.readouterr()
    assert status("memorization", run, "--n-samples", 3, "--sigmas", 2, "--json") == 0
    assert json.loads(capsys.readouterr().out)["data"]["sha256"] == recorded["sha256"]
    assert status("memorization", run, "--size", 5) == 2
    assert "no longer the data" in capsys.readouterr().err


# Columns


@pytest.mark.parametrize("usual", ["image", "img"])
def test_the_column_of_images_beside_masks(tmp_path, usual):
    columns = {"mask": encoded(255 - COLOUR), usual: encoded(COLOUR), "depth": encoded(COLOUR // 2)}
    path = table(tmp_path / "d.parquet", columns)
    data = load_data(path, heldout=pictures(3, 4, 4, 3, seed=9))
    images_are(data.train, COLOUR)
    assert data.notes == (f"points from column {usual}; --column takes another: mask, depth",)
    other = load_data(path, column="mask", heldout=path)
    images_are(other.train, 255 - COLOUR)
    assert (other.read_as, [note for note in other.notes if "column" in note]) == ({"column": "mask"}, [])
    refused(path, "no column nix", "mask", column="nix")
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[source]\nkind = "file"\npath = "d.parquet"\ncolumn = "depth"\n')
    images_are(load_data(recipe, heldout=pictures(3, 4, 4, 3, seed=9)).train, COLOUR // 2)


def test_what_is_no_table_has_no_columns(tmp_path):
    np.save(tmp_path / "d.npy", noise(9, 4))
    refused(tmp_path / "d.npy", "--column", column="x")
    refused(write_tree(tmp_path / "d", {"a.png": png(COLOUR[0])}), "--column", column="x")
    refused(noise(9, 4), "--column", column="x")


# Samples


@pytest.mark.parametrize("kind", ["folder", "s.zip", "s.npz", "s.npy", "floats.npz"])
def test_samples_are_read_as_pictures_are(tmp_path, kind):
    path = tmp_path / kind
    if kind in ("folder", "s.zip"):
        write_tree(path, {f"00{k % 2}000/{k}.png": png(image) for k, image in enumerate(COLOUR)} | {"log.txt": b""})
    elif kind == "s.npy":
        np.save(path, COLOUR)
    elif kind == "s.npz":
        np.savez(path, COLOUR, np.arange(6))  # as ADM has them
    else:
        np.savez(path, samples=COLOUR / np.float32(127.5) - 1)
    order = [0, 2, 4, 1, 3, 5] if kind in ("folder", "s.zip") else range(6)
    np.testing.assert_array_equal(to_uint8(read_samples(path).values), COLOUR[order].transpose(0, 3, 1, 2))


def test_pictures_of_a_model_are_judged(tmp_path, capsys):
    np.savez(tmp_path / "d.npz", train=pictures(30, 4, 4, 3), heldout=pictures(40, 4, 4, 3, seed=1))
    write_tree(tmp_path / "s", {f"{k}.png": png(image) for k, image in enumerate(pictures(30, 4, 4, 3)[:8])})
    for command in ("memorization", "audit"):
        assert status(command, tmp_path / "s", "--data", tmp_path / "d.npz", "--json") == 0
        assert json.loads(capsys.readouterr().out)["trajectory"]["count"] == 8
    assert status("quality", tmp_path / "s", "--data", tmp_path / "d.npz") == 0
    assert status("risk", tmp_path / "d.npz", "--samples", tmp_path / "s") == 0


@pytest.mark.parametrize(("shape", "words"), [((5, 5, 3), "--size"), ((4, 4), "in colour")])
def test_pictures_that_do_not_fit_are_refused_in_one_line(tmp_path, capsys, shape, words):
    np.savez(tmp_path / "d.npz", train=pictures(30, 4, 4, 3), heldout=pictures(40, 4, 4, 3, seed=1))
    write_tree(tmp_path / "s", {f"{k}.png": png(image) for k, image in enumerate(pictures(9, *shape))})
    assert status("memorization", tmp_path / "s", "--data", tmp_path / "d.npz") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "samples have shape" in line
    assert words in line


def test_a_run_is_no_folder_of_pictures(tmp_path, run_of_digits):
    assert list(run_of_digits.glob("samples-*.png"))
    assert not holds_samples(run_of_digits)
    assert not holds_samples(tmp_path)
    split = {f"{part}/{k}.png": png(COLOUR[k]) for k in range(3) for part in ("train", "test")}
    refused_samples = write_tree(tmp_path / "s", split)
    with pytest.raises(ValueError, match="a training and a held-out part"):
        read_samples(refused_samples)
