"""Image data sets as the libraries datasets and webdataset, and img2dataset, leave them."""

from __future__ import annotations

import io
import json
import tarfile

import hostile_inputs
import numpy as np
import pytest
from test_data import pictures
from test_data_official import encoded, images_are, table
from test_data_readers import png, write_tree
from test_data_wrong import refused

from geomem.data import load_data

pytestmark = pytest.mark.usefixtures("one_child")
IMAGES = pictures(8, 4, 4, 3)
OTHERS = pictures(3, 4, 4, 3, seed=1)
NAMES = [f"images/{k}.png" for k in range(8)]


def named(names, images=IMAGES):
    return {name: png(image) for name, image in zip(names, images, strict=False)}


# metadata.csv, .jsonl and .parquet


def metadata(kind, rows):
    """The file, with these rows, dictionaries."""
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    if kind == "csv":
        lines = [",".join(columns), *(",".join(json.dumps(str(value)) if key == "text" else str(value)
                                               for key, value in row.items()) for row in rows)]
        return {"metadata.csv": "\n".join(lines).encode()}
    if kind == "jsonl":
        return {"metadata.jsonl": "\n".join(map(json.dumps, rows)).encode()}
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table(columns), buffer := io.BytesIO())
    return {"metadata.parquet": buffer.getvalue()}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("where", ["folder", "d.zip"])
def test_labels_and_captions_of_an_image_folder(tmp_path, kind, where):
    rows = [{"file_name": NAMES[k], "text": "a cat,\nsleeping", "label": k % 3} for k in range(6)]
    path = write_tree(tmp_path / where, named(NAMES) | metadata(kind, rows))
    data = load_data(path, heldout=OTHERS)
    images_are(data.train, IMAGES[:6])
    assert data.train_labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.notes == (f"2 images that metadata.{kind} does not list left out",
                          f"labels from metadata.{kind}, 3 classes")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_masks_beside_images_are_no_class(tmp_path, kind):
    masks = [name.replace("images", "masks") for name in NAMES]
    rows = [{"mask_file_name": mask, "image_file_name": name} for name, mask in zip(NAMES, masks, strict=True)]
    path = write_tree(tmp_path / "d", named(NAMES) | named(masks, 255 - IMAGES) | metadata(kind, rows))
    data = load_data(path, heldout=OTHERS)
    images_are(data.train, IMAGES)
    assert data.train_labels is None
    assert data.notes == (f"metadata.{kind} names other files, which are not read: mask_file_name",
                          f"8 images that metadata.{kind} does not list left out")


def test_the_metadata_file_itself_may_be_named(tmp_path):
    path = write_tree(tmp_path / "d", named(NAMES) | metadata("csv", [{"file_name": name} for name in NAMES[:5]]))
    images_are(load_data(path / "metadata.csv", heldout=OTHERS).train, IMAGES[:5])


def test_classes_named_in_the_metadata_of_each_split(tmp_path):
    tree = {}
    for part, ks in (("train", range(5)), ("test", range(5, 8))):
        rows = [{"file_name": f"{k}.png", "label": "cat" if k % 2 else "dog"} for k in ks]
        tree |= {f"{part}/{name}": content for name, content in metadata("jsonl", rows).items()}
        tree |= {f"{part}/{k}.png": png(IMAGES[k]) for k in ks}
    data = load_data(write_tree(tmp_path / "d", tree))
    assert (data.train_labels.tolist(), data.heldout_labels.tolist()) == ([1, 0, 1, 0, 1], [0, 1, 0])


def test_other_metadata_is_said_not_to_be_read(tmp_path):
    tree = {f"{'ab'[k % 2]}/{k}.png": png(IMAGES[k]) for k in range(8)}
    path = write_tree(tmp_path / "d", tree | metadata("csv", [{"id": 3, "text": "x"}]))
    data = load_data(path, heldout=OTHERS)
    assert data.notes[0] == "metadata.csv has no column file_name and is not read"
    assert data.train_labels is not None


@pytest.mark.parametrize(("rows", "words"), [
    ([{"file_name": "../secret.png"}], "names ../secret.png, which is not among"),
    ([{"file_name": "/etc/passwd"}], "names /etc/passwd, which is not among"),
    ([{"file_name": "file:///etc/passwd"}], "is not among"),
    ([{"file_name": NAMES[0]}, {"file_name": NAMES[0]}], "stands twice"),
    ([{"file_name": NAMES[0], "label": 1}, {"file_name": NAMES[1], "label": None}], "missing")])
