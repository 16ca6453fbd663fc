"""Data as their authors give them out: CIFAR-10, MNIST, UCR, CelebA, Flowers-102, Parquet, the hub."""

from __future__ import annotations

import gzip
import json
import pickle
import socket
import time
from hashlib import sha256

import numpy as np
import official_files
import pytest
from PIL import Image
from scipy.io import savemat
from test_data import noise, pictures, rows
from test_data_readers import TEST_DATA, png, real, write_tree
from test_data_wrong import Payload, refused

from geomem.cli.main import main
from geomem.data import StoredPoints, load_data, recipes, to_uint8
from geomem.data.cifar import read_python_batch

IMAGES = pictures(12, 3, 32, 32)
LABELS = [3, 1, 9, 1, 0, 5, 1, 7, 8, 1, 2, 6]
pytestmark = pytest.mark.usefixtures("one_child")


def images_are(points, images):
    """Points are these uint8 images, (N, H, W), (N, H, W, 3) or (N, C, H, W)."""
    expected = images[:, None] if images.ndim == 3 else images
    channels_last = expected.shape[3] == 3 and expected.shape[1] not in (1, 3)
    np.testing.assert_array_equal(to_uint8(np.asarray(points)),
                                  expected.transpose(0, 3, 1, 2) if channels_last else expected)


def labels_are(data, train, heldout):
    assert (data.train_labels.tolist(), data.heldout_labels.tolist()) == (train, heldout)


# CIFAR-10

WRITERS = {"python 2": official_files.python2_batch, "python 3": official_files.python3_batch,
           "binary": official_files.binary_batch}


def batches(where, write, suffix=""):
    parts = {"data_batch_2": slice(4, 8), "data_batch_1": slice(0, 4), "data_batch_10": slice(8, 10),  # 10 is the last
             "test_batch": slice(10, 12)}
    return write_tree(where, {"batches.meta": b"not read"} | {name + suffix: write(IMAGES[part], LABELS[part])
                                                          for name, part in parts.items()})


@pytest.mark.parametrize("kind", WRITERS)
def test_cifar_batches(tmp_path, kind):
    where = batches(tmp_path / "d", WRITERS[kind], ".bin" if kind == "binary" else "")
    data = load_data(where)
    images_are(data.train, IMAGES[:10])
    images_are(data.heldout, IMAGES[10:])
    labels_are(data, LABELS[:10], LABELS[10:])
    assert (data.name, data.pixels, data.notes) == ("cifar10", True, ())
    (tmp_path / "some.thing").write_bytes(WRITERS[kind](IMAGES, LABELS))  # one batch, whatever its name
    images_are(load_data(tmp_path / "some.thing", heldout=IMAGES).train, IMAGES)
    batches(tmp_path / "d", WRITERS["binary"], ".bin")  # of batches in both kinds one is read
    assert len(load_data(where).train) == 10


def test_text_of_the_size_of_a_binary_batch_is_text(tmp_path):
    (tmp_path / "x").write_bytes((b"1 0.5 0.25\n" * 5).ljust(3073))
    assert load_data(tmp_path / "x", heldout=np.zeros((3, 1, 2))).train.shape == (5, 1, 2)


def test_files_larger_than_any_of_their_kind_are_not_read(tmp_path, monkeypatch):
    for name in ("cifar._MAX_BYTES", "official._MAX_TEXT_BYTES", "official._MAX_MAT_BYTES", "recipes._MAX_BYTES"):
        monkeypatch.setattr(f"geomem.data.{name}", 9)
    faces(tmp_path / "celeba", "folder")
    for where, name in ((batches(tmp_path / "a", WRITERS["python 2"]), "data_batch_1"),
                        (tmp_path / "celeba", "list_eval_partition.txt"),
                        (flowers(tmp_path / "f", [6], [2], [7, 1, 3]), "setid.mat"),
                        (recipe(tmp_path, 'title = "a recipe"\n'), "mine.toml")):
        refused(where, name, "larger than 9 bytes")


def test_the_official_form_is_what_python_reads():
    """The batch written here opcode by opcode is one that Python itself unpickles."""
    batch = pickle.loads(official_files.python2_batch(IMAGES, LABELS), encoding="bytes")
    np.testing.assert_array_equal(batch[b"data"], IMAGES.reshape(12, -1))
    assert batch[b"labels"] == LABELS


@pytest.mark.parametrize("protocol", [2, 3])
def test_pickled_code_is_never_run(tmp_path, protocol):
    trace = tmp_path / "trace"
    for content in (Payload(trace), {b"data": Payload(trace), b"labels": [1]}, {b"labels": [Payload(trace)]}):
        refused(write_tree(tmp_path / "d", {"data_batch_1": pickle.dumps(content, protocol)}), "data_batch_1", "mkdir")
    for code in (b"\x80\x02cos\nsystem\nU\x04true\x85R.", b"\x80\x02(cos\nsystem\nU\x04trueo.",
                 b"cos\nsystem\n(S'true'\ntR.", b"\x80\x02(S'true'\nios\nsystem\n.",
                 b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
                 b"\x80\x02cnumpy\nndarray.__reduce__\n."):
        with pytest.raises(ValueError, match=r"which no CIFAR batch needs"):
            read_python_batch(code)
    assert not trace.exists()


