"""Every kind of bad input that is tried, a row each: what it is, and how it is made with the command that is given it.

test_hostile.py tries them; ``python tests/hostile_inputs.py`` prints them as a page of the documentation.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import pickle
import shutil
import struct
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from hostile import Outcome, run
from official_files import python2_batch
from parquet_files import DICTIONARY, GZIP, Long, page, parquet, plain, schema
from parquet_files import run as run_of
from PIL import Image
from scipy.io import savemat

GOOD = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
PIXELS = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
PICTURE_FORMATS = {"png": "png", "jpg": "jpeg", "gif": "gif", "bmp": "bmp", "webp": "webp", "tif": "tiff", "ppm": "ppm"}
TRACE = "code-was-run"
ZONE, FEW = ["danger-zone"], ["--sigmas", "4"]
TRAIN = ["--network", "mlp", "--iterations", "2", "--batch", "4"]
Make = Callable[[Path], list[Any]]


@dataclass(frozen=True)
class Case:
    """``make`` writes the input into the folder it is given and returns the arguments of geomem.

    The command is refused (status 2, one line), or where ``answers`` it gives a right answer (status 0); the line, or
    what it prints, holds ``says``.
    """

    what: str
    make: Make
    says: str = ""
    answers: bool = False
    as_nobody: bool = False
    group: str = ""

    @property
    def name(self) -> str:
        return f"{self.group}: {self.what}".encode("unicode_escape").decode()


# --- making files -------------------------------------------------------------------------------------------


class Payload:
    """Unpickling it makes a folder."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (TRACE,)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npy_header(shape: Any, descr: Any = "<f4", *, fortran: bool = False, version: int = 1) -> bytes:
    """A .npy header that may say anything."""
    text = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def png(height: int = 8, width: int = 8, kind: str = "L", form: str = "png", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(kind, (width, height), 7).save(buffer, form, **options)
    return buffer.getvalue()


def png_saying(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG header of any size, with as many pixel bytes as given."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(*part) for part in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")))


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def safetensors(header: dict[str, Any], content: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def writes(name: str, content: bytes | Callable[[], bytes], *arguments: str) -> Make:
    """Writes one file; by default the arguments look for the danger zone in it."""

    def make(folder: Path) -> list[Any]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content() if callable(content) else content)
        return [part.replace("FILE", name) for part in arguments] or [*ZONE, path.relative_to(folder).parts[0], *FEW]

    return make


def special(make: Callable[[Path], Any], *arguments: str) -> Make:
    """``make`` is given the folder; the arguments follow, by default the danger zone of ``d``."""

    def both(folder: Path) -> list[Any]:
        make(folder)
        return list(arguments) or [*ZONE, "d", *FEW]

    return both


def on(command: str, *more: str) -> Make:
    """A command on sound data, samples and a sound run."""
    return special(lambda folder: sound(folder, "run"), *command.split(), *more)


def sparse(path: Path, start: bytes, size: int) -> None:
    with open(path, "wb") as file:
        file.write(start)
        file.truncate(size)


@cache
def models() -> Path:
    """A folder with a trained run, a folder for diffusers, a danger-zone file and samples, all sound."""
    import diffusers
    import torch

    folder = Path(tempfile.mkdtemp(prefix="sound-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    np.savez(folder / "d.npz", train=PIXELS[:12], heldout=PIXELS[12:])
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 16),
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, norm_num_groups=4,
        attention_head_dim=8)
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(folder / "unet")
    for arguments in (["train", "d.npz", *TRAIN, "--out", "run"], [*ZONE, "d.npz", *FEW, "--out", "zone"],
                      ["generate", "run", "--seeds", "0-7", "--out", "s.npz"]):
        outcome = run(arguments, folder)
        assert outcome.status == 0, outcome.err
    return folder


def sound(folder: Path, *names: str) -> None:
    """Copies of the sound things."""
    for name in ("d.npz", *names):
        source = models() / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy(source, folder / name)
    if "run" in names:  # of the data in this folder
        path = folder / "run" / "config.json"
        path.write_text(path.read_text().replace(str(models() / "d.npz"), str(folder / "d.npz")))


GENERATE = ["generate", "run", "--seeds", "0-3", "--out", "out.npz"]
RESUME = ["train", "d.npz", *TRAIN, "--out", "run", "--resume"]
UNET = ["generate", "unet", "--seeds", "0", "--out", "out.npz"]