def test_wrong_metadata(tmp_path, rows, words):
    (tmp_path / "secret.png").write_bytes(png(IMAGES[0]))
    refused(write_tree(tmp_path / "d", named(NAMES) | metadata("jsonl", rows)), "metadata.jsonl", words)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{", b'{"file_name": 3}', b'{"file_name": [1]}'])
def test_damaged_metadata(tmp_path, content):
    refused(write_tree(tmp_path / "d", named(NAMES) | {"metadata.jsonl": content}), "metadata.jsonl")


# Tables of paths, and what save_to_disk writes


@pytest.mark.parametrize("kind", ["text", "struct", "absolute"])
def test_a_table_that_names_its_images(tmp_path, kind):
    write_tree(tmp_path / "d", named(NAMES))
    cells = [str(tmp_path / "d" / name) if kind == "absolute" else name for name in NAMES]
    columns = {"image": [{"bytes": None, "path": cell} for cell in cells]} if kind == "struct" else {"file_name": cells}
    path = table(tmp_path / "d" / "list.parquet", columns | {"label": [0, 1] * 4})
    data = load_data(path, heldout=OTHERS)
    images_are(data.train, IMAGES)
    assert data.train_labels.tolist() == [0, 1] * 4


@pytest.mark.parametrize("cell", ["/etc/passwd", "../secret.png", "link.png", "no.png"])
def test_a_table_names_no_file_elsewhere(tmp_path, cell):
    (tmp_path / "secret.png").write_bytes(png(IMAGES[0]))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "link.png").symlink_to(tmp_path / "secret.png")
    for columns in ({"image": [{"bytes": None, "path": cell}] * 3}, {"image": [cell] * 3}):
        refused(table(tmp_path / "d" / "d.parquet", columns), "row 0", "missing", cell)


@pytest.mark.parametrize("split", [False, True])
def test_save_to_disk_of_the_library_itself(tmp_path, split):
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y"])})

    def rows(images):
        return datasets.Dataset.from_dict({"image": encoded(images), "label": [k % 2 for k in range(len(images))]},
                                          features)

    if split:
        datasets.DatasetDict(train=rows(IMAGES), validation=rows(OTHERS)).save_to_disk(str(tmp_path / "d"))
    else:
        rows(IMAGES).save_to_disk(str(tmp_path / "d"), num_shards=3)
    (tmp_path / "d" / "cache-0123.arrow").write_bytes(b"of a map of the library")
    data = load_data(tmp_path / "d", heldout=None if split else OTHERS)
    images_are(data.train, IMAGES)
    images_are(data.heldout, OTHERS)
    assert data.train_labels.tolist() == [0, 1] * 4