GOOD = official_files.python2_batch(IMAGES, LABELS)
FLAT = IMAGES.reshape(12, -1)
BINARY = official_files.binary_batch(IMAGES, LABELS)


@pytest.mark.parametrize(("content", "word"), [
    (GOOD[:1000], "truncated"), (b"\x80\x02}.", "lacks 'data'"), (b"\x80\x02](K\x01e.", "no dictionary"),
    (official_files.python3_batch(IMAGES[:5], LABELS), "5 images have 12 labels"),
    (official_files.python3_batch(IMAGES[:, :1], LABELS), "3072 pixels"),
    (pickle.dumps({b"data": np.zeros((2, 3072)), b"labels": [1, 2]}, 2), "uint8"),
    (pickle.dumps({b"data": FLAT, b"labels": ["a"] * 12}, 2), "list of integers"),
    (pickle.dumps({b"data": np.asfortranarray(FLAT), b"labels": LABELS}, 2), "in C order"),
    (GOOD.replace(b"M\x00\x0c\x86", b"M\x00\x0d\x86"), "reshape"),
    (BINARY[:-1], "3,073"), (b"\x0a" + BINARY[1:], "0 to 9")])
def test_damaged_batches(tmp_path, content, word):
    refused(write_tree(tmp_path, {"d/data_batch_1": content}) / "d", "data_batch_1", "cannot be read", word)
    refused(write_tree(tmp_path, {"f/test_batch": GOOD}) / "f", "data_batch_1")


# IDX


@pytest.mark.parametrize("packed", [False, True])
def test_idx(tmp_path, packed):
    images, labels = pictures(9, 5, 4), np.arange(9, dtype=np.uint8)
    where = official_files.write_mnist(tmp_path / "d", images[:6], images[6:], labels, packed)
    train = next(where.glob("train-images*"))
    for spec in (where, train):
        data = load_data(spec)
        images_are(data.train, images[:6])
        images_are(data.heldout, images[6:])
        labels_are(data, [0, 1, 2, 3, 4, 5], [6, 7, 8])
        assert (data.name, data.notes) == ("d", ())
    (path,) = where.glob("train-labels*")  # one of them packed and the other not
    path.rename(tmp_path / "labels")
    content = (tmp_path / "labels").read_bytes()
    (where / f"train-labels-idx1-ubyte{'' if packed else '.gz'}").write_bytes(
        gzip.decompress(content) if packed else gzip.compress(content))
    assert load_data(where).train_labels.tolist() == [0, 1, 2, 3, 4, 5]
    train.rename(tmp_path / "renamed")
    images_are(load_data(tmp_path / "renamed", heldout=images).train, images[:6])


def test_idx_floats(tmp_path):
    (tmp_path / "d").write_bytes(official_files.idx(noise(6, 4).astype(">f4"), 0x0D))
    np.testing.assert_array_equal(load_data(tmp_path / "d", heldout=noise(6, 4)).train, noise(6, 4))


def test_large_idx_stays_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("geomem.data.points.STORED_BYTES", 1000)
    images = pictures(30, 5, 4)
    for name, content in (("a", official_files.idx(images)), ("b.gz", gzip.compress(official_files.idx(images)))):
        (tmp_path / name).write_bytes(content)
        data = load_data(tmp_path / name, heldout=images[:2])
        assert isinstance(data.train, StoredPoints)
        images_are(data.train, images)


IDX = official_files.idx(pictures(6, 5, 4))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("content", [IDX[:-1], IDX + b"x", IDX[:10], IDX[:4], b"\0\0\x08\x03" + b"\xff" * 12 + IDX[16:],
                                     b"\0\0\x08\x08" + b"\xff" * 32, b"\0\0\x08\x03" + bytes(12)])
def test_damaged_idx(tmp_path, content, packed):
    refused(write_tree(tmp_path, {"d": gzip.compress(content) if packed else content}) / "d", "d")


def test_gzip_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr("geomem.data.unpacking.MAX_UNPACKED_BYTES", 100_000)
    honest = official_files.idx(np.zeros((1000, 100, 20), np.uint8))
    lying = official_files.idx(np.zeros((2, 2, 2), np.uint8)) + bytes(10**7)
    for content, word in ((gzip.compress(honest), "bomb"), (gzip.compress(lying), "announces 8 bytes"),
                          (gzip.compress(IDX)[:-9], ""), (b"\x1f\x8b rest", ""), (gzip.compress(b"text"), "begin")):
        refused(write_tree(tmp_path, {"a.gz": content}) / "a.gz", "a.gz", word)


# UCR and UEA archives

HEAD = b"@problemName x\n@classLabel true 1 2\n@data\n"
ARFF = b"@relation x\n@attribute a numeric\n@attribute b numeric\n@attribute c {1,2}\n@data\n"


