"""Labels of images that lie beside them or in the names of their folders, as other tools leave them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_data import pictures
from test_data_readers import png, write_tree
from test_data_wrong import refused

from geomem.data import load_data, to_uint8

pytestmark = pytest.mark.usefixtures("one_child")
IMAGES = pictures(6, 4, 4, 3)
SHARDED = [f"{k // 3:05}/img{k // 3:05}{k:03}.png" for k in range(6)]


def files(names, extra=()):
    return {name: png(image) for name, image in zip(names, IMAGES, strict=True)} | dict(extra)


def dataset_json(labels, folder=""):
    return {f"{folder}dataset.json": json.dumps({"labels": labels}).encode()}


# EDM and StyleGAN


@pytest.mark.parametrize("where", ["folder", "d.zip"])
@pytest.mark.parametrize("above", ["", "ffhq/"])
def test_labels_of_edm_and_stylegan(tmp_path, where, above):
    named = [[name, k % 4] for k, name in enumerate(SHARDED)]
    tree = files([above + name for name in SHARDED], dataset_json(named[::-1], above))
    data = load_data(write_tree(tmp_path / where, tree), heldout=255 - IMAGES)
    np.testing.assert_array_equal(to_uint8(data.train), IMAGES.transpose(0, 3, 1, 2))
    assert data.train_labels.tolist() == [0, 1, 2, 3, 0, 1]
    assert data.notes == ("labels from dataset.json, 4 classes",)


@pytest.mark.parametrize("labels", [None, [], [[name, [0.5, 1.0]] for name in SHARDED]])
def test_a_dataset_json_without_classes(tmp_path, labels):
    data = load_data(write_tree(tmp_path / "d.zip", files(SHARDED, dataset_json(labels))), heldout=255 - IMAGES)
    assert data.train_labels is None
    assert data.notes == (("labels of dataset.json are vectors, no classes",) if labels else ())


@pytest.mark.parametrize(("names", "labels"), [
    (SHARDED, None),
    ([f"{k // 3:03}000/{k // 3:03}00{k}.png" for k in range(6)], None),  # what EDM generates with --subdirs
    ([f"{k // 3:02}000/{k // 3:02}00{k}.png" for k in range(6)], None),  # FFHQ
    ([f"{k // 3:05}/{k % 3:05}_{k:05}.ppm" for k in range(6)], [0, 0, 0, 1, 1, 1]),  # GTSRB: classes
    ([f"{k // 3}/{k}.png" for k in range(6)], [0, 0, 0, 1, 1, 1])])
def test_folders_that_number_images_are_no_classes(tmp_path, names, labels):
    data = load_data(write_tree(tmp_path / "d", files(names)), heldout=255 - IMAGES)
    assert (data.train_labels if data.train_labels is None else data.train_labels.tolist()) == labels
    assert data.notes == ("2 folders number the images in them and are no classes" if labels is None else
                          "labels from 2 folders, one per class",)


def test_a_split_of_two_data_sets_of_edm(tmp_path):
    tree = files(["train/" + name for name in SHARDED[:4]] + ["test/" + name for name in SHARDED[4:]],
                 dataset_json([[name, 5] for name in SHARDED[:4]], "train/")
                 | dataset_json([[name, 7] for name in SHARDED[4:]], "test/"))
    data = load_data(write_tree(tmp_path / "d", tree))
    assert (data.train_labels.tolist(), data.heldout_labels.tolist()) == ([5] * 4, [7] * 2)


def test_a_dataset_json_of_another_tool_is_left_alone(tmp_path):
    tree = files([f"{'ab'[k % 2]}/{k}.png" for k in range(6)], {"dataset.json": b'{"name": "x"}'})
    assert load_data(write_tree(tmp_path / "d", tree), heldout=255 - IMAGES).train_labels.tolist() == [0, 0, 0, 1, 1, 1]


GIVEN = [[name, 1] for name in SHARDED]


@pytest.mark.parametrize(("content", "words"), [
    (b"{", "cannot be read as a dataset.json"), (b'{"labels": 3}', "no list of"),
    ({"labels": [*GIVEN, ["00000/no.png", 1]]}, "names 00000/no.png, which is not among"),
    ({"labels": [*GIVEN, ["../../x.png", 1]]}, "names ../../x.png, which is not among"),
    ({"labels": GIVEN[:-1]}, f"no label to {SHARDED[-1]}"), ({"labels": [*GIVEN, GIVEN[0]]}, "a name twice"),
    ({"labels": [*GIVEN[:-1], [SHARDED[-1], "cat"]]}, "whole numbers"),
    ({"labels": [*GIVEN[:-1], [SHARDED[-1], -1]]}, "whole numbers"),
    ({"labels": [*GIVEN[:-1], [SHARDED[-1], True]]}, "whole numbers"),
    ({"labels": [*GIVEN[:-1], [SHARDED[-1], [1]]]}, "whole numbers"), ({"labels": [[1, 2]]}, "no list of"),
    (b'{"labels": ' + b"[" * 100_000, "dataset.json")])
@pytest.mark.parametrize("where", ["folder", "d.zip"])
def test_wrong_labels_are_refused_in_one_line(tmp_path, where, content, words):
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    refused(write_tree(tmp_path / where, files(SHARDED, {"dataset.json": content})), "dataset.json", words)
