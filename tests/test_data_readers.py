"""Data sets: NumPy files, images, text, recipes, and the real files where they are at hand."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hostile_inputs import png_of
from PIL import Image
from test_data import noise, pictures, rows

from geomem.data import load_data, recipes, to_uint8
from geomem.errors import InputError
from geomem.generation import read_samples

TEST_DATA = Path(os.environ.get("GEOMEM_TEST_DATA", Path(__file__).parents[1] / "../shared/data"))


def real(name: str) -> Path:
    if not (TEST_DATA / name).exists():
        pytest.skip(f"{name} is not in {TEST_DATA}; set GEOMEM_TEST_DATA")
    return TEST_DATA / name


def png(pixels: np.ndarray, mode: str | None = None) -> bytes:
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, "png")
    return buffer.getvalue()


def write_tree(where: Path, files: dict[str, bytes]) -> Path:
    """The files as a folder, or as a zip file when ``where`` ends as one; written in reverse order."""
    if where.suffix in (".zip", ".npz"):
        with zipfile.ZipFile(where, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(files, reverse=True):
                archive.writestr(name, files[name])
    else:
        for name in sorted(files, reverse=True):
            (where / name).parent.mkdir(parents=True, exist_ok=True)
            (where / name).write_bytes(files[name])
    return where


# NumPy files


def test_npz(tmp_path):
    train, held = pictures(10, 4, 4, 3), pictures(6, 4, 4, 3, seed=1)
    np.savez_compressed(tmp_path / "d.npz", train=train, train_labels=np.arange(10, dtype=np.uint8),
                        heldout=held, heldout_labels=np.arange(6), other=np.array([{}], dtype=object))
    data = load_data(tmp_path / "d.npz")
    np.testing.assert_array_equal(to_uint8(data.heldout), held.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(data.train_labels, np.arange(10))
    assert (data.name, data.train_labels.dtype, len(data.heldout_labels)) == ("d", np.int64, 6)


def test_npy_stays_a_memory_map(tmp_path):
    np.save(tmp_path / "d.npy", noise(50, 6))
    for n_train in (None, 20):
        data = load_data(tmp_path / "d.npy", heldout=noise(8, 6), n_train=n_train)
        assert isinstance(data.train, np.memmap)
        np.testing.assert_array_equal(data.train, noise(50, 6)[:n_train])
    assert len(load_data(tmp_path / "d.npy").train) == 40
    np.save(tmp_path / "e.npy", pictures(50, 6, 6))
    assert not isinstance(load_data(tmp_path / "e.npy", heldout=tmp_path / "e.npy").train, np.memmap)


# Images


@pytest.mark.parametrize("where", ["folder", "d.zip"])
def test_images_in_the_order_of_their_names(tmp_path, where):
    images = pictures(12, 4, 5, 3)
    files = {f"{i:03}.png": png(image) for i, image in enumerate(images)}
    files |= {"notes.txt": b"x", ".hidden.png": b"x", "__MACOSX/._000.png": b"x"}
    data = load_data(write_tree(tmp_path / where, files), heldout=255 - images)
    np.testing.assert_array_equal(to_uint8(data.train), images.transpose(0, 3, 1, 2))
    assert (data.name, data.train_labels, data.notes) == (where.removesuffix(".zip"), None, ())


@pytest.mark.parametrize("where", ["folder", "d.zip"])
@pytest.mark.parametrize("held", ["heldout", "test", "val"])
@pytest.mark.parametrize("above", ["", "some/where/"])
def test_images_split_and_labelled_by_folders(tmp_path, where, held, above):
    images = pictures(5, 4, 5)
    names = ["train/cat/b.png", "train/dog/a.png", "train/dog/x/a.png",
             f"{held}/dog/a.png", f"{held}/eel/a.png"]
    files = {above + name: png(image) for name, image in zip(names, images, strict=True)}
    data = load_data(write_tree(tmp_path / where, files | {f"{above}extra/a.png": b"not read"}))
    np.testing.assert_array_equal(to_uint8(data.train), images[:3, None])
    np.testing.assert_array_equal(to_uint8(data.heldout), images[3:, None])
    assert data.train_labels.tolist() == [0, 1, 1]
    assert data.heldout_labels.tolist() == [1, 2]
    assert data.notes == (f"1 image outside train/ and {held}/ left out",
                          "labels from 3 folders, one per class")


def test_one_folder_above_all_images_is_no_class(tmp_path):
    files = {f"train/faces/{i}.png": png(image) for i, image in enumerate(pictures(5, 4, 4))}
    data = load_data(write_tree(tmp_path / "d.zip", files))
    assert data.train_labels is None
    assert len(data.train) == 4


def test_links_to_folders_are_followed(tmp_path):
    images = pictures(4, 4, 4)
    write_tree(tmp_path / "real", {f"{i}.png": png(image) for i, image in enumerate(images)})
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "link").symlink_to(tmp_path / "real")
    np.testing.assert_array_equal(to_uint8(load_data(tmp_path / "d", heldout=images).train), images[:, None])


@pytest.mark.parametrize(("mode", "channels", "note"), [
    ("1", 1, None), ("L", 1, None), ("LA", 1, "transparency of 4 images dropped"), ("P", 3, None),
    ("RGB", 3, None), ("RGBA", 3, "transparency of 4 images dropped")])
def test_modes_become_grey_or_rgb(tmp_path, mode, channels, note):
    files = {f"{i}.png": png(image, mode) for i, image in enumerate(pictures(4, 6, 5, 3))}
    data = load_data(write_tree(tmp_path / "d", files), heldout=pictures(2, channels, 6, 5))
    assert data.train.shape == (4, channels, 6, 5)
    assert data.notes == ((note,) if note else ())


def test_grey_beside_colour_becomes_rgb(tmp_path):
    grey, colour = pictures(4, 6), pictures(4, 6, 3)
    files = {"a.png": png(grey), "b.png": png(colour), "c.png": png(grey)}
    data = load_data(write_tree(tmp_path / "d", files))
    everything = np.concatenate([data.train, data.heldout])
    assert rows(to_uint8(everything)) == rows(np.stack([np.stack([grey] * 3), colour.transpose(2, 0, 1)]))
    assert data.notes[0] == "2 grey images made RGB beside 1 colour image"


def test_members_that_climb_out_of_a_zip_are_read_in_memory(tmp_path):
    images = pictures(3, 4, 4)
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    names = ["../../evil.png", "/evil.png", "x.png"]
    write_tree(inside / "d.zip", {name: png(image) for name, image in zip(names, images, strict=True)})
    assert len(load_data(inside / "d.zip").train) == 2
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["d.zip"]


# Text


@pytest.mark.parametrize(("suffix", "between"), [(".txt", "  "), (".tsv", "\t"), (".csv", ",")])
def test_ucr_text_finds_its_test_file(tmp_path, suffix, between):
    for part, n in (("TRAIN", 6), ("TEST", 4)):
        lines = [between.join([f"{i - 1:.7e}", *(f"{value:.9e}" for value in row)])
                 for i, row in enumerate(noise(n, 8, seed=n))]
        (tmp_path / f"Beat_{part}{suffix}").write_text("\n".join(lines) + "\n\n")
    data = load_data(tmp_path / f"Beat_TRAIN{suffix}")
    np.testing.assert_array_equal(data.train, noise(6, 1, 8, seed=6))  # nine digits give float32 back
    np.testing.assert_array_equal(data.heldout, noise(4, 1, 8, seed=4))
    assert data.train_labels.tolist() == [-1, 0, 1, 2, 3, 4]
    assert data.name == "Beat"
    assert data.notes == ()
    (tmp_path / f"Beat_TEST{suffix}").unlink()
    assert load_data(tmp_path / f"Beat_TRAIN{suffix}").notes[0].startswith("no held-out part")


# Recipes


def test_digits():
    data = load_data("digits")
    assert (data.name, data.train.shape, data.heldout.shape) == ("digits", (597, 1, 8, 8), (1200, 1, 8, 8))
    assert np.array_equal(np.unique(data.train), np.arange(17) / 8 - 1)
    assert (len(data.train_labels), set(data.heldout_labels)) == (597, set(range(10)))
    assert (data.pixels, data.notes, data.duplicates) == (False, (), 0)
    assert load_data("digits", seed=1).sha256 == data.sha256


def test_recipes_are_found_in_a_checkout_and_in_an_installed_package(tmp_path, monkeypatch):
    installed, checkout = recipes.recipe_folders()
    assert checkout == Path(__file__).parents[1] / "data_recipes"
    assert installed == checkout.parent / "geomem" / "data_recipes"
    for found in range(2):
        folders = (tmp_path / f"{found}a", tmp_path / f"{found}b")
        folders[found].mkdir()
        (folders[found] / "mine.toml").write_text("")
        monkeypatch.setattr(recipes, "recipe_folders", lambda folders=folders: folders)
        assert recipes.known_recipes() == {"mine": folders[found] / "mine.toml"}


def test_a_recipe_of_files(tmp_path):
    np.save(tmp_path / "a.npy", np.linspace(0, 5, 40).reshape(10, 4))
    np.save(tmp_path / "b.npy", np.linspace(0, 5, 24).reshape(6, 4))
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[source]\nkind = "file"\npath = "a.npy"\nheldout = "b.npy"\n'
                      "[points]\nshape = [1, 2, 2]\nrange = [0, 5]\n")
    data = load_data(str(recipe))
    np.testing.assert_allclose(data.train.ravel(), np.linspace(-1, 1, 40), atol=2e-7)
    assert (data.name, data.heldout.shape) == ("mine", (6, 1, 2, 2))


# Real files


def test_ecg5000():
    data = load_data(real("ECG5000_TRAIN.txt"))
    assert (data.name, data.train.shape, data.heldout.shape) == ("ECG5000", (500, 1, 140), (4500, 1, 140))
    assert data.train[0, 0, 0] == np.float32(-1.1252183e-01)
    assert set(data.train_labels) == {1, 2, 3, 4, 5}


def test_pokemon():
    data = load_data(real("pokemon64.zip"))
    assert (data.train.shape, data.heldout.shape, data.pixels) == ((813, 3, 64, 64), (203, 3, 64, 64), True)


@pytest.mark.parametrize(("train", "held"), [("train", "validation"), ("Train", "Valid"), ("TRAINING", "Test")])
def test_usual_names_of_a_split_in_any_case(tmp_path, train, held):
    files = {f"{part}/{k}.png": png(image) for part, k, image in zip(
        (train, train, held), range(3), pictures(3, 4, 4), strict=True)}
    data = load_data(write_tree(tmp_path / "d", files))
    assert (len(data.train), len(data.heldout), data.train_labels) == (2, 1, None)


def test_a_hidden_folder_holds_no_points_and_jfif_is_read(tmp_path):
    images = pictures(3, 4, 4)
    files = {"a.png": png(images[0]), "b.jfif": png(images[1]), ".ipynb_checkpoints/a.png": png(images[2]),
             "c.heic": b"x"}
    data = load_data(write_tree(tmp_path / "d", files), heldout=255 - images)
    np.testing.assert_array_equal(to_uint8(data.train), images[:2, None])
    assert data.notes == ("1 image is not read, c.heic for one; convert them to PNG",)


def test_pictures_are_read_as_their_exif_data_turn_them(tmp_path):
    image = pictures(1, 4, 4, 3)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise by 90 degrees
    (tmp_path / "d").mkdir()
    Image.fromarray(image).save(tmp_path / "d" / "a.png", exif=exif)
    (tmp_path / "d" / "b.png").write_bytes(png(image))
    turned = to_uint8(load_data(tmp_path / "d", heldout=pictures(2, 4, 4, 3)).train)[0]
    np.testing.assert_array_equal(turned, np.rot90(image, -1).transpose(2, 0, 1))


def test_colour_of_16_bits_is_refused(tmp_path):
    content = png_of(4, 4, b"".join(b"\0" + bytes(range(24)) for _ in range(4)), bits=16, colour=2)
    with pytest.raises(InputError, match="more than 8 bits per value"):
        load_data(write_tree(tmp_path / "d", {"a.png": content}))


def test_classes_named_by_numbers_are_in_their_order(tmp_path):
    files = {f"{name}/{k}.png": png(image) for k, (name, image) in enumerate(zip(
        ["8", "9", "10", "11"], pictures(4, 4, 4), strict=True))}
    data = load_data(write_tree(tmp_path / "d", files), heldout=pictures(2, 4, 4))
    assert data.train_labels.tolist() == [2, 3, 0, 1]  # files are read as 10, 11, 8, 9


def test_labels_as_keras_has_them(tmp_path):
    images = pictures(5, 4, 4)
    np.savez(tmp_path / "k.npz", x_train=images[:3], y_train=np.array([[2], [0], [1]]), x_test=images[3:],
             y_test=np.array([[1], [2]]))
    assert load_data(tmp_path / "k.npz").train_labels.tolist() == [2, 0, 1]


def test_samples_saved_without_a_name(tmp_path):
    np.savez(tmp_path / "s.npz", np.ones((3, 4), np.float32))
    assert read_samples(tmp_path / "s.npz").values.shape == (3, 4)