@pytest.mark.parametrize("form", ["ts", "arff"])
def test_archives(tmp_path, form):
    signals, labels = noise(9, 7).astype(np.float64), ["1", "-1", "2"] * 3
    write = {"ts": lambda x, y: official_files.ts(x[:, None], y), "arff": official_files.arff}[form]
    where = write_tree(tmp_path / "Beat", {f"Beat_TRAIN.{form}": write(signals[:6], labels[:6]).encode(),
                                       f"Beat_TEST.{form}": write(signals[6:], labels[6:]).encode(),
                                       "Beat.txt": b"about it"})
    for spec in (where, where / f"Beat_TRAIN.{form}"):
        data = load_data(spec)
        np.testing.assert_array_equal(data.train, signals[:6, None].astype(np.float32))
        np.testing.assert_array_equal(data.heldout, signals[6:, None].astype(np.float32))
        labels_are(data, [1, -1, 2] * 2, [1, -1, 2])
        assert (data.name, data.notes) == ("Beat", ())
    (where / f"Beat_TRAIN.{form}").rename(tmp_path / "no-ending")
    assert len(load_data(tmp_path / "no-ending", heldout=data.heldout).train) == 6


@pytest.mark.parametrize(("content", "values", "labels"), [
    (b"1,0.5,0.25\n2,1.5,2\n", [[[0.5, 0.25]], [[1.5, 2]]], [1, 2]),
    (b"@problemName x\n@classLabel false\n@data\n1,2:3,4\n5,6:7,8\n", [[[1, 2], [3, 4]], [[5, 6], [7, 8]]], None),
    (HEAD + b"1,2:3,4:b\n5,6:7,8:a\n", [[[1, 2], [3, 4]], [[5, 6], [7, 8]]], [1, 0]),
    (HEAD + b"1,2:4294967296\n1,3:7\n1,4:4294967296\n", [[[1, 2]], [[1, 3]], [[1, 4]]], [1, 0, 1])])
def test_signals(tmp_path, content, values, labels):
    """Without an ending, without labels, of several channels, with names and with numbers too large for classes."""
    (tmp_path / "x").write_bytes(content)
    data = load_data(tmp_path / "x", heldout=np.array(values, float))
    assert data.train.tolist() == values
    assert (None if data.train_labels is None else data.train_labels.tolist()) == labels


def test_several_data_sets_in_a_folder_are_not_chosen_from(tmp_path):
    refused(write_tree(tmp_path / "d", {"A_TRAIN.txt": b"1 2 3\n", "B_TRAIN.txt": b"1 2 3\n"}), "A_TRAIN, B_TRAIN")
    forms = write_tree(tmp_path / "e", {"A_TRAIN.ts": b"no", "A_TRAIN.txt": b"1 2 3\n" * 2, "A_TEST.txt": b"2 5 6\n"})
    assert load_data(forms).train.tolist() == [[[2, 3]]] * 2


@pytest.mark.parametrize(("content", "words"), [
    (HEAD, ("no signals",)), (HEAD + b"1,2:1\n1:1\n", ("same shape", "one length")), (HEAD + b"1,x:1\n", ("'x'",)),
    (HEAD + b"1,2:3,4:1\n1,2:1\n", ("same shape",)), (HEAD + b"1,2\n", ("empty",)), (HEAD + b"1,\xff:1\n", ("UTF-8",)),
    (HEAD + b"nan,2:1\n1,2:1\n", ("1 NaN",)), (b"@timeStamps true\n@data\n", ("time stamps",)),
    (b"@problemName x\n1,2:1\n", ("before @data",)), (HEAD + b"1,2:" + b"a" * 300 + b"\n" + b"1,2:b\n", ("255",)),
    (b"1 2 3\n" + b"1 " * 900, ("999 characters",)), (ARFF + b"1," * 900, ("999 characters",)),
    (ARFF, ("empty",)), (ARFF + b"1,2,3\n", ()), (ARFF + b"?,2,1\n1,2,1\n", ("1 NaN",)),
    (b"@relation x\n@attribute b relational\n@attribute c numeric\n@end b\n@data\n'1\\n2'\n", ("numeric attributes",)),
    (ARFF.replace(b"{1,2}", b"numeric") + b"1,2,1\n1,2,2\n", ("numeric attributes",))])
def test_damaged_archives(tmp_path, content, words, monkeypatch):
    monkeypatch.setattr("geomem.data.series._MAX_LINE", 999)
    refused(write_tree(tmp_path, {"x": content}) / "x", "x", *words)


# CelebA and Flowers-102