def changed(file: str, change: dict[str, Any] | Callable[[dict[str, Any]], Any], *arguments: str) -> Make:
    """The sound things of the folder that ``file`` lies in, with a change to this JSON file."""

    def make(folder: Path) -> list[Any]:
        sound(folder, file.split("/")[0])
        path = folder / file
        document = json.loads(path.read_text())
        document.update(change) if isinstance(change, dict) else change(document)
        path.write_text(json.dumps(document))
        return list(arguments)

    return make


def replaced(file: str, content: bytes | str, *arguments: str) -> Make:
    """The sound things of the folder that ``file`` lies in, with this file replaced."""

    def make(folder: Path) -> list[Any]:
        sound(folder, file.split("/")[0])
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
        return list(arguments)

    return make


def put(*path_and_value: Any) -> Callable[[dict[str, Any]], None]:
    """A change to a danger-zone file, which is given a zone first."""
    *path, last, value = path_and_value

    def change(document: dict[str, Any]) -> None:
        document["zone"] = document["zone"] or {"sigma_low": 0.3, "sigma_high": 1.5, "crossing": 0.6,
                                                "crossing_low": 0.5, "crossing_high": 0.7, "threshold": 0.8}
        for part in path:
            document = document[part]
        document[last] = value

    return change


def images(count: int, content: bytes | Callable[[], bytes], ending: str = "png") -> Make:
    """A folder of images that are all the same."""

    def make(folder: Path) -> list[Any]:
        (folder / "d").mkdir()
        for k in range(count):
            (folder / "d" / f"{k:03}.{ending}").write_bytes(content() if callable(content) else content)
        return [*ZONE, "d", *FEW]

    return make


def samples(content: bytes, name: str = "bad.npz") -> Make:
    return special(lambda folder: (sound(folder), (folder / name).write_bytes(content)), "memorization", name, "--data",
                   "d.npz")


def said_about(value: Any, *arguments: str) -> Make:
    """Sound samples that say something else about themselves."""

    def make(folder: Path) -> list[Any]:
        sound(folder)
        text = value if isinstance(value, str) else json.dumps(value)
        np.savez(folder / "s.npz", samples=PIXELS[:8].transpose(0, 3, 1, 2).astype(np.float32), about=np.asarray(text))
        return list(arguments) or ["quality", "s.npz", "--data", "d.npz"]

    return make


# --- files of harmful forms ---------------------------------------------------------------------------------


def gif(frames: int) -> bytes:
    """An animation that shows one frame again and again."""
    whole = png(kind="P", form="gif")
    start = whole.index(b"\x2c")
    return whole[:-1] + whole[start:-1] * frames + whole[-1:]


def tiff(width: int, height: int, *, strip: int = 100, next_page: int = 0) -> bytes:
    """A TIFF whose one page says what it is told to say."""
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
               (277, 3, 1, 1), (279, 4, 1, strip)]
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
            + b"".join(struct.pack("<HHII", *entry) for entry in entries) + struct.pack("<I", next_page) + bytes(64))


def png_with_chunk(kind: bytes, content: bytes) -> bytes:
    """A sound PNG with one chunk more, after its header."""
    return png()[:33] + png_chunk(kind, content) + png()[33:]


def zip_saying(content: bytes, size: int) -> bytes:
    """The unpacked size in the directory of a zip file with one member, changed."""
    place = content.rfind(b"PK\x01\x02") + 24
    return content[:place] + struct.pack("<I", size) + content[place + 4:]


def branching_links(folder: Path) -> None:
    """Thirty folders, each with two links to the next: a thousand million ways to one image."""
    folders = [folder / ("d" if k == 0 else f"e{k}") for k in range(30)]
    for here in folders:
        here.mkdir()
    for here, there in pairwise(folders):
        (here / "a").symlink_to(there)
        (here / "b").symlink_to(there)
    (folders[-1] / "a.png").write_bytes(png())


def folder_with(name: str, add: Callable[[Path], Any]) -> Make:
    """A folder with a sound image and something else."""

    def make(folder: Path) -> list[Any]:
        (folder / "d").mkdir()
        (folder / "d" / "a.png").write_bytes(png())
        add(folder / "d" / name)
        return [*ZONE, "d", *FEW]

    return make


