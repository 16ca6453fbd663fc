"""Situations in which users of other tools could not load their pictures, or loaded others than they meant."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from commands import status
from PIL import Image
from test_data import pictures
from test_data_official import encoded, images_are, table
from test_data_readers import png, write_tree
from test_data_wrong import refused

from geomem.data import load_data, to_uint8
from geomem.training.plan import _lasting

pytestmark = pytest.mark.usefixtures("one_child")
IMAGES = pictures(8, 4, 4, 3)
OTHERS = pictures(3, 4, 4, 3, seed=1)


def tree(names, images=IMAGES):
    return {name: png(image) for name, image in zip(names, images, strict=True)}


def lines(rows):
    return "\n".join(map(json.dumps, rows)).encode()


def test_the_archive_beside_its_metadata_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("a.png", png(IMAGES[0]))
    (tmp_path / "metadata.jsonl").write_bytes(lines([{"file_name": "a.png"}]))
    refused(tmp_path, "no images but images.zip", "give that file itself")


def test_a_list_of_images_by_another_name_is_said_not_to_be_read(tmp_path):
    names = [f"{folder}/{k}.png" for folder in ("images", "padded_images") for k in range(4)]
    path = write_tree(tmp_path / "d", tree(names) | {"metadata1000.jsonl": lines([{"image": names[0]}])})
    notes = load_data(path, heldout=OTHERS).notes
    assert notes[0].startswith("metadata1000.jsonl is not read; a file that lists the images is called metadata.csv")
    assert "labels from 2 folders, one per class" in notes


def test_names_relative_to_the_folder_above(tmp_path):
    files = tree([f"train/{k}.png" for k in range(8)])
    path = write_tree(tmp_path / "d", files | {"train/metadata.jsonl": lines([{"file_name": "train/0.png"}])})
    refused(path, "names train/0.png", "relative to the folder that metadata.jsonl is in")


def test_a_home_folder_that_the_shell_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_tree(tmp_path / "photos", tree([f"{k}.png" for k in range(8)]))
    assert len(load_data("~/photos", heldout="~/photos").train) == 8
    assert status("data", "show", "~/photos") == 0
    assert _lasting("~/photos") == str(tmp_path / "photos")
    capsys.readouterr()
    assert status("risk", "~/photos", "--heldout", "~/nowhere") == 2
    assert "no such recipe or file" in capsys.readouterr().err


def test_samples_of_several_sizes_are_scaled_as_the_data_are(tmp_path, capsys):
    photos = {f"{k}.png": png(image) for k, image in enumerate(pictures(30, 9, 12, 3))}
    write_tree(tmp_path / "d", photos)
    write_tree(tmp_path / "s", dict(list(photos.items())[:9]) | {"x.png": png(pictures(20, 16, 3))})
    assert status("memorization", tmp_path / "s", "--data", tmp_path / "d", "--size", 6, "--crop", "--json") == 0
    out, err = capsys.readouterr()
    assert "s: 10 of 10 images scaled to 6 x 6" in err
    assert json.loads(out)["trajectory"]["n"] == 10
    assert status("memorization", tmp_path / "s", "--data", tmp_path / "d") == 2
    assert "--size N" in capsys.readouterr().err.splitlines()[-1]


def test_words_of_splits_in_names_of_files_split_nothing(tmp_path):
    names = ["train station.png", "test.png", *(f"{k}.png" for k in range(6))]
    images_are(load_data(write_tree(tmp_path / "d", tree(sorted(names))), heldout=OTHERS).train, IMAGES)
    path = table(tmp_path / "train station.parquet", {"image": encoded(IMAGES)})
    images_are(load_data(path, heldout=OTHERS).train, IMAGES)


def test_grey_and_transparent_pictures_among_others(tmp_path):
    files = {"a.png": png(IMAGES[0]), "b.png": png(IMAGES[1], "RGBA"), "c.png": png(IMAGES[2, ..., 0])}
    data = load_data(write_tree(tmp_path / "d", files), heldout=OTHERS)
    images_are(data.train, np.stack([IMAGES[0], IMAGES[1], np.stack([IMAGES[2, ..., 0]] * 3, axis=-1)]))
    assert data.notes == ("transparency of 1 image dropped", "1 grey image made RGB beside 2 colour images")


def test_one_broken_picture_is_named(tmp_path):
    whole = png(pictures(64, 64, 3))
    for broken in (whole[:len(whole) // 2], b"<html>not found</html>", b""):
        files = tree([f"{k}.png" for k in range(8)], pictures(8, 64, 64, 3))
        refused(write_tree(tmp_path / "d", files | {"5.png": broken}), "5.png", "repair or remove it")


def test_statistics_are_no_pictures(tmp_path):
    np.save(tmp_path / "stats.npy", {"mu": np.zeros(3), "sigma": np.eye(3)}, allow_pickle=True)
    refused(tmp_path / "stats.npy", "Python objects")
    np.savez(tmp_path / "stats.npz", mu=np.zeros(3), sigma=np.eye(3))
    refused(tmp_path / "stats.npz", "no key 'train' (keys: mu, sigma)")


def test_files_of_one_latent_each_are_no_shards_and_it_is_said(tmp_path):
    (tmp_path / "d").mkdir()
    for k in range(6):
        np.save(tmp_path / "d" / f"{k}.npy", np.random.default_rng(k).normal(size=(4, 8, 8)).astype(np.float32))
    data = load_data(tmp_path / "d")
    assert data.train.shape[1:] == (8, 8)
    assert data.notes[0].startswith("each of 6 files is read as 4 points of shape (8, 8); stack files")


def test_what_lies_about_in_folders_of_pictures(tmp_path):
    rubbish = {".DS_Store": b"x", "Thumbs.db": b"x", "desktop.ini": b"x", "__MACOSX/._0.png": b"x", "._0.png": b"x",
               "0.txt": b"a caption", "README.md": b"x", ".git/a.png": b"x", "@eaDir/0.png/x.jpg.tmp": b"x"}
    path = write_tree(tmp_path / "d", tree([f"{k}.png" for k in range(8)]) | rubbish)
    data = load_data(path, heldout=OTHERS)
    images_are(data.train, IMAGES)
    assert data.notes == ()


def test_jpegs_called_png(tmp_path):
    (tmp_path / "d").mkdir()
    for k in range(4):
        Image.fromarray(np.full((4, 4, 3), 50 * k, np.uint8)).save(tmp_path / "d" / f"{k}.png", "JPEG")
    assert to_uint8(load_data(tmp_path / "d", heldout=OTHERS).train)[:, 0, 0, 0].tolist() == [0, 50, 100, 150]