def faces(where, form, size=(6, 5)):
    images = pictures(8, *size)
    files = {f"{i + 1:06}.jpg": png(image) for i, image in enumerate(images)}
    where.mkdir(parents=True)
    if form == "zip":  # whose members' folders are ignored
        write_tree(where / "img_align_celeba.zip", {f"../../img/{name}": content for name, content in files.items()})
    else:
        write_tree(where / "img_align_celeba", files)
    lines = [f"{name} {part}\n" for name, part in zip(files, [0, 0, 2, 1, 0, 2, 0, 1], strict=True)]
    (where / "list_eval_partition.txt").write_text("".join(lines))
    return images


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_celeba(tmp_path, form):
    images = faces(tmp_path / "a" / "celeba", form)
    data = load_data(tmp_path / "a" / "celeba")
    images_are(data.train, images[[0, 1, 4, 6]])
    images_are(data.heldout, images[[2, 5]])
    assert data.notes == ("2 images of the validation partition left out",)
    assert not list(tmp_path.glob("img*"))


def test_only_the_faces_asked_for_are_read(tmp_path):
    images = faces(tmp_path / "celeba", "folder")
    (tmp_path / "celeba" / "img_align_celeba" / "000007.jpg").write_bytes(b"broken")
    images_are(load_data(tmp_path / "celeba", n_train=3).train, images[[0, 1, 4]])
    refused(tmp_path / "celeba", "000007.jpg")


@pytest.mark.parametrize(("line", "word"), [
    ("../../secret.jpg 0", "no image name"), ("000001.jpg", "no image name"), ("000001.jpg 3", "no image name"),
    ("\xff 0", "utf-8"), ("000099.jpg 0", "000099.jpg")])
def test_wrong_partitions(tmp_path, line, word):
    faces(tmp_path / "celeba", "folder")
    (tmp_path / "secret.jpg").write_bytes(png(pictures(6, 5)))
    (tmp_path / "celeba" / "list_eval_partition.txt").write_bytes(f"{line}\n000001.jpg 0\n000002.jpg 0\n"
                                                                  .encode("latin1"))
    refused(tmp_path / "celeba", "celeba", word)


FLOWERS = pictures(7, 6, 6, 3)


def flowers(where, trnid, valid, tstid):
    write_tree(where / "jpg", {f"image_{i + 1:05}.jpg": png(image) for i, image in enumerate(FLOWERS)})
    savemat(where / "setid.mat", {"trnid": trnid, "valid": valid, "tstid": tstid})
    savemat(where / "imagelabels.mat", {"labels": np.arange(7, dtype=np.uint8) % 3 + 1})
    return where


def test_flowers(tmp_path):
    data = load_data(flowers(tmp_path / "d", [6.0], [2], np.array([[7, 1, 3]], np.uint16)))
    images_are(data.train, FLOWERS[[1, 5]])
    images_are(data.heldout, FLOWERS[[0, 2, 6]])
    labels_are(data, [2, 3], [1, 3, 1])
    labels_are(load_data(flowers(tmp_path / "without the first", [6], [2], [3])), [2, 3], [3])
    savemat(tmp_path / "d" / "imagelabels.mat", {"labels": [1, 2, 3, 4, 5, 6]})
    refused(tmp_path / "d", "too few for image 7")


@pytest.mark.parametrize(("split", "word"), [
    ({"trnid": [1], "valid": [2]}, "lacks 'tstid'"), ({"trnid": [1], "valid": [1], "tstid": [3]}, "twice"),
    *(({"trnid": wrong, "valid": [2], "tstid": [3]}, "whole numbers")
      for wrong in ([1.5], [np.nan], [1e18], [[1, 2], [4, 5]], np.array([{"a": 1}], dtype=object), "abc")),
    *(({"trnid": [wrong], "valid": [2], "tstid": [3]}, "") for wrong in (0, 8)),
    (b"", ""), (b"x" * 200, ""), (b"MATLAB 7.3 MAT-file".ljust(128) + bytes(600), "")])
def test_wrong_flower_splits(tmp_path, split, word):
    where = flowers(tmp_path / "d", [6], [2], [7, 1, 3])
    if isinstance(split, bytes):
        (where / "setid.mat").write_bytes(split)
    else:
        savemat(where / "setid.mat", split, do_compression=True)
    refused(where, str(where), word)


# Parquet


def table(path, columns, rows_of_a_group=5):
    import pyarrow as pa
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.table(columns), path, row_group_size=rows_of_a_group)
    return path


def encoded(images):
    return [{"bytes": png(image), "path": "x.png"} for image in images]


@pytest.mark.parametrize("kind", ["struct", "binary"])
def test_parquet_images(tmp_path, kind):
    images = pictures(17, 4, 5, 3)
    cells = encoded(images) if kind == "struct" else [cell["bytes"] for cell in encoded(images)]
    for name, part in (("train-00001-of-00002", slice(7, 12)), ("train-00000-of-00002", slice(0, 7)),
                       ("test-00000-of-00001", slice(12, 17))):
        table(tmp_path / "d" / f"{name}.parquet", {"img": cells[part], "label": list(range(17))[part]})
    data = load_data(tmp_path / "d")
    images_are(data.train, images[:12])
    images_are(data.heldout, images[12:])
    labels_are(data, list(range(12)), list(range(12, 17)))
    (tmp_path / "d" / "train-00000-of-00002.parquet").rename(tmp_path / "anything")
    cut = load_data(tmp_path / "anything", n_train=3, shuffle=True)
    assert rows(to_uint8(cut.train)) < rows(images[:7].transpose(0, 3, 1, 2))