def outside_links(folder: Path) -> None:
    for part in ("d", "elsewhere"):
        (folder / part).mkdir()
    for k in range(6):
        (folder / "elsewhere" / f"{k}.png").write_bytes(png())
        (folder / "d" / f"{k}.png").symlink_to(folder / "elsewhere" / f"{k}.png")


def pickled_unet(folder: Path) -> None:
    sound(folder, "unet")
    (folder / "unet" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "unet" / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Payload()))


def pipe_for(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        sound(folder, "run", "zone")
        path = folder / name
        path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        os.mkfifo(path)

    return make


def unreadable(folder: Path) -> None:
    (folder / "d.npy").write_bytes(npy(GOOD))
    (folder / "d.npy").chmod(0)


def flowers(change: Callable[[bytes], bytes]) -> Make:
    """Flowers-102 whose list of images is changed byte by byte."""

    def make(folder: Path) -> list[Any]:
        (folder / "d" / "jpg").mkdir(parents=True)
        buffer = io.BytesIO()
        savemat(buffer, {"trnid": np.zeros(2000), "valid": [2], "tstid": [3]})
        (folder / "d" / "setid.mat").write_bytes(change(buffer.getvalue()))
        return [*ZONE, "d", *FEW]

    return make


def zeros(size: int, start: bytes = b"") -> bytes:
    """So many bytes, gzipped: the start, and zeros."""
    gzip = zlib.compressobj(1, wbits=31)
    left = size - len(start)
    parts = [gzip.compress(start), *(gzip.compress(bytes(min(1 << 20, left - k))) for k in range(0, left, 1 << 20))]
    return b"".join(parts) + gzip.flush()


def once_for(rows: int, value: bytes, size: int) -> bytes:
    """A Parquet file whose rows all hold one value, which is given gzipped."""
    dictionary = page(value, 1, kind=2, size=size)
    indices = bytes([1]) + run_of(0, rows)
    packed = zlib.compress(indices, wbits=31)
    return parquet(
        dictionary + page(packed, rows, size=len(indices), encoding=DICTIONARY),
        rows,
        codec=GZIP,
        chunk={9: Long(4 + len(dictionary)), 11: Long(4)},
    )


def row_of_one_float(values: int, said: int = 20) -> bytes:
    """A Parquet file of one row: a list of one float, again and again; the footer says how many there are."""
    dictionary = page(np.float32(1).tobytes(), 1, kind=2)
    repetitions, definitions = run_of(0, 1) + run_of(1, values - 1), run_of(2, values)
    content = b"".join(struct.pack("<I", len(part)) + part for part in (repetitions, definitions))
    pages = dictionary + page(content + bytes([1]) + run_of(0, values), values, encoding=DICTIONARY)
    return parquet(pages, 1, values=said, floats=True, chunk={9: Long(4 + len(dictionary)), 11: Long(4)})


# --- the cases ----------------------------------------------------------------------------------------------


@cache
def cases() -> list[Case]:
    """All of them, group by group."""
    groups = {"Code": _code(), "NumPy files": _arrays(), "Archives": _archives(), "Images": _images(),
              "Parquet files": _tables(), "MATLAB files and CIFAR's pickles": _official(), "Text": _text(),
              "Folders, links, pipes, devices": _special(), "Names": _names(), "Numbers": _numbers(),
              "Recipes": _recipes(), "Checkpoints and run directories": _models(), "diffusers folders": _networks(),
              "Danger-zone files": _zones(), "Samples": _samples(), "Options": _options()}
    return [replace(case, group=group) for group, found in groups.items() for case in found]


def _code() -> list[Case]:
    pickled, objects = pickle.dumps(Payload()), np.array([Payload()] * 4, dtype=object)
    start = ["train", "digits", *TRAIN, "--init", "FILE", "--out", "r"]
    return [
        Case("objects in a .npy", writes("d.npy", lambda: npy(objects)), "Python objects"),
        Case("objects in a .npz", writes("d.npz", lambda: npz(train=objects)), "Python objects"),
        Case("a pickle called .npy", writes("d.npy", pickled), "d.npy"),
        Case("a pickle among zipped images", writes("d.zip", zipped({"a.png": pickled, "data.pkl": pickled})), "a.png"),
        Case("a pickle of code as a CIFAR batch", writes("d/data_batch_1", pickle.dumps(Payload(), 2)), "asks for"),
        Case("a pickle called .pkl, as a model", writes("d.pkl", pickled, "generate", "FILE", "--out", "o.npz"),
             "pickled"),
        Case("a pickle called .ckpt, to start from", writes("d.ckpt", pickled, *start), "pickled"),
        Case("a pickle called .bin, as samples", writes("d.bin", pickled, "memorization", "FILE", "--data", "digits"),
             "pickled"),
        Case("a pickle called .safetensors", writes("d.safetensors", pickled, *start), "safetensors"),
        Case("a checkpoint as torch.save writes it", writes("d.pt", zipped({"archive/data.pkl": pickled}), *start),
             "pickled"),
        Case("a diffusers folder with pickled weights", special(pickled_unet, *UNET), "pickled"),
    ]


def _arrays() -> list[Case]:
    headers: list[tuple[str, Any, Any]] = [
        ("4 TB", (10**6, 10**6), "<f4"), ("a negative length", (-1, 4), "<f4"),
        ("lengths whose product overflows", (2**32, 2**32), "<f4"), ("a column of objects", (4,), [("a", "|O")]),
        ("values that are arrays", (4,), ("<f4", (10**9,))), ("code for a type", (4, 4), "__import__('os')")]
    long_header = b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1)
    return [
        *(Case(f"a header that announces {what} (.{form})", writes(f"d.{form}", wrap(npy_header(shape, descr)
                                                                                    + bytes(320))), f"d.{form}")
          for k, (what, shape, descr) in enumerate(headers)
          for form, wrap in [(("npy", bytes), ("npz", lambda content: zipped({"train.npy": content})))[k % 2]]),
        Case("a header of 4 GiB", special(lambda folder: sparse(folder / "d.npy", long_header, 5 << 30), *ZONE,
                                          "d.npy"), "d.npy"),
        Case("a header of 9,000 parentheses", writes("d.npy", b"\x93NUMPY\1\0" + struct.pack("<H", 9000)
                                                     + b"(" * 9000), "d.npy"),
        Case("bytes after the array", writes("d.npy", npy(GOOD) + b"x" * 10), "announces"),
        Case("a .npz cut short", writes("d.npz", npz(train=GOOD)[:250]), "d.npz"),
        Case("complex numbers", writes("d.npy", npy(GOOD.astype("c8"))), "convert them"),
        Case("big-endian long doubles in Fortran order", writes("d.npy", npy(np.asfortranarray(GOOD.astype(">f8")))),
             answers=True),
    ]


