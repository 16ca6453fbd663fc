"""Readers on damaged files: whatever is done to a sound file, it is read, or refused with InputError on one line.

The budget is fixed and the examples are always the same; ``GEOMEM_FUZZ=20000 pytest tests/test_fuzz.py`` tries more,
other ones each time.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import pickletools
import tempfile
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hostile_inputs import GOOD, PIXELS, npy, npz, png, safetensors, tar, zipped
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from official_files import idx, python2_batch, python3_batch
from scipy.io import savemat

from geomem.data import load_data
from geomem.errors import InputError
from geomem.generation import read_samples
from geomem.geometry.zone_file import read_document
from geomem.models.weights import read_matching
from geomem.training import Run

pytestmark = pytest.mark.usefixtures("one_child")
LONGER = int(os.environ.get("GEOMEM_FUZZ", "0"))
BUDGET = settings(deadline=None, derandomize=not LONGER, max_examples=LONGER or 40, database=None,
                  suppress_health_check=list(HealthCheck))


def table(**columns: list) -> bytes:
    """A Parquet file of ten rows in a group."""
    import pyarrow as pa
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), buffer, row_group_size=10)
    return buffer.getvalue()


def arrow(**columns: list) -> bytes:
    """An Arrow stream of two batches."""
    import pyarrow as pa

    buffer, whole = io.BytesIO(), pa.table(columns)
    with pa.ipc.new_stream(buffer, whole.schema) as writer:
        writer.write_table(whole, max_chunksize=10)
    return buffer.getvalue()


def split(packed: bool) -> bytes:
    """Of Flowers-102, with six images."""
    buffer = io.BytesIO()
    savemat(buffer, {"trnid": [1, 2], "valid": [3, 4], "tstid": [5, 6]}, do_compression=packed)
    return buffer.getvalue()


IDX = idx(PIXELS[..., 0])
IMAGES = np.random.default_rng(2).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
SIGNALS = "".join(f"0.5,{k},2e3:{k % 2}\n" for k in range(12))
FILES = {
    "d.npy": npy(GOOD),
    "d.npz": npz(train=GOOD, heldout=GOOD),
    "d.zip": zipped({f"{k}.png": png() for k in range(6)}),
    "d.txt": b"".join(b"%d 0.5 %d 2e3\n" % (k % 2, k) for k in range(12)),
    "d.ts": f"@problemName x\n@classLabel true 0 1\n@data\n{SIGNALS}".encode(),
    "d.arff": (b"@relation x\n@attribute a numeric\n@attribute b numeric\n@attribute d numeric\n@attribute c {0,1}\n"
               b"@data\n" + SIGNALS.replace(":", ",").encode()),
    "train-images-idx3-ubyte": IDX,
    "train-images-idx3-ubyte.gz": gzip.compress(IDX, mtime=0),
    "data_batch_1.bin": (b"\1" + bytes(range(256)) * 12) * 6,
    "data_batch_1": python2_batch(IMAGES, [0, 1, 2] * 2),
    "data_batch_2": python3_batch(IMAGES, [0, 1, 2] * 2),
    "d.parquet": table(img=[png()] * 20, label=[0, 1] * 10),
    "e.parquet": table(x=GOOD.tolist(), label=["a"] * 20),
    "r.toml": b'[source]\nkind = "sklearn"\nname = "load_digits"\n[points]\nrange = [0, 16]\nshape = [1, 8, 8]\n',
    "d.tar": tar({f"{k}.{form}": content for k in range(4) for form, content in (("png", png()), ("cls", b"1"))}),
    "d.tgz": gzip.compress(tar({f"{k}.png": png() for k in range(4)}), mtime=0),
    "d.arrow": arrow(img=[png()] * 20, label=[0, 1] * 10),
    "p.parquet": table(file_name=["a.png", "../a.png", "/etc/passwd", "d.npy"] * 5),
    "edm/dataset.json": b'{"labels": [["1.png", 0], ["2.png", 1], ["3.png", 2]]}',
    "csv/metadata.csv": b'file_name,label,text\n1.png,a,"x\ny"\n2.png,b,z\n3.png,a,\n',
    "jsonl/metadata.jsonl": b'{"file_name": "1.png", "label": 3}\n{"file_name": "2.png", "label": 4}\n'
                            b'{"file_name": "3.png", "label": 4}\n',
    "parquet/metadata.parquet": table(file_name=["1.png", "2.png", "3.png"], label=[0, 1, 1]),
    "flowers/setid.mat": split(packed=False),
    "packed/setid.mat": split(packed=True),
} | {f"d/a.{form}": png(8, 8, "P" if form == "gif" else "L", form)
     for form in ("png", "jpeg", "gif", "bmp", "webp", "tiff", "ppm")}


def write(folder: Path, name: str, content: bytes) -> Path:
    """The file in the folder, and for a list of images the images; what is to be loaded."""
    path = folder / name
    for number in range(1, 4 if "metadata" in name or "dataset" in name else 1):
        path.parent.mkdir(exist_ok=True)
        (path.parent / f"{number}.png").write_bytes(png())
    for number in range(1, 7 if name.endswith(".mat") else 1):
        image = path.parent / "jpg" / f"image_{number:05}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(png(form="jpeg"))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path.parent if "/" in name else path


bytes_to_put = st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([
    b"\0" * 8, b"\xff" * 4, b"\x7f\xff\xff\xff", b"nan", b"-1", b"1e400", b"9" * 30, b"\n", b"[", b'"', b"{",
    b"\x1b[2J"]))
changes = st.lists(
    st.tuples(st.sampled_from(["put", "insert", "cut", "remove", "repeat"]), st.floats(0, 1), bytes_to_put),
    min_size=1, max_size=4)


def damaged(content: bytes, done: list[tuple[str, float, bytes]]) -> bytes:
    """The content after changes, each at a share of its length."""
    for what, share, given_bytes in done:
        at = int(share * len(content))
        end = at + len(given_bytes)
        content = {
            "put": content[:at] + given_bytes + content[end:],
            "insert": content[:at] + given_bytes + content[at:],
            "cut": content[:at],
            "remove": content[:at] + content[end:],
            "repeat": content[:at] + content[max(0, at - 64) : at] * 3 + content[at:],
        }[what]
    return content


def read_or_refused(read) -> None:
    """``read`` gives something without a warning, or raises InputError with one printable line."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            read()
        except InputError as error:
            assert str(error).isprintable(), "one line, and nothing that a terminal obeys"  # noqa: PT017