def test_parquet_numbers_and_named_classes(tmp_path):
    values = noise(13, 4)
    path = table(tmp_path / "d.parquet", {"x": values.tolist(), "label": ["b", "a"] * 6 + ["c"]})
    data = load_data(path, heldout=values)
    np.testing.assert_array_equal(data.train, values)
    assert data.train_labels.tolist() == [1, 0] * 6 + [2]


CELL = {"bytes": png(pictures(4, 4)), "path": ""}
BIG = {"bytes": png(np.zeros((1000, 1000), np.uint8)), "path": ""}


@pytest.mark.parametrize(("columns", "words"), [
    ({"x": [[1, 2], [3, 4]]}, ("column x", "neither numbers")), ({"x": [[1.0], [1.0, 2.0, 3.0]]}, ("several lengths",)),
    ({"x": [[1.0]] * 5 + [[1.0, 2.0]]}, ("length",)), ({"x": [[1.0], None]}, ("missing",)),
    ({"img": [b"not an image"] * 3}, ("row 0", "image")), ({"img": [None, b"x" * 99]}, ("row 0", "missing")),
    ({"img": [CELL, {"bytes": None, "path": "/etc/passwd"}, CELL]}, ("row 1", "missing")),
    ({"img": [CELL] * 3, "label": [1, None, 2]}, ("label",)), ({"img": [CELL] * 3, "label": ["a" * 300] * 3}, ("255",)),
    ({"img": [CELL] * 20_000}, ("announce 20,000 rows",)),  # a dictionary holds the image once
    ({"img": [BIG] * 9}, ("bomb",)), ({"x": [[0.0] * 2000] * 100}, ("bomb",))])
def test_wrong_parquet(tmp_path, columns, words, monkeypatch):
    monkeypatch.setattr("geomem.data.unpacking.MAX_UNPACKED_BYTES", 100_000)
    refused(table(tmp_path / "d.parquet", columns, 20_000), "d.parquet", *words)


def test_folders_of_parquet_files(tmp_path):
    table(tmp_path / "d" / "train-0.parquet", {"x": [[0.0, 1.0]] * 5})
    (tmp_path / "d" / ".test.parquet").write_bytes(b"left by a download that was stopped")
    assert load_data(tmp_path / "d").dim == 2
    table(tmp_path / "d" / "train-1.parquet", {"y": [[0.0, 1.0]] * 5})
    refused(tmp_path / "d", "other columns")


def test_damaged_parquet(tmp_path):
    content = table(tmp_path / "d.parquet", {"img": encoded(pictures(9, 4, 4))}).read_bytes()
    for wrong in (content[:-20], b"PAR1" + bytes(50), b"PAR1", content[:40] + bytes(20) + content[60:]):
        (tmp_path / "d.parquet").write_bytes(wrong)
        refused(tmp_path / "d.parquet", "d.parquet")


# The hub, by a stand-in that gives local data sets


@pytest.fixture
def hub(monkeypatch):
    """What ``datasets.load_dataset`` knows, by name, and what it was asked for."""
    import datasets

    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=list("abc"))})
    cells = encoded(pictures(9, 4, 4))
    known = {"some/images": {
        part: datasets.Dataset.from_dict({"img": [cells[i] for i in index], "label": [i % 3 for i in index]}, features)
        for part, index in (("train", range(6)), ("test", range(6, 9)))}}
    asked = []

    def load_dataset(name, config=None, *, revision=None):
        asked.append((name, config, revision))
        if name not in known:
            raise ConnectionError(f"Couldn't reach '{name}' on the Hub")
        return datasets.DatasetDict(known[name])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("geomem.data.hub._answers", lambda *_: True)
    return known, asked


def test_hub(hub):
    data = load_data("hf:some/images:small")
    images_are(data.train, pictures(9, 4, 4)[:6])
    images_are(data.heldout, pictures(9, 4, 4)[6:])
    labels_are(data, [0, 1, 2] * 2, [0, 1, 2])
    assert data.class_names == ("a", "b", "c")
    assert (data.name, hub[1]) == ("images", [("some/images", "small", None)])
    refused("hf:another/name", "hf:another/name", "Couldn't reach", "cache")
    refused("hf:", "names no data set")


def test_a_recipe_on_the_hub(hub, tmp_path):
    text = '[source]\nkind = "hub"\nname = "some/images"\nrevision = "abc"\n'
    data = load_data(recipe(tmp_path, text + 'column = "img"\nlabel = "label"\n[split]\nrule = "first"\nclass = 1\n'
                                             "train = 2\nheldout = 1\n"))
    images_are(data.train, pictures(9, 4, 4)[[1, 4]])
    images_are(data.heldout, pictures(9, 4, 4)[[7]])
    assert data.notes == ("mine read from the Hugging Face hub, some/images at abc",)
    assert hub[1] == [("some/images", None, "abc")]
    refused(recipe(tmp_path, text + 'column = "image"\n'), "image", "img")
    refused(recipe(tmp_path, text + 'train = "all"\n'), "all", "train, test")