def _archives() -> list[Case]:
    return [
        Case("a .npz bomb: 100 MB of zeros, a header that announces 8 GB",
             writes("d.npz", lambda: zipped({"train.npy": npy_header((2 * 10**8, 10)) + bytes(10**8)})), "announces"),
        Case("a .npz whose directory says 4 GiB", writes("d.npz", zip_saying(npz(train=GOOD), 2**32 - 2)), "bomb"),
        Case("a .npz whose directory says 100 bytes", writes("d.npz", zip_saying(npz(train=GOOD), 100)), "d.npz"),
        Case("images called ../../../tmp/evil/0.png", writes(
            "d.zip", zipped({f"../../../tmp/evil/{k}.png": png() for k in range(6)})), answers=True),
        Case("a zipped image of 300 MB of zeros", writes("d.zip", lambda: zipped({"a.png": bytes(300 * 10**6)})),
             "too large"),
        Case("ten thousand empty images", writes("d.zip", lambda: zipped({f"{k}.png": b"" for k in range(10_000)}, 0)),
             "0.png"),
        Case("an encrypted zip", writes("d.zip", zipped({"a.png": png()}).replace(b"\x14\0\0\0\x08",
                                                                                b"\x14\0\1\0\x08")), "d.zip"),
        Case("an unknown compression", writes("d.zip", zipped({"a.png": png()}).replace(b"\x08\0", b"\x63\0")),
             "d.zip"),
    ]