def test_damaged_arrow_files(tmp_path):
    import datasets

    datasets.Dataset.from_dict({"image": [cell["bytes"] for cell in encoded(IMAGES)]}).save_to_disk(str(tmp_path / "d"))
    path = tmp_path / "d" / "data-00000-of-00001.arrow"
    content = path.read_bytes()
    for wrong in (content[:200], content[:len(content) // 2], b"", b"ARROW1\0\0" + bytes(40), bytes(400),
                  content[:600] + bytes(200) + content[800:]):
        path.write_bytes(wrong)
        refused(path, path.name)


@pytest.mark.parametrize("folder", ["data", "default/train"])
def test_a_copy_of_a_data_set_on_the_hub(tmp_path, folder):
    name = "train-00000-of-00001" if folder == "data" else "0000"
    table(tmp_path / "d" / folder / f"{name}.parquet", {"image": encoded(IMAGES)})
    write_tree(tmp_path / "d", {"README.md": b"x", "assets/a.png": png(IMAGES[0])})
    images_are(load_data(tmp_path / "d", heldout=OTHERS).train, IMAGES)


def test_a_table_beside_images_that_it_describes(tmp_path):
    """As img2dataset leaves them: shards of numbered images with tables of addresses and captions."""
    tree = {f"0000{k // 4}/0000{k // 4}{k:04}.jpg": png(IMAGES[k]) for k in range(8)}
    path = write_tree(tmp_path / "d", tree)
    for k in range(2):
        table(path / f"0000{k}.parquet", {"url": ["http://x"] * 4, "caption": ["x"] * 4})
    data = load_data(path, heldout=OTHERS)
    images_are(data.train, IMAGES)
    assert data.train_labels is None


# Tar files


def tar(path, files):
    path.write_bytes(hostile_inputs.tar(files, "gz" if path.suffix in (".gz", ".tgz") else ""))
    return path


def examples(ks, label=str):
    files = {}
    for k in ks:
        files |= {f"{k:03}.png": png(IMAGES[k]), f"{k:03}.cls": label(k % 3).encode(), f"{k:03}.txt": b"a caption"}
    return files


@pytest.mark.parametrize(("label", "labels"), [(str, [0, 1, 2] * 2 + [0, 1]),
                                               (lambda k: f"{'bac'[k]}\n", [1, 0, 2] * 2 + [1, 0])])
def test_webdataset(tmp_path, label, labels):
    data = load_data(tar(tmp_path / "d.tar", examples(range(8), label)), heldout=OTHERS)
    images_are(data.train, IMAGES)
    assert (data.train_labels.tolist(), data.notes) == (labels, ("labels from .cls files",))


def test_shards_of_webdataset(tmp_path):
    for name, ks in (("train-000001", range(3, 5)), ("train-000000", range(3)), ("val-000000", range(5, 8))):
        tar(tmp_path / f"{name}.tar", examples(ks))
    data = load_data(tmp_path)
    images_are(data.train, IMAGES[:5])
    images_are(data.heldout, IMAGES[5:])
    assert data.heldout_labels.tolist() == [2, 0, 1]
    tar(tmp_path / "train-000002.tar", examples([3]))
    refused(tmp_path, "train-000002.tar", "003.", "train-000001.tar")


@pytest.mark.parametrize("field", ["image.png", "png"])
def test_the_image_of_each_example_beside_its_mask(tmp_path, field):
    files = {f"{k}.{name}": png(image) for k in range(8) for name, image in (
        ("mask.png", 255 - IMAGES[k]), (field, IMAGES[k]))}
    data = load_data(tar(tmp_path / "d.tar", files), heldout=OTHERS)
    images_are(data.train, IMAGES)
    assert data.notes == (f"of each example {field} is read, not mask.png",)
    del files["3.mask.png"]  # these are just pictures with dots in their names
    assert len(load_data(tar(tmp_path / "d.tar", files), heldout=OTHERS).train) == 15


def test_a_tar_of_a_folder(tmp_path):
    files = {f"./photos/{'ab'[k // 4]}/{k}.png": png(IMAGES[k]) for k in range(8)}
    data = load_data(tar(tmp_path / "d.tar", files), heldout=OTHERS)
    images_are(data.train, IMAGES)
    assert data.train_labels.tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize("name", ["d.tar.gz", "d.tgz", "d"])
def test_a_compressed_tar_is_what_the_tar_is(tmp_path, name, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    parts = ["train"] * 5 + ["test"] * 3
    files = {f"../../{part}/{'ab'[k % 2]}/{k}.png": png(IMAGES[k]) for k, part in enumerate(parts)}
    tar(tmp_path / "d.tgz", files).rename(tmp_path / name)
    packed, plain = load_data(tmp_path / name), load_data(tar(tmp_path / "d.tar", files))
    images_are(packed.train, IMAGES[[0, 2, 4, 1, 3]])
    assert (packed.name, packed.sha256, packed.notes) == ("d", plain.sha256, plain.notes)
    assert packed.train_names[0] == "../../train/a/0.png"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted([name, "d.tar"])
    assert not list((tmp_path / "scratch").iterdir())


def test_compressed_shards_of_webdataset(tmp_path):
    for name, ks in (("train-0.tar.gz", range(3)), ("train-1.tar", range(3, 5)), ("val-0.tgz", range(5, 8))):
        tar(tmp_path / name, examples(ks))
    data = load_data(tmp_path)
    images_are(data.train, IMAGES[:5])
    images_are(data.heldout, IMAGES[5:])
    assert data.train_labels.tolist() == [0, 1, 2, 0, 1]


def test_wrong_compressed_tars(tmp_path, monkeypatch):
    path = tar(tmp_path / "d.tar.gz", examples(range(3)) | {"zeros": bytes(2 * 10**6)})
    content = path.read_bytes()
    for wrong in (content[:-20], content[:600], content[:200] + bytes(40) + content[240:], content[:20]):
        path.write_bytes(wrong)
        refused(path, "d.tar.gz")
    path.write_bytes(content)
    monkeypatch.setattr("geomem.data.unpacking.MAX_UNPACKED_BYTES", 100_000)
    refused(path, "d.tar.gz", "bomb")


def test_wrong_tars(tmp_path):
    path = tar(tmp_path / "d.tar", examples(range(3)))
    content = path.read_bytes()
    for wrong, word in ((content[:700], "d.tar"), (b"", "d.tar"), (bytes(20_000), "no images"),
                        (content[:100] + b"7" * 50 + content[150:], "d.tar")):
        path.write_bytes(wrong)
        refused(path, word)
    refused(tar(path, examples(range(3)) | {"009.png": png(IMAGES[0])}), "no .cls beside 009.png")
    with tarfile.open(path, "w") as archive:  # no link is followed
        (link := tarfile.TarInfo("a.png")).type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    refused(path, "no images")
    for name in ("", ".", "/", "./"):
        refused(tar(path, {name: b"x"}), "d.tar")


# What is not read


@pytest.mark.parametrize("kind", ["images", "arrays", "tables", "tar files"])
def test_other_files_of_data_are_counted(tmp_path, kind):
    others = {"a.zip": b"x", "b/x.npy": b"x", "b/u.npz": b"x"}
    folder = write_tree(tmp_path / "d", others | {"notes.txt": b"x", ".cache/x.npy": b"x"})
    if kind == "images":
        write_tree(folder, named(["0.png", "1.png"]))
    elif kind == "arrays":
        np.save(folder / "a.npy", IMAGES)
    elif kind == "tables":
        table(folder / "a.parquet", {"img": encoded(IMAGES)})
    else:
        tar(folder / "a.tar", named(NAMES))
    assert load_data(folder, heldout=OTHERS).notes[0] == "3 other files are not read, a.zip for one"