def test_rows_of_strangers(hub, monkeypatch, tmp_path):
    """None names a file outside the cache, and a column of masks called label, which is never decoded, is no label."""
    import datasets

    (tmp_path / "secret.png").write_bytes(png(pictures(4, 4)))
    features = datasets.Features({"img": datasets.Image(), "label": datasets.Image()})
    cells = {"img": [{"bytes": None, "path": str(tmp_path / "secret.png")}] * 4, "label": [{"bytes": b"mask"}] * 4}
    hub[0]["x/y"] = {"train": datasets.Dataset.from_dict(cells, features)}
    refused("hf:x/y", "outside the cache")
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", str(tmp_path))
    data = load_data("hf:x/y")
    assert (data.dim, data.train_labels) == (16, None)


def test_a_local_data_set_through_the_library(tmp_path, monkeypatch):
    """No stand-in: ``datasets`` itself, without a network, on a folder of Parquet files as the hub keeps them."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    images = pictures(8, 4, 4, 3)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y"])})
    (tmp_path / "d" / "data").mkdir(parents=True)
    for name, part in (("train", slice(0, 5)), ("test", slice(5, 8))):
        cells = {"image": encoded(images[part]), "label": [0, 1, 0, 1, 1][:len(images[part])]}
        datasets.Dataset.from_dict(cells, features).to_parquet(
            str(tmp_path / "d" / "data" / f"{name}-00000-of-00001.parquet"))
    data = load_data(f"hf:{tmp_path / 'd'}")
    images_are(data.train, images[:5])
    images_are(data.heldout, images[5:])
    assert data.train_labels.tolist() == [0, 1, 0, 1, 1]


@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_without_a_network_the_cache_is_used_at_once(kind, tmp_path, monkeypatch):
    """No stand-in: ``datasets`` itself, whose own attempts would take 24 s, with a prepared data set in its cache."""
    import datasets

    with socket.create_server(("127.0.0.1", 0)) as server:  # takes a connection and says nothing
        port = server.getsockname()[1]
        if kind == "closed":
            server.close()
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
        for name in ("http_proxy", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        for name, value in (("HF_ENDPOINT", f"http://127.0.0.1:{port}"), ("HF_HUB_OFFLINE", False),
                            ("HF_DATASETS_CACHE", tmp_path), ("HF_CACHE_HOME", str(tmp_path))):
            monkeypatch.setattr(datasets.config, name, value)
        started = time.perf_counter()
        refused("hf:some/images", "does not answer", "not in the cache")
        where = tmp_path / "some___images" / "default" / "0.0.0" / "0123abcd"
        rows = datasets.Dataset.from_dict({"img": encoded(pictures(8, 4, 4))},
                                          datasets.Features({"img": datasets.Image()}))
        where.mkdir(parents=True)
        with datasets.arrow_writer.ArrowWriter(features=rows.features, path=str(where / "images-train.arrow")) as file:
            file.write_table(rows.data.table)
            file.finalize()
        info = datasets.DatasetInfo(features=rows.features, dataset_name="images", config_name="default",
                                    version="0.0.0")
        info.splits = datasets.SplitDict({"train": datasets.SplitInfo("train", num_examples=8, dataset_name="images")})
        info.write_to_directory(str(where))
        assert load_data("hf:some/images", n_train=4).dim == 16
        assert time.perf_counter() - started < 10
        assert not datasets.config.HF_HUB_OFFLINE


# Recipes


def recipe(tmp_path, text):
    (tmp_path / "mine.toml").write_text(text)
    return tmp_path / "mine.toml"


def test_every_recipe_is_well_formed_and_pinned():
    for path in recipes.known_recipes().values():
        table = recipes.recipe_table(path)
        assert all(table[key] for key in ("title", "description", "licence"))
        if table.get("source", {}).get("kind") == "hub":
            assert len(table["source"]["revision"]) == 40
            assert table["expected"]["train"]
    assert len(recipes.known_recipes()) >= 10


@pytest.mark.parametrize("write", [official_files.python2_batch, official_files.binary_batch])
def test_the_cifar_recipe_reads_official_batches(tmp_path, write):
    """The exact images at hand, written as batches, are what the recipe's hash was computed from."""
    exact = np.load(real("cifar10_exact.npz"))
    binary = write is official_files.binary_batch
    name, suffix = ("cifar-10-batches-bin", ".bin") if binary else ("cifar-10-batches-py", "")
    files = {}
    for part, file in (("train", "data_batch_1"), ("test", "test_batch")):
        images, labels = exact[f"{part}_images"][:1010].transpose(0, 3, 1, 2), exact[f"{part}_labels"][:1010].tolist()
        files[f"{name}/{file}{suffix}"] = write(images, labels)
    for root in (write_tree(tmp_path, files), tmp_path / name):
        data = load_data("cifar10-1k", data_root=root)
        assert data.train_labels.tolist() == exact["train_labels"][:1000].tolist()
    refused("cifar10", "train = 1010", "50000", data_root=tmp_path)