def _images() -> list[Case]:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%EOF\n"
    return [
        Case("a PNG of 30,000 x 30,000", images(3, png_saying(30_000, 30_000)), "exceeds limit"),
        Case("a PNG of 9,000 x 9,000 without pixels", images(3, png_saying(9000, 9000, bytes(1000))), "000.png"),
        Case("60 small PNGs that decode to 5 GB", images(60, cache(lambda: png(9000, 9000))), "bomb"),
        Case("a text chunk that unpacks to 100 MB",
             images(3, png_with_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(10**8)))), "000.png"),
        Case("a GIF of 100,000 frames, of which the first is taken", images(6, gif(10**5), "gif"), answers=True),
        Case("a TIFF of 60,000 x 60,000", images(3, tiff(60_000, 60_000), "tif"), "000.tif"),
        Case("a TIFF whose next page is its first", images(6, tiff(8, 8, strip=64, next_page=8), "tif"), answers=True),
        Case("PostScript called .png, for which Pillow would start Ghostscript", images(3, postscript),
             "cannot identify"),
        Case("16 bits per value", images(6, png(kind="I;16")), "8 bits"),
        Case("a CMYK JPEG, taken as RGB", images(6, png(kind="CMYK", form="jpeg"), "jpg"), answers=True),
        *(Case(f"the first bytes of a .{ending}", images(6, png(16, 16, "L", PICTURE_FORMATS[ending])[:20], ending),
               "000.") for ending in ("jpg", "bmp")),
    ]


def _tables() -> list[Case]:
    cells = plain([png()] * 20)

    def saying(footer: dict[int, Any]) -> bytes:
        return parquet(page(cells, 20), 20, footer=footer)

    def placed(**chunk: Any) -> bytes:
        return parquet(page(cells, 20), 20, chunk={int(field[1:]): Long(value) for field, value in chunk.items()})

    histograms = {16: {2: [Long(20)] * 5, 3: [Long(20)] * 5}}
    return [Case(what, writes("d.parquet", content), "d.parquet.*" + says) for what, content, says in (
        ("a page that says 2 GiB", parquet(page(zeros(1000), 20, size=2**31 - 1), 20, codec=GZIP), "memory"),
        ("a page of 200 MiB of zeros",
         lambda: parquet(page(zeros(200 << 20), 20, size=200 << 20), 20, codec=GZIP), "row 0"),
        ("a page that says -1 bytes", parquet(page(zeros(1000), 20, size=-1), 20, codec=GZIP), ""),
        ("an image of 60 MiB of zeros in twenty rows, once in a dictionary",
         lambda: once_for(20, zeros(60 << 20, struct.pack("<I", (60 << 20) - 4)), 60 << 20), "memory"),
        ("a row of a thousand million floats, as run lengths in 60 bytes", row_of_one_float(10**9), "memory"),
        ("150,000 pages without values", parquet(page(b"", 0) * 150_000 + page(cells, 20), 20), "fewer rows"),
        ("10^12 rows", saying({3: Long(10**12)}), "announce"),
        ("a column after the end of the file", placed(_9=10**15), ""),
        ("9,000 columns within each other", saying({2: [{3: 0, 4: b"x", 5: 1}] * 9000 + schema([b"x"])[1:]}), "nested"),
        ("a footer of 4 GiB", parquet(page(cells, 20), 20)[:-8] + struct.pack("<I", 2**32 - 1) + b"PAR1", "footer"),
        ("a column that clears the screen", saying({2: schema([b"\x1b[2J\n"], floats=True)}), "lists of floats"),
        ("statistics over which pyarrow ends its process", parquet(page(cells, 20), 20, chunk=histograms), "ended"))]


def _official() -> list[Case]:
    batch = python2_batch(np.zeros((2, 3, 32, 32), np.uint8), [0, 1])
    megabyte = b"X" + struct.pack("<I", 10**6) + b"a" * 10**6
    return [
        Case("a MATLAB variable that says 4 GiB",
             flowers(lambda mat: mat[:132] + b"\xff" * 4 + mat[136:]), "setid.mat"),
        Case("a MATLAB list of 2^31 numbers",
             flowers(lambda mat: mat[:160] + struct.pack("<ii", 1, 2**31 - 1) + mat[168:]), "setid.mat"),
        Case("a pickle whose memo has 2^32 places",
             writes("d/data_batch_1", batch[:3] + b"r" + b"\xff" * 4 + batch[3:]), "data_batch_1"),
        Case("a pickle that makes 10 GB of one text", writes(
            "d/data_batch_1", b"\x80\x02c_codecs\nencode\nq\x00" + megabyte + b"q\x01U\x06latin1q\x02]("
            + b"h\x00h\x01h\x02\x86R" * 10_000 + b"e."), "memory"),
        Case("a pickle that says an array of 10 TB", writes("d/data_batch_1", batch.replace(
            b"M\x00\x0c\x86", b"\x8a\x06" + (10**13).to_bytes(6, "little") + b"\x86", 1)), "data_batch_1"),
    ]