@pytest.mark.parametrize("name", FILES)
@BUDGET
@given(done=changes)
def test_data(name, done):
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), name, damaged(FILES[name], done))
        read_or_refused(lambda: load_data(path))


def opcodes(content: bytes) -> list[bytes]:
    """A pickle cut into its instructions."""
    places = [place for _, _, place in pickletools.genops(content)]
    return [content[start:end] for start, end in itertools.pairwise([*places, len(content)])]


INSTRUCTIONS = opcodes(FILES["data_batch_1"])


@BUDGET
@given(edits=st.lists(st.tuples(
    st.sampled_from(["put", "insert", "drop"]), st.floats(0, 1),
    st.one_of(st.sampled_from(INSTRUCTIONS[:40] + INSTRUCTIONS[-12:]),
              st.sampled_from([code.code.encode("latin1") for code in pickletools.opcodes]), st.binary(max_size=3))),
    min_size=1, max_size=6))
def test_pickles(edits):
    """Instructions of a sound batch in other places, and any others among them."""
    program = list(INSTRUCTIONS)
    for what, share, instruction in edits:
        at = int(share * (len(program) - 1))
        program[at : at + (what != "insert")] = [instruction] * (what != "drop")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data_batch_1"
        path.write_bytes(b"".join(program))
        read_or_refused(lambda: load_data(path))


cells = {
    "images": st.one_of(st.none(), st.fixed_dictionaries({
        "bytes": st.one_of(st.none(), st.just(png()), st.binary(max_size=30)),
        "path": st.one_of(st.none(), st.sampled_from(["", "x.png", "/etc/passwd", "/dev/zero", "..", "\0"]))})),
    "lists": st.one_of(st.none(), st.lists(st.floats(width=32), max_size=3)),
    "tables": st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), max_size=2),
    "numbers": st.one_of(st.none(), st.integers(0, 2), st.integers(-(2**63), 2**63 - 1)),
    "texts": st.one_of(st.none(), st.text(max_size=3), st.just("x" * 300)),
    "truths": st.booleans(),
}
columns = st.lists(st.tuples(st.sampled_from(["img", "label", "x", "\x1b[2J"]), st.sampled_from(list(cells))),
                   min_size=1, max_size=3)