@pytest.mark.parametrize(("name", "file"), [
    ("cifar10-1k", "cifar10_exact.npz"), ("celeba-gray-1024", "faces_gray32.npz"), ("pokemon", "pokemon64.zip"),
    ("ecg5000", "ECG5000_TRAIN.txt"), pytest.param("flowers-102", "flowers64.zip", marks=pytest.mark.slow)])
def test_recipes_of_files_at_hand(name, file, monkeypatch):
    """Each checks its hash on the way. One flower stands in both parts of the official split."""
    real(file)
    monkeypatch.setenv("GEOMEM_DATA", str(TEST_DATA))
    read, *leaks = load_data(name).notes
    assert read == f"{name} read from {TEST_DATA / file}"
    assert [note.split(" points")[0] for note in leaks] == (
        ["1 of 1,000 held-out"] if name == "flowers-102" else [])


def test_the_rows_of_the_cars_are_those_of_the_official_labels(tmp_path):
    """Blank images under the official labels: the rows chosen are what the recipe promises."""
    labels = np.load(real("cifar10_labels_full.npz"))
    files = {}
    for part, file in (("train", "data_batch_1"), ("test", "test_batch")):
        records = np.zeros((len(labels[f"{part}_labels"]), 3073), np.uint8)
        records[:, 0] = labels[f"{part}_labels"]
        files[f"cifar-10-batches-bin/{file}.bin"] = records.tobytes()
    data = load_data("cifar10-cars-2k", data_root=write_tree(tmp_path, files))
    assert (data.train.shape, data.heldout.shape) == ((2000, 3, 32, 32), (1000, 3, 32, 32))
    assert set(data.train_labels) == set(data.heldout_labels) == {1}