def _text() -> list[Case]:
    return [
        *(Case(what, writes("d.txt", content), says) for what, content, says in (
            ("UTF-16", "1 2 3\n2 3 4\n".encode("utf-16"), "UTF-8"),
            ("colours and a window title", b"1 2 \x1b[2J\x1b]0;x\x07\n", "row 0"))),
        *(Case(f"a line of 20 GiB (.{name})", special(
            lambda folder, name=name, start=start: sparse(folder / f"d.{name}", start, 20 << 30), *ZONE, f"d.{name}"),
            "line") for name, start in (("txt", b"1 2"), ("arff", b"@relation x\n"))),
    ]


def _special() -> list[Case]:
    return [
        *(Case(f"/dev/{device} as {name}", special(
            lambda folder, name=name, device=device: (folder / name).symlink_to(f"/dev/{device}"), *ZONE, name),
            "not a file") for name, device in (("d.npz", "zero"), ("d.toml", "urandom"))),
        *(Case(f"a pipe called {name}", special(pipe_for(name), *ZONE, name.split("/")[0]), "not a file|no file")
          for name in ("d.npy", "d/b.npy", "d/b.png", "d/train-images-idx3-ubyte", "d/a.parquet")),
        Case("a device among images", folder_with("b.png", lambda path: path.symlink_to("/dev/zero")), "not a file"),
        Case("a link to nothing among images", folder_with("b.png", lambda path: path.symlink_to("gone")), "b.png"),
        Case("a link to the folder itself", folder_with("e", lambda path: path.symlink_to(".")), "link"),
        Case("two links in each of thirty folders", special(branching_links), "link"),
        Case("links to images outside the folder, which are followed", special(outside_links), answers=True),
        Case("a file that may not be read", special(unreadable, *ZONE, "d.npy"), "permission", as_nobody=True),
    ]


def _names() -> list[Case]:
    wrong = npy(GOOD * np.float32(np.nan))
    return [
        *(Case(f"{what} in the name of sound data", special(
            lambda folder, name=name: (folder / name).write_bytes(npy(GOOD)), *ZONE, f"./{name}", *FEW, "--out", "z"),
            "sigma", answers=True) for what, name in (
                ("half a formula", "$\\frac{x.npy"), ("bytes that are no text", "a\udcffb.npy"))),
        *(Case(f"{what} in the name of wrong data", special(
            lambda folder, name=name: (folder / name).write_bytes(wrong), *ZONE, f"./{name}"), "NaN")
          for what, name in (("a line break", "a\nb.npy"), ("letters read backwards", "\u202egpj.npy"),
                             ("8-bit control characters", "\x9b31m.npy"))),
        Case("a name of 5,000 letters", special(lambda folder: None, *ZONE, "x" * 5000), "no such"),
        Case("an option that clears the screen", special(lambda folder: None, *ZONE, "digits", "--\x1b[2J"),
             "No such option"),
        Case("a command that clears the screen", special(lambda folder: None, "\x1b[2Jx\ny"), "No such command"),
    ]


def _numbers() -> list[Case]:
    commands = {"danger-zone": [*ZONE, "FILE", *FEW], "bounds": ["bounds", "FILE", *FEW], "risk": ["risk", "FILE"],
                "train": ["train", "FILE", *TRAIN, "--out", "r"]}
    ones = np.ones((20, 4), np.float32)
    return [Case(f"{what}, {command}", writes("d.npy", lambda values=values: npy(values()), *commands[command]), says,
                 says == "") for what, command, values, says in (
        ("values near the largest float", "danger-zone", lambda: np.sign(GOOD) * np.float32(3e38), "multiply|rescale"),
        ("values of 1e-30", "train", lambda: GOOD * np.float32(1e-30), "multiply|rescale"),
        ("constant values", "danger-zone", lambda: ones, ""), ("constant values", "risk", lambda: ones, "distinct"),
        ("three points", "train", lambda: GOOD[:3], ""),
        ("one point", "bounds", lambda: GOOD[:1], "at least 2"),
        ("NaN", "danger-zone", lambda: np.where(np.eye(20, 4) > 0, np.nan, GOOD), "NaN"),
        ("a million values per point", "danger-zone", lambda: np.zeros((6, 10**6), "f4") + np.eye(6, 10**6, dtype="f4"),
         "memory is"))]