@BUDGET
@given(data=st.data(), kinds=columns, parts=st.lists(st.sampled_from(["train", "test", "all"]), min_size=1, max_size=2))
def test_hub_rows(data, kinds, parts):
    """Rows of any kind, as ``datasets`` hands them over."""
    import datasets
    import pyarrow as pa
    from datasets.table import InMemoryTable

    features = {
        "images": datasets.Image(),
        "lists": datasets.List(datasets.Value("float32")),
        "tables": datasets.List(datasets.List(datasets.Value("float32"))),
        "numbers": datasets.Value("int64"),
        "texts": datasets.Value("string"),
        "truths": datasets.Value("bool"),
    }
    shape = datasets.Features({name: features[kind] for name, kind in dict(kinds).items()})
    found = datasets.DatasetDict()
    for part in parts:
        n = data.draw(st.integers(0, 6))
        rows = {name: data.draw(st.lists(cells[kind], min_size=n, max_size=n)) for name, kind in dict(kinds).items()}
        found[part] = datasets.Dataset(InMemoryTable(pa.table(rows, shape.arrow_schema)))
    with (
        mock.patch.object(datasets, "load_dataset", return_value=found),
        mock.patch("geomem.data.hub._answers", return_value=True),
    ):
        read_or_refused(lambda: load_data("hf:some/rows"))


@BUDGET
@given(done=changes)
def test_samples_and_weights(done):
    import torch

    module = torch.nn.Linear(2, 2)
    header = {"weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
              "bias": {"dtype": "F32", "shape": [2], "data_offsets": [16, 24]}}
    with tempfile.TemporaryDirectory() as folder:
        samples = write(Path(folder), "s.npz", damaged(npz(samples=GOOD, about=np.asarray('{"data": null}')), done))
        read_or_refused(lambda: read_samples(str(samples)))
        weights = write(Path(folder), "w.safetensors", damaged(safetensors(header, bytes(24)), done))
        read_or_refused(lambda: module.load_state_dict(read_matching(weights, module)))


def _config() -> dict:
    return {"format": "geomem.run/1", "shape": [1, 8, 8], "objective": "edm", "network": "mlp", "dropout": 0.0,
            "classes": 2, "labels": [0, 1], "sigma_data": 0.5, "data": {"spec": "digits", "sha256": "x"}}


def _zone() -> dict:
    curve = {part: [0.9, 0.5] for part in ("estimate", "stderr", "low", "high")}
    return {
        "format": "geomem.danger-zone/1",
        "data": {"name": "d", "n_train": 5, "n_heldout": 5, "dim": 2, "duplicates": 0},
        "curves": {"sigma": [0.1, 1.0], "max_posterior_weight": curve, "self_posterior_weight": curve,
                   "coverage": curve, "coverage_lower_bound": [0, 0], "coverage_upper_bound": [1, 1],
                   "coverage_plain_upper_bound": [1, 1], "heldout_nearest_distance": 1.0},
        "thresholds": {"concentrated_below": {"mean": 0.1}, "spread_above": None, "disjoint_below": 0.05, "b": 1.0,
                       "q": 0.95, "delta": 0.05},
        "settings": {"posterior_draws": 4, "coverage_draws": 8, "queries": None, "shell_t": 5.0, "seed": 0},
        "zone": {"sigma_low": 0.2, "sigma_high": 0.4, "crossing": 0.3, "crossing_low": None, "crossing_high": None},
    }


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just(10**400)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=4,
)


def replaced(document, path: list[float], value):
    """The document with one of its parts, found by shares of its lengths, replaced."""
    if not path or not isinstance(document, dict | list) or not document:
        return value
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    key = keys[min(len(keys) - 1, int(path[0] * len(keys)))]
    changed = document.copy()
    changed[key] = replaced(document[key], path[1:], value)
    return changed


@pytest.mark.parametrize("kind", ["config.json", "danger-zone.json"])
@BUDGET
@example(path=[0.5, 0.17], value=[], done=[])  # a list as the threshold spread_above
@given(path=st.lists(st.floats(0, 1), min_size=1, max_size=4), value=values, done=st.one_of(st.just([]), changes))
def test_descriptions(kind, path, value, done):
    """A part of another kind, and damaged bytes; what is accepted can be drawn, or outlined."""
    from geomem.plots import plot_curves

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / kind
        text = json.dumps(replaced(_config() if kind == "config.json" else _zone(), path, value))
        file.write_bytes(damaged(text.encode(), done))
        if kind == "config.json":
            read_or_refused(lambda: Run(folder).outline())
        else:
            read_or_refused(lambda: plot_curves([("d", read_document(file))]))


def test_the_sound_files_are_read(tmp_path):
    for number, (name, content) in enumerate(FILES.items()):
        (tmp_path / str(number)).mkdir()
        path = write(tmp_path / str(number), name, content)
        if not name.startswith("d/") and name != "p.parquet":  # one image is too few; files that are not there
            assert len(load_data(path).train) >= 2
    write(tmp_path, "config.json", json.dumps(_config()).encode())
    write(tmp_path, "danger-zone.json", json.dumps(_zone()).encode())
    assert Run(tmp_path).outline()
    assert read_document(tmp_path / "danger-zone.json")