def test_celeba_recipe_form(tmp_path):
    """The square in the middle, grey, scaled by Pillow's Lanczos filter."""
    images = faces(tmp_path / "celeba", "folder", (218, 178))
    data = load_data(recipe(tmp_path, '[[local]]\npath = "celeba"\n[points]\nshape = [1, 32, 32]\ngrey = true\n'
                                      'size = 32\n[split]\nrule = "first"\ntrain = 3\nheldout = 1\n'),
                     data_root=tmp_path)
    square = Image.fromarray(images[4][20:198]).resize((32, 32), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(to_uint8(data.train[2, 0]), np.asarray(square))


def test_pooled_flowers_are_taken_by_number(tmp_path):
    """The same split, whether the official parts or a folder of images is read."""
    flowers(tmp_path / "official", [6], [2], [7, 1, 3, 4, 5])
    write_tree(tmp_path / "plain.zip", {f"image_{i + 1:05}.jpg": png(image) for i, image in enumerate(FLOWERS)})
    official, plain = (load_data(recipe(
        tmp_path, f'[[local]]\npath = "{name}"\n[split]\nrule = "permutation"\npool = true\nseed = 0\ntrain = 4\n'
                  "heldout = 3\n"), data_root=tmp_path) for name in ("official", "plain.zip"))
    assert official.sha256 == plain.sha256
    places = [int(np.flatnonzero((FLOWERS.transpose(0, 3, 1, 2) == row).all(axis=(1, 2, 3)))[0])
              for row in to_uint8(official.train)]
    assert official.train_labels.tolist() == [place % 3 + 1 for place in places]


def test_rows_by_list_and_their_hash(tmp_path):
    np.savez(tmp_path / "d.npz", train=noise(9, 3), heldout=noise(5, 3, seed=1))
    known = sha256(b"4,0,2\n1\n").hexdigest()
    text = ('[source]\nkind = "file"\npath = "d.npz"\n[split]\nrule = "index"\ntrain = [4, 0, 2]\nheldout = [1]\n'
            f'[expected]\nindex_sha256 = "{known}"\n')
    data = load_data(recipe(tmp_path, text))
    np.testing.assert_array_equal(data.train, noise(9, 3)[[4, 0, 2]])
    np.testing.assert_array_equal(data.heldout, noise(5, 3, seed=1)[[1]])
    for new, word in (("0, 4", "index_sha256"), ("9, 0", "9 and 5 points"), ("-1, 0", "9 and 5 points")):
        refused(recipe(tmp_path, text.replace("4, 0", new)), word)


@pytest.mark.parametrize(("train", "heldout", "fits"), [(6, 3, True), (7, 3, False), (-1, 3, False), (3, -1, False)])
def test_a_split_takes_what_there_is(tmp_path, train, heldout, fits):
    np.save(tmp_path / "d.npy", noise(9, 3))
    where = recipe(tmp_path, '[source]\nkind = "file"\npath = "d.npy"\n[split]\nrule = "permutation"\n'
                             f"seed = 1\ntrain = {train}\nheldout = {heldout}\n")
    if fits:
        data = load_data(where)
        assert rows(np.concatenate([data.train, data.heldout])) == rows(noise(9, 3))
    else:
        refused(where, "9 points")


def test_a_class_by_the_place_of_its_name(tmp_path):
    (tmp_path / "x.ts").write_bytes(b"@problemName x\n@classLabel true b a\n@data\n1,2:b\n3,4:a\n5,6:b\n7,8:b\n")
    data = load_data(recipe(tmp_path, '[source]\nkind = "file"\npath = "x.ts"\nheldout = "x.ts"\n[split]\n'
                                      'rule = "first"\nclass = 1\ntrain = 2\nheldout = 3\n'))
    assert data.train[:, 0].tolist() == [[1, 2], [5, 6]]
    assert data.heldout[:, 0].tolist() == [[1, 2], [5, 6], [7, 8]]


def test_official_files_keep_the_promise_of_their_own_hash(tmp_path):
    np.savez(tmp_path / "d.npz", train=noise(9, 3), heldout=noise(5, 3, seed=1))
    good = load_data(tmp_path / "d.npz").sha256
    text = '[[local]]\npath = "d.npz"\nsha256 = "{}"\n[expected]\nsha256 = "{}"\n'
    where = recipe(tmp_path, text.format(good, "of another form of the files"))
    assert load_data(where, data_root=tmp_path).sha256 == good
    refused(recipe(tmp_path, text.format("0", good)), "expects 0", data_root=tmp_path)
    refused(recipe(tmp_path, '[[local]]\npath = "d.npz"\n[points]\nsize = 5000\n'), "1 to 4096", data_root=tmp_path)


def test_where_official_files_are_looked_for(tmp_path, hub):
    refused("ecg5000", "--data-root", "GEOMEM_DATA", "ECG5000")
    refused("ecg5000", str(tmp_path), data_root=tmp_path)
    refused("ecg5000", "no folder", data_root=tmp_path / "nowhere")
    refused("mnist", "not found in", "Couldn't reach", "--data-root", data_root=tmp_path)


# The commands


def output(capsys, *arguments):
    main(["data", *map(str, arguments)])
    return capsys.readouterr().out


def test_list(capsys):
    names = {entry["name"] for entry in json.loads(output(capsys, "list", "--json"))["data"]}
    assert {"digits", "cifar10", "cifar10-1k", "cifar10-cars-2k", "celeba-gray-1024", "flowers-102", "pokemon",
            "ecg5000", "mnist", "fashion-mnist"} <= names
    assert "Handwritten digits" in output(capsys, "list")


def test_show(capsys, tmp_path):
    document = json.loads(output(capsys, "show", "digits", "--json", "--out", tmp_path / "d.png"))
    assert [document[key] for key in ("n_train", "n_heldout", "shape", "min")] == [597, 1200, [1, 8, 8], -1]
    data = load_data("digits")
    assert document["sigma_data"] == pytest.approx(data.train.astype(np.float64).std(), rel=1e-12)
    assert document["classes"][3] == {"class": 3, "name": None, "train": int((data.train_labels == 3).sum()),
                                      "heldout": int((data.heldout_labels == 3).sum())}
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    assert "CC BY 4.0" in output(capsys, "show", "digits")


@pytest.mark.parametrize("array", [noise(7, 2, 5), noise(7, 5), pictures(7, 4, 4, 3)])
def test_show_draws_every_kind(capsys, tmp_path, array):
    np.savez(tmp_path / "d.npz", train=array, heldout=array)
    output(capsys, "show", tmp_path / "d.npz", "--out", tmp_path / "d.png", "--points", "3")
    assert (tmp_path / "d.png").is_file()


def test_check(capsys, tmp_path):
    assert json.loads(output(capsys, "check", "digits", "--json"))["kept"]
    np.save(tmp_path / "a.npy", noise(6, 3))
    wrong = recipe(tmp_path, '[source]\nkind = "file"\npath = "a.npy"\nheldout = "a.npy"\n[expected]\n'
                             'train = 6\nsha256 = "0"\n')
    with pytest.raises(SystemExit) as stop:
        output(capsys, "check", wrong)
    shown = capsys.readouterr().out
    assert stop.value.code == 2
    assert "PROMISED 0" in shown
    assert "training points 6: as promised" in shown
    with pytest.raises(SystemExit):
        output(capsys, "check", "nothing")


def test_data_root_reaches_the_recipe(capsys, tmp_path):
    content = official_files.ts(noise(4, 1, 140).astype(float), ["1"] * 4).encode()
    write_tree(tmp_path, {f"ECG5000_{part}.ts": content for part in ("TRAIN", "TEST")})
    with pytest.raises(SystemExit):
        output(capsys, "check", "ecg5000", "--data-root", tmp_path, "--json")
    shown = json.loads(capsys.readouterr().out)
    assert (shown["source"], shown["kept"]) == (str(tmp_path / "ECG5000_TRAIN.ts"), False)