def _recipes() -> list[Case]:
    start = '[source]\nkind = "file"\npath = "d.npy"\n'
    return [Case(what, special(lambda folder, text=text: ((folder / "d.npy").write_bytes(npy(GOOD)),
                                                          (folder / "r.toml").write_text(text)), *ZONE, "r.toml"), says)
            for what, text, says in (
        ("a recipe 5,000 tables deep", "x = " + "[" * 5000, "r.toml"),
        ("a shape of 10^30", start + f"[points]\nshape = [{10**18}, {10**12}]\n", "r.toml"),
        ("a recipe that reads itself", '[source]\nkind = "file"\npath = "r.toml"\n', "r.toml"),
        ("a recipe of 17 MB", " " * 17_000_000, "r.toml"),
        ("a recipe that reads a device", '[source]\nkind = "file"\npath = "/dev/zero"\n', "not a file"))]


def _models() -> list[Case]:
    def tensors(**places: tuple[list[int], int, int]) -> dict[str, Any]:
        return {name: {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
                for name, (shape, start, end) in places.items()}

    overlap = safetensors(tensors(a=([4], 0, 16), b=([4], 8, 24)), bytes(24))
    model, config = "run/model.safetensors", "run/config.json"
    last = [*GENERATE, "--weights", "last"]
    weights = "unet/unet/diffusion_pytorch_model.safetensors"
    return [
        *(Case(f"safetensors {what}", replaced(file, content, *arguments), "safetensors")
          for what, file, content, arguments in (
            ("with a tensor of 4 TB", model, safetensors(tensors(a=([10**6, 10**6], 0, 4 * 10**12)), bytes(64)), last),
            ("with a header of 2^62 bytes", "run/state.safetensors", struct.pack("<Q", 2**62) + b"{}", RESUME),
            ("with tensors that overlap", weights, overlap, UNET),
            ("with a header 100,000 lists deep", weights, struct.pack("<Q", 10**5) + b"[" * 10**5, UNET))),
        *(Case(f"a config.json with {key} = {_short(value)}", changed(config, {key: value}, *GENERATE), "run")
          for key, value in (("shape", [1, 10**4, 10**4]), ("network", "../x"), ("sigma_data", 1e300),
                             ("classes", 10**6 - 1), ("data", [1]))),
        *(Case(f"a {name} {what}", replaced(f"run/{name}", text, *arguments), name)
          for what, name, text, arguments in (
            ("100,000 lists deep", "config.json", "[" * 10**5, last),
            ("with a number of 5,000 digits", "levels.json", '{"a":' + "1" * 5000 + "}", GENERATE),
            ("with NaN", "stats.jsonl", '{"step":NaN}\n', RESUME))),
        *(Case(f"a levels.json with {key} = {_short(value)}", changed("run/levels.json", {key: value}, *GENERATE),
               "levels.json") for key, value in (("edges", ["a"]), ("steps", ["../x"]))),
        Case("a pipe for weights", special(pipe_for(model), *last), "not a file"),
    ]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 40 else f"{text[:16]}... ({len(text):,} characters)"


def _networks() -> list[Case]:
    return [Case(f"a {part} with {_short(change)}", changed(
        f"unet/{part}/" + {"unet": "config.json", "scheduler": "scheduler_config.json"}[part], change, *UNET), says)
        for part, says, changes in (
            ("unet", "unet", ({"_class_name": "os.system"}, {"auto_map": {"AutoModel": "x.py"}},
                              {"block_out_channels": [8, 10**12]}, {"block_out_channels": [2048, 2048]},
                              {"in_channels": -1, "out_channels": -1})),
            ("scheduler", "", ({"num_train_timesteps": 10**12}, {"beta_start": float("nan")})))
        for change in changes]


def _zones() -> list[Case]:
    file, plot = "zone/danger-zone.json", ["plot-curves", "zone", "--out", "p.png"]
    return [
        *(Case(f"{'.'.join(place)} = {_short(value)}", changed(file, put(*place, value), *plot), "danger-zone.json")
          for place, value in ((("zone", "sigma_low"), float("nan")), (("zone",), [["a"]]), (("data", "n_train"), -1),
                               (("curves", "sigma"), "x"), (("curves", "coverage", "estimate"), 10**400))),
        *(Case(f"a danger-zone file {what}", replaced("zone/danger-zone.json", content, "train", "d.npz", *TRAIN,
                                                      "--gap", "./zone", "--out", "new"), "danger-zone.json")
          for what, content in (("a million lists deep", b"[" * 10**6), ("of 40 MB", b" " * 40_000_000))),
        Case("a name with a formula and colours, drawn as it is",
             changed(file, put("data", "name", "\x1b[2J$x^$"), *plot), answers=True),
        Case("a pipe for a danger-zone file", special(pipe_for(file), *plot), "not a file"),
    ]


def _samples() -> list[Case]:
    device = {"data": {"spec": "/dev/zero", "sha256": "", "heldout": None, "n_train": None, "n_heldout": None,
                       "shuffle": False, "seed": 0}}
    return [
        *(Case(f"samples {what}", samples(npz(samples=values)), "bad.npz") for what, values in (
            ("of another shape", np.zeros((4, 3), np.float32)), ("of no rows", np.zeros((0, 1, 8, 8), np.float32)),
            ("of NaN", np.full((4, 1, 8, 8), np.nan, np.float32)))),
        Case("samples that are all the same", samples(npz(samples=np.zeros((8, 1, 8, 8), np.float32))), answers=True),
        Case("a bomb of samples", samples(zipped({"samples.npy": npy_header((25 * 10**7, 8, 8)) + bytes(1000)})),
             "announces"),
        Case("a pipe for samples", special(pipe_for("p.npz"), "quality", "p.npz", "--data", "digits"), "not a file"),
        Case("about: 100,000 lists deep", said_about("[" * 10**5), "not JSON"),
        Case("about: data = [1], relied on", said_about({"data": [1]}, "quality", "s.npz"), "--data"),
        Case("about: data in /dev/zero", said_about(device, "quality", "s.npz"), "not a file"),
        Case("about: colours, printed as JSON", said_about({"x": "\x1b[2J"}), answers=True),
    ]


def _options() -> list[Case]:
    train = "train d.npz --network mlp --iterations 2 --out r"
    return [Case(f"geomem {command.split()[0]} {option}", on(command, option)) for command, options in (
        ("danger-zone d.npz", ("--sigmas=99999999999999", "--threshold=nan", "--device=meta", "--out=d.npz")),
        (train, ("--gap=nan:1", "--batch=1000000000000", "--init=/dev/zero")),
        ("generate run --out o.npz", ("--seeds=0-99999999999", "--weights=../../x")),
        ("bounds d.npz", ("--sizes=99999999",)), ("memorization run", ("--n-samples=1000000000000",)))
        for option in options]


# --- trying them --------------------------------------------------------------------------------------------


def unprintable(text: str) -> list[str]:
    """Characters that a terminal would obey rather than show."""
    return sorted({c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")})


def try_case(case: Case) -> tuple[Outcome, list[str]]:
    """Run it; the outcome, and what there was afterwards and not before."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        arguments = case.make(folder)
        before = set(_all_files(folder))
        outcome = run(arguments, folder, as_nobody=case.as_nobody)
        return outcome, sorted(set(_all_files(folder)) - before)


def _all_files(folder: Path) -> list[str]:
    return [os.path.join(here, name) for here, folders, files in os.walk(folder) for name in folders + files]


PAGE = """# Hostile and broken input

Each of these is tried by `tests/test_hostile.py`, in a process that may map 1 GiB more than Python and its packages and
that is ended after a minute. *Answered* is exit status 0 with a right answer; *refused* is exit status 2 with one line,
which names the file or option and says what to do, and nothing left behind. No row gives a traceback, a warning, or a
character that a terminal would obey, and no pickle is run.
"""


def markdown() -> str:
    """The page of the documentation."""
    lines, group = [PAGE], ""
    for case in cases():
        if case.group != group:
            group = case.group
            lines.append(f"\n## {group}\n\n| what | happens |\n|---|---|")
        what = "".join(c if c.isprintable() else "?" for c in case.what).replace("|", "\\|").replace("`", "'")
        lines.append(f"| `{what}` | {'answered' if case.answers else 'refused'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown())
