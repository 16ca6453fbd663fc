"""Every bad input that is tried, as a record: what it is, how it is made, and the command that is given it.

``python tests/hostile_inputs.py`` tries all of them and writes docs/hostile-input.md; test_hostile.py tries the same
records, and that the file is up to date.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import pickle
import re
import shutil
import struct
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from hostile import Outcome, run
from parquet_files import DICTIONARY, GZIP, Long, page, parquet, plain, schema
from parquet_files import run as run_of
from PIL import Image

GOOD = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
PIXELS = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
PICTURE_FORMATS = {  # by ending
    "png": "png",
    "jpg": "jpeg",
    "gif": "gif",
    "bmp": "bmp",
    "webp": "webp",
    "tif": "tiff",
    "ppm": "ppm",
}
TRACE = "code-was-run"
ZONE = ["danger-zone"]
FEW = ["--sigmas", "4"]
TRAIN = ["--network", "mlp", "--iterations", "2", "--batch", "4"]


@dataclass(frozen=True)
class Case:
    """``make`` writes the input into the folder it is given and returns the arguments of geomem.

    The command is refused (status 2, one line), or where ``answers`` it gives a right answer (status 0); the line, or
    what it prints, holds ``says``.
    """

    group: str
    what: str
    how: str
    make: Callable[[Path], list[Any]]
    says: str = ""
    answers: bool = False
    as_nobody: bool = False

    @property
    def name(self) -> str:
        return f"{self.group}: {self.what}".encode("unicode_escape").decode()

    @property
    def row(self) -> str:
        """What the row of the table begins with."""
        return f"| {self.what} | {self.how} |"


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

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def safetensors(header: dict[str, Any], content: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def writes(name: str, content: bytes | Callable[[], bytes], *arguments: str) -> Callable[[Path], list[Any]]:
    """Writes one file; by default the arguments look for the danger zone in it."""

    def make(folder: Path) -> list[Any]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content() if callable(content) else content)
        return [part.replace("FILE", name) for part in arguments] or [*ZONE, name, *FEW]

    return make


def sparse(path: Path, start: bytes, size: int) -> None:
    with open(path, "wb") as file:
        file.write(start)
        file.truncate(size)


@cache
def models() -> Path:
    """A folder with a trained run, a folder for diffusers, a danger-zone file and samples, all sound."""
    folder = Path(tempfile.mkdtemp(prefix="sound-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    np.savez(folder / "d.npz", train=PIXELS[:12], heldout=PIXELS[12:])
    unet = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
        "attention_head_dim": 8,
    }
    import diffusers
    import torch

    torch.manual_seed(0)
    diffusers.DDPMPipeline(diffusers.UNet2DModel(**unet), diffusers.DDPMScheduler()).save_pretrained(folder / "unet")
    for arguments in (
        ["train", "d.npz", *TRAIN, "--out", "run"],
        [*ZONE, "d.npz", *FEW, "--out", "zone"],
        ["generate", "run", "--seeds", "0-7", "--out", "s.npz"],
    ):
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


def run_saying(changes: dict[str, Any], name: str = "config.json", *arguments: str) -> Callable[[Path], list[Any]]:
    """The sound run with changes to one of its JSON files."""

    def make(folder: Path) -> list[Any]:
        sound(folder, "run")
        path = folder / "run" / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return list(arguments) or ["generate", "run", "--seeds", "0-3", "--out", "out.npz"]

    return make


def run_holding(name: str, content: bytes | str, *arguments: str) -> Callable[[Path], list[Any]]:
    """The sound run with one of its files replaced."""

    def make(folder: Path) -> list[Any]:
        sound(folder, "run")
        (folder / "run" / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return list(arguments) or ["generate", "run", "--seeds", "0-3", "--weights", "last", "--out", "out.npz"]

    return make


def unet_saying(part: str, changes: dict[str, Any]) -> Callable[[Path], list[Any]]:
    """The sound diffusers folder with changes to one of its two descriptions."""

    def make(folder: Path) -> list[Any]:
        sound(folder, "unet")
        path = folder / "unet" / part / {"unet": "config.json", "scheduler": "scheduler_config.json"}[part]
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return ["generate", "unet", "--seeds", "0", "--out", "out.npz"]

    return make


def zone_saying(change: Callable[[dict[str, Any]], Any], command: str = "plot") -> Callable[[Path], list[Any]]:
    """The sound danger-zone file with a change."""

    def make(folder: Path) -> list[Any]:
        sound(folder, "zone")
        path = folder / "zone" / "danger-zone.json"
        document = json.loads(path.read_text())
        document["zone"] = document["zone"] or {
            "sigma_low": 0.3,
            "sigma_high": 1.5,
            "crossing": 0.6,
            "crossing_low": 0.5,
            "crossing_high": 0.7,
            "threshold": 0.8,
        }
        change(document)
        path.write_text(json.dumps(document))
        return (
            ["plot-curves", "zone", "--out", "p.png"]
            if command == "plot"
            else ["train", "d.npz", *TRAIN, "--gap", "./zone", "--out", "new"]
        )

    return make


def zone_holding(text: bytes) -> Callable[[Path], list[Any]]:
    def make(folder: Path) -> list[Any]:
        sound(folder)
        (folder / "zone.json").write_bytes(text)
        return ["train", "d.npz", *TRAIN, "--gap", "zone.json", "--out", "new"]

    return make


def special(make: Callable[[Path], Any], *arguments: str) -> Callable[[Path], list[Any]]:
    """``make`` is given the folder; the arguments follow, by default the danger zone of ``d``."""

    def both(folder: Path) -> list[Any]:
        make(folder)
        return list(arguments) or [*ZONE, "d", *FEW]

    return both


def images(count: int, content: bytes | Callable[[], bytes], ending: str = "png") -> Callable[[Path], list[Any]]:
    """A folder of images that are all the same."""

    def make(folder: Path) -> list[Any]:
        (folder / "d").mkdir()
        for k in range(count):
            (folder / "d" / f"{k:03}.{ending}").write_bytes(content() if callable(content) else content)
        return [*ZONE, "d", *FEW]

    return make


def named(name: str, values: np.ndarray = GOOD, *more: str) -> Callable[[Path], list[Any]]:
    """An array in a file with a name that does harm."""
    return special(lambda folder: (folder / name).write_bytes(npy(values)), *ZONE, f"./{name}", *FEW, *more)


def on(command: str, name: str = "d.npz", *more: str) -> Callable[[Path], list[Any]]:
    """A command with wrong options on sound data."""

    def make(folder: Path) -> list[Any]:
        sound(folder, "run")
        return [*command.split(), *more]

    return make


def samples_holding(content: bytes, name: str = "bad.npz") -> Callable[[Path], list[Any]]:
    def make(folder: Path) -> list[Any]:
        sound(folder)
        (folder / name).write_bytes(content)
        return ["memorization", name, "--data", "d.npz"]

    return make


# --- files of harmful forms ---------------------------------------------------------------------------------


def gif(frames: int) -> bytes:
    """An animation that shows one frame again and again."""
    whole = png(kind="P", form="gif")
    start = whole.index(b"\x2c")
    return whole[:-1] + whole[start:-1] * frames + whole[-1:]


def tiff(width: int, height: int, *, strip: int = 100, next_page: int = 0) -> bytes:
    """A TIFF whose one page says what it is told to say."""
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (279, 4, 1, strip),
    ]
    return (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(entries))
        + b"".join(struct.pack("<HHII", *e) for e in entries)
        + struct.pack("<I", next_page)
        + bytes(64)
    )


def png_with_chunk(kind: bytes, content: bytes) -> bytes:
    """A sound PNG with one chunk more, after its header."""
    whole, chunk = png(), kind + content
    return whole[:33] + struct.pack(">I", len(content)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + whole[33:]


def zip_saying(content: bytes, size: int) -> bytes:
    """The unpacked size in the directory of a zip file with one member, changed."""
    place = content.rfind(b"PK\x01\x02") + 24
    return content[:place] + struct.pack("<I", size) + content[place + 4 :]


def branching_links(folder: Path) -> None:
    """Thirty folders, each with two links to the next: a thousand million ways to one image."""
    folders = [folder / ("d" if k == 0 else f"e{k}") for k in range(30)]
    for here in folders:
        here.mkdir()
    for here, there in pairwise(folders):
        (here / "a").symlink_to(there)
        (here / "b").symlink_to(there)
    (folders[-1] / "a.png").write_bytes(png())


def folder_with(name: str, add: Callable[[Path], Any]) -> Callable[[Path], list[Any]]:
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


def with_weights(content: bytes) -> Callable[[Path], list[Any]]:
    """The sound diffusers folder with other weights."""

    def make(folder: Path) -> list[Any]:
        sound(folder, "unet")
        (folder / "unet" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(content)
        return ["generate", "unet", "--seeds", "0", "--out", "out.npz"]

    return make


def pickled_unet(folder: Path) -> None:
    sound(folder, "unet")
    (folder / "unet" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "unet" / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Payload()))


def pipe_for(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        sound(folder, "run", "zone")
        path = folder / name
        if path.exists():
            path.unlink()
        os.mkfifo(path)

    return make


def unreadable(folder: Path) -> None:
    (folder / "d.npy").write_bytes(npy(GOOD))
    (folder / "d.npy").chmod(0)


def put(*path_and_value: Any) -> Callable[[dict[str, Any]], None]:
    """A change to a document."""
    *path, last, value = path_and_value

    def change(document: dict[str, Any]) -> None:
        for part in path:
            document = document[part]
        document[last] = value

    return change


def said_about(value: Any, *arguments: str) -> Callable[[Path], list[Any]]:
    """Sound samples that say something else about themselves."""

    def make(folder: Path) -> list[Any]:
        sound(folder)
        text = value if isinstance(value, str) else json.dumps(value)
        np.savez(folder / "s.npz", samples=PIXELS[:8].transpose(0, 3, 1, 2).astype(np.float32), about=np.asarray(text))
        return list(arguments) or ["quality", "s.npz", "--data", "d.npz"]

    return make


# --- the cases ----------------------------------------------------------------------------------------------


@cache
def cases() -> list[Case]:
    """All of them, group by group."""
    return [
        *_code(),
        *_arrays(),
        *_archives(),
        *_images(),
        *_tables(),
        *_text(),
        *_special(),
        *_names(),
        *_numbers(),
        *_recipes(),
        *_models(),
        *_networks(),
        *_zones(),
        *_samples(),
        *_options(),
    ]


def _code() -> list[Case]:
    group, pickled = "Code", pickle.dumps(Payload())
    objects = np.array([Payload()] * 4, dtype=object)
    found = [
        Case(
            group,
            "objects in a .npy",
            "np.save of an object whose unpickling makes a folder",
            writes("d.npy", lambda: npy(objects)),
            "Python objects",
        ),
        Case(
            group,
            "objects in a .npz",
            "the same with np.savez",
            writes("d.npz", lambda: npz(train=objects)),
            "Python objects",
        ),
        Case(group, "a pickle called .npy", "pickle.dumps", writes("d.npy", pickled), "d.npy"),
        Case(group, "a pickle called .npz", "pickle.dumps", writes("d.npz", pickled), "d.npz"),
        Case(
            group,
            "a pickle among zipped images",
            "a zip with a.png that is a pickle",
            writes("d.zip", lambda: zipped({"a.png": pickled, "data.pkl": pickled})),
            "a.png",
        ),
        Case(
            group,
            "objects as samples",
            "np.savez(samples=objects)",
            writes("d.npz", lambda: npz(samples=objects), "memorization", "FILE", "--data", "digits"),
            "Python objects",
        ),
        Case(
            group,
            "a diffusers folder with pickled weights",
            "diffusion_pytorch_model.bin in place of safetensors",
            special(pickled_unet, "generate", "unet", "--out", "out.npz"),
            "pickled",
        ),
        Case(
            group,
            "a pickle called .safetensors",
            "pickle.dumps",
            writes("d.safetensors", pickled, "train", "digits", *TRAIN, "--init", "FILE", "--out", "r"),
            "safetensors",
        ),
        Case(
            group,
            "a checkpoint in a zip",
            "archive/data.pkl, as torch.save writes it",
            writes(
                "d.pt",
                lambda: zipped({"archive/data.pkl": pickled}),
                "train",
                "digits",
                *TRAIN,
                "--init",
                "FILE",
                "--out",
                "r",
            ),
            "pickled",
        ),
    ]
    for ending in ("pt", "pth", "bin", "ckpt", "pkl"):
        what = f"a pickle called .{ending}"
        found += [
            Case(group, f"{what}, as data", "pickle.dumps", writes(f"d.{ending}", pickled), f"d.{ending}"),
            Case(
                group,
                f"{what}, as a model",
                "pickle.dumps",
                writes(f"d.{ending}", pickled, "generate", "FILE", "--out", "out.npz"),
                "pickled",
            ),
            Case(
                group,
                f"{what}, to start from",
                "pickle.dumps",
                writes(f"d.{ending}", pickled, "train", "digits", *TRAIN, "--init", "FILE", "--out", "r"),
                "pickled",
            ),
            Case(
                group,
                f"{what}, as samples",
                "pickle.dumps",
                writes(f"d.{ending}", pickled, "memorization", "FILE", "--data", "digits"),
                "pickled",
            ),
        ]
    return found


def _arrays() -> list[Case]:
    group = "NumPy files"
    headers: list[tuple[str, Any, Any, dict[str, Any]]] = [
        ("4 TB", (10**6, 10**6), "<f4", {}),
        ("a negative length", (-1, 4), "<f4", {}),
        ("two negative lengths", (-5, -4), "<f4", {}),
        ("10^30 rows", (10**30, 4), "<f4", {}),
        ("lengths whose product overflows", (2**32, 2**32), "<f4", {}),
        ("no rows of 10^18 values", (0, 10**18), "<f4", {}),
        ("named columns", (4,), [("a", "<f4"), ("b", "<i8")], {}),
        ("a column of objects", (4,), [("a", "|O")], {}),
        ("values that are arrays", (4,), ("<f4", (10**9,)), {}),
        ("values of a gigabyte each", (4, 4), "|V1000000000", {}),
        ("dates", (4, 4), "<M8[s]", {}),
        ("a shape that is text", "abc", "<f4", {}),
        ("lengths with a point", (4.0, 4), "<f4", {}),
        ("True for a length", (True, 4), "<f4", {}),
        ("70 axes", (1,) * 70, "<f4", {}),
        ("letters of 400 MB", (4, 4), "<U100000000", {}),
        ("version 3", (10**6, 10**6), "<f4", {"version": 3}),
        ("code for a type", (4, 4), "__import__('os')", {}),
    ]
    found = []
    for what, shape, descr, more in headers:
        content = npy_header(shape, descr, **more) + bytes(320)
        for name, whole in (("d.npy", content), ("d.npz", zipped({"train.npy": content}))):
            found.append(
                Case(
                    group,
                    f"a header that announces {what} (.{name[-3:]})",
                    "the header, and 320 bytes",
                    writes(name, whole),
                    name,
                )
            )
    found += [
        Case(
            group,
            "a header of 4 GiB",
            "its length in the first bytes; a sparse file of 5 GiB",
            special(
                lambda folder: sparse(folder / "d.npy", b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1), 5 << 30),
                *ZONE,
                "d.npy",
            ),
            "d.npy",
        ),
        Case(
            group,
            "a header of 9,000 parentheses",
            "( repeated",
            writes("d.npy", b"\x93NUMPY\1\0" + struct.pack("<H", 9000) + b"(" * 9000),
            "d.npy",
        ),
        Case(group, "an empty file", "no bytes", writes("d.npy", b""), "d.npy"),
        Case(group, "bytes after the array", "ten more", writes("d.npy", npy(GOOD) + b"x" * 10), "announces"),
        Case(group, "a number", "np.float32(3)", writes("d.npy", npy(np.array(np.float32(3)))), "shape ()"),
        Case(group, "Fortran order", "np.asfortranarray", writes("d.npy", npy(np.asfortranarray(GOOD))), answers=True),
        Case(group, "big-endian floats", ">f4", writes("d.npy", npy(GOOD.astype(">f4"))), answers=True),
        Case(group, "16-bit floats", "f2", writes("d.npy", npy(GOOD.astype("f2"))), answers=True),
        Case(group, "long doubles", "f16", writes("d.npy", npy(GOOD.astype(np.longdouble))), answers=True),
    ]
    for at in (3, 60, 130, 250):
        found.append(
            Case(group, f"a .npy cut after {at} bytes", "the first bytes", writes("d.npy", npy(GOOD)[:at]), "d.npy")
        )
        found.append(
            Case(
                group, f"a .npz cut after {at} bytes", "the first bytes", writes("d.npz", npz(train=GOOD)[:at]), "d.npz"
            )
        )
    for kind, what in (
        ("u2", "16-bit integers"),
        ("i8", "64-bit integers"),
        ("?", "truth values"),
        ("c8", "complex numbers"),
    ):
        found.append(
            Case(
                group,
                what,
                f"values of type {kind}",
                writes("d.npy", npy(np.abs(GOOD * 9).astype(kind))),
                "convert them",
            )
        )
    return found


def _archives() -> list[Case]:
    group = "Archives"
    return [
        Case(
            group,
            "a .npz bomb",
            "zeros that unpack from 100 kB to 100 MB, a header that announces 8 GB",
            writes("d.npz", lambda: zipped({"train.npy": npy_header((2 * 10**8, 10)) + bytes(10**8)})),
            "announces",
        ),
        Case(
            group,
            "a .npz that says 4 GiB",
            "the unpacked size in the directory",
            writes("d.npz", zip_saying(npz(train=GOOD), 2**32 - 2)),
            "bomb",
        ),
        Case(
            group,
            "a .npz that says 100 bytes",
            "the unpacked size in the directory",
            writes("d.npz", zip_saying(npz(train=GOOD), 100)),
            "d.npz",
        ),
        Case(
            group,
            "a .npz with a path",
            "../../train.npy",
            writes("d.npz", zipped({"../../train.npy": npy(GOOD)})),
            "no key",
        ),
        Case(
            group,
            "zip slip",
            "images called ../../../tmp/evil/0.png",
            writes("d.zip", zipped({f"../../../tmp/evil/{k}.png": png() for k in range(6)})),
            answers=True,
        ),
        Case(
            group,
            "absolute paths in a zip",
            "/etc/0.png",
            writes("d.zip", zipped({f"/etc/{k}.png": png() for k in range(6)})),
            answers=True,
        ),
        Case(
            group,
            "a zip bomb",
            "an image of 300 MB of zeros",
            writes("d.zip", lambda: zipped({"a.png": bytes(300 * 10**6)})),
            "too large",
        ),
        Case(
            group,
            "ten thousand empty images",
            "members without bytes",
            writes("d.zip", lambda: zipped({f"{k}.png": b"" for k in range(10_000)}, 0)),
            "0.png",
        ),
        Case(
            group,
            "an encrypted zip",
            "the flag of a member",
            writes("d.zip", zipped({"a.png": png()}).replace(b"\x14\0\0\0\x08", b"\x14\0\1\0\x08")),
            "d.zip",
        ),
        Case(
            group,
            "an unknown compression",
            "method 99",
            writes("d.zip", zipped({"a.png": png()}).replace(b"\x08\0", b"\x63\0")),
            "d.zip",
        ),
        Case(
            group,
            "names that clear the screen, in a zip",
            "ESC [ 2 J and a line break",
            writes("d.zip", zipped({"\x1b[2Ja\n.png": png(), "\x1b]0;x\x07.png": png(4, 4)})),
            "is 4 x 4",
        ),
    ]


def _images() -> list[Case]:
    group = "Images"
    found = [
        Case(group, "a PNG of 30,000 x 30,000", "its header", images(3, png_saying(30_000, 30_000)), "exceeds limit"),
        Case(group, "a PNG of 2^31 x 2^31", "its header", images(3, png_saying(2**31 - 1, 2**31 - 1)), "000.png"),
        Case(group, "a PNG of 0 x 0", "its header", images(3, png_saying(0, 0)), "000.png"),
        Case(
            group,
            "a PNG of 9,000 x 9,000 without pixels",
            "its header, and 1,000 bytes",
            images(3, png_saying(9000, 9000, bytes(1000))),
            "000.png",
        ),
        Case(
            group,
            "small PNGs that decode to 5 GB",
            "60 black images of 9,000 x 9,000",
            images(60, cache(lambda: png(9000, 9000))),
            "bomb",
        ),
        Case(
            group,
            "a text chunk that unpacks to 100 MB",
            "zTXt",
            images(3, png_with_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(10**8)))),
            "000.png",
        ),
        Case(
            group,
            "a GIF of 100,000 frames",
            "one frame repeated; the first is taken",
            images(6, gif(10**5), "gif"),
            answers=True,
        ),
        Case(group, "a TIFF of 60,000 x 60,000", "its tags", images(3, tiff(60_000, 60_000), "tif"), "000.tif"),
        Case(
            group,
            "a TIFF whose next page is its first",
            "its tags; the first page is taken",
            images(6, tiff(8, 8, strip=64, next_page=8), "tif"),
            answers=True,
        ),
        Case(group, "a PPM of 100,000 x 100,000", "its header", images(3, b"P5 100000 100000 255\n", "ppm"), "000.ppm"),
        Case(
            group,
            "PostScript called .png",
            "Pillow would start Ghostscript",
            images(3, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%EOF\n"),
            "cannot identify",
        ),
        Case(group, "16 bits per value", "mode I;16", images(6, png(kind="I;16")), "8 bits"),
        Case(group, "floats in a TIFF", "mode F", images(6, png(kind="F", form="tiff"), "tif"), "8 bits"),
        Case(group, "a CMYK JPEG", "taken as RGB", images(6, png(kind="CMYK", form="jpeg"), "jpg"), answers=True),
    ]
    for ending, form in PICTURE_FORMATS.items():
        whole = png(16, 16, "P" if form == "gif" else "L", form)
        found.append(Case(group, f"20 bytes of a .{ending}", "the first ones", images(6, whole[:20], ending), "000."))
        if form not in ("jpeg", "gif", "webp"):  # small ones of these decode from half their bytes, or not, by version
            found.append(
                Case(
                    group,
                    f"two thirds of a .{ending}",
                    "the first bytes",
                    images(6, whole[: len(whole) * 2 // 3], ending),
                    "000.",
                )
            )
    return found


def _tables() -> list[Case]:
    group, cells = "Parquet files", plain([png()] * 20)

    def saying(footer: dict[int, Any]) -> bytes:
        return parquet(page(cells, 20), 20, footer=footer)

    def placed(**chunk: Any) -> bytes:
        return parquet(page(cells, 20), 20, chunk={int(field[1:]): Long(value) for field, value in chunk.items()})

    histograms = {16: {2: [Long(20)] * 5, 3: [Long(20)] * 5}}

    def footer_of(length: int) -> bytes:
        return parquet(page(cells, 20), 20)[:-8] + struct.pack("<I", length) + b"PAR1"

    return [
        Case(group, what, how, writes("d.parquet", content), says)
        for what, how, content, says in (
            (
                "a page that says 2 GiB",
                "its header; it unpacks to 1 kB, as the footer says",
                parquet(page(zeros(1000), 20, size=2**31 - 1), 20, codec=GZIP),
                "unpacks to",
            ),
            (
                "a page of 200 MiB of zeros",
                "gzip; its header is right",
                lambda: parquet(page(zeros(200 << 20), 20, size=200 << 20), 20, codec=GZIP),
                "unpacks to",
            ),
            (
                "thirty pages that say 60 MiB",
                "their headers",
                parquet(30 * page(bytes(100), 1, size=60 << 20), 30, codec=GZIP),
                "bomb",
            ),
            (
                "an image of 60 MiB of zeros in twenty rows",
                "a dictionary with one value, which is read",
                lambda: once_for(20, zeros(60 << 20, struct.pack("<I", (60 << 20) - 4)), 60 << 20),
                "row 0",
            ),
            (
                "a page that says -1 bytes",
                "its header",
                parquet(page(zeros(1000), 20, size=-1), 20, codec=GZIP),
                "impossible",
            ),
            (
                "a packed page of 1 GiB",
                "its header; the file has 200 bytes",
                parquet(page(cells, 20, packed=1 << 30), 20),
                "is not in it",
            ),
            (
                "a row of a thousand million floats",
                "run lengths in 60 bytes; the footer says 20 floats",
                row_of_one_float(10**9),
                "bomb",
            ),
            (
                "150,000 pages without values",
                "their headers",
                parquet(page(b"", 0) * 150_000 + page(cells, 20), 20),
                "too many pages",
            ),
            (
                "values that repeat the one before",
                "the encoding DELTA_BYTE_ARRAY",
                parquet(page(cells, 20, encoding=7), 20),
                "DELTA_BYTE_ARRAY",
            ),
            ("fewer values than announced", "the footer says 30", parquet(page(cells, 20), 30), "page header"),
            ("10^12 rows", "the footer", saying({3: Long(10**12)}), "announce"),
            ("-5 rows", "the footer", saying({3: Long(-5)}), "announce"),
            ("a column before the file", "its place in the footer", placed(_9=-4), "not in it"),
            ("a column after the file", "its place in the footer", placed(_9=10**15), "not in it"),
            ("a column of -1 bytes", "its length in the footer", placed(_7=-1), "d.parquet"),
            (
                "100,000 columns",
                "a footer of 0.8 MB, which would take 150 MB",
                lambda: saying({2: schema([b"x"] * 100_000)}),
                "too many values",
            ),
            ("a footer of 7 MB", "one text in it", saying({6: bytes(7_000_000)}), "footer of"),
            (
                "9,000 columns within each other",
                "the footer",
                saying({2: [{3: 0, 4: b"x", 5: 1}] * 9000 + schema([b"x"])[1:]}),
                "d.parquet",
            ),
            ("a footer of 4 GiB", "its length", footer_of(2**32 - 1), "footer"),
            ("a footer of no bytes", "its length", footer_of(0), "d.parquet"),
            (
                "a column that clears the screen",
                "ESC [ 2 J",
                saying({2: schema([b"\x1b[2J\n"], floats=True)}),
                "d.parquet",
            ),
        )
    ] + [
        Case(
            group,
            "statistics that do not fit",
            "histograms of five levels in place of one, which would end the process in pyarrow",
            writes("d.parquet", parquet(page(cells, 20), 20, chunk=histograms)),
            answers=True,
        )
    ]


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


def _text() -> list[Case]:
    group, lines = "Text", b"1 2 3\n2 3 4\n1 2 3\n"
    return [
        Case(group, what, how, writes("d.txt", content), says)
        for what, how, content, says in (
            ("UTF-16", "encode", lines.decode().encode("utf-16"), "UTF-8"),
            ("Latin-1", "a byte above 127", b"1 2 \xe9\n", "UTF-8"),
            ("a NUL", "among the values", b"1 2 \0\n2 3 4\n", "line 1"),
            ("an infinite value", "inf", b"1 2 inf\n2 3 4\n", "infinite"),
            ("colours and a window title", "ESC [ 2 J, ESC ] 0", b"1 2 \x1b[2J\x1b]0;x\x07\n", "line 1"),
            ("a word of a million letters", "x repeated", b"1 2 " + b"x" * 10**6 + b"\n2 3 4\n", "line 1"),
            ("a line of 10 million numbers", "1 repeated", lambda: b"1 " * 10_000_000 + b"\n", "line of more than"),
        )
    ] + [
        Case(
            group,
            what,
            f"{start!r} and then 20 GiB of zeros, a sparse file",
            special(lambda folder, name=name, start=start: sparse(folder / name, start, 20 << 30), *ZONE, name),
            "line",
        )
        for what, name, start in (
            ("an endless line", "d.txt", b"1 2"),
            ("an endless line after a comment", "d.ts", b"#\n"),
            ("an endless line of ARFF", "d.arff", b"@relation x\n"),
        )
    ]


def _special() -> list[Case]:
    group = "Folders, links, pipes, devices"
    found = [
        Case(
            group,
            f"/dev/{device} as .{ending}",
            "a link",
            special(
                lambda folder, ending=ending, device=device: (folder / f"d.{ending}").symlink_to(f"/dev/{device}"),
                *ZONE,
                f"d.{ending}",
            ),
            "not a file",
        )
        for ending in ("npy", "npz", "txt", "zip", "toml", "gz", "parquet")
        for device in ("zero", "urandom")
    ]
    found += [
        Case(
            group,
            f"a pipe called {name}",
            "os.mkfifo",
            special(lambda folder, name=name: os.mkfifo(folder / name), *ZONE, name),
            "not a file",
        )
        for name in ("d", "d.npy", "d.txt", "d.toml")
    ]
    found += [
        Case(group, "a pipe among images", "os.mkfifo", folder_with("b.png", os.mkfifo), "no file"),
        Case(
            group,
            "a device among images",
            "a link to /dev/zero",
            folder_with("b.png", lambda path: path.symlink_to("/dev/zero")),
            "no file",
        ),
        Case(
            group,
            "a link to nothing among images",
            "symlink_to(gone)",
            folder_with("b.png", lambda path: path.symlink_to("gone")),
            "b.png",
        ),
        Case(
            group,
            "a link to the folder itself",
            "symlink_to(.)",
            folder_with("e", lambda path: path.symlink_to(".")),
            "link",
        ),
        Case(
            group,
            "two links in each of thirty folders",
            "a thousand million ways to one image",
            special(branching_links),
            "link",
        ),
        Case(group, "links to images outside the folder", "followed", special(outside_links), answers=True),
        Case(
            group,
            "a link to itself",
            "d.npy",
            special(lambda folder: (folder / "d.npy").symlink_to("d.npy"), *ZONE, "d.npy"),
            "d.npy",
        ),
        Case(
            group,
            "a pipe for a shard",
            "a folder with a.npy and b.npy",
            special(
                lambda folder: (
                    (folder / "d").mkdir(),
                    (folder / "d" / "a.npy").write_bytes(npy(GOOD)),
                    os.mkfifo(folder / "d" / "b.npy"),
                )
            ),
            "b.npy",
        ),
        Case(
            group,
            "a pipe for a CIFAR batch",
            "data_batch_1",
            special(lambda folder: ((folder / "d").mkdir(), os.mkfifo(folder / "d" / "data_batch_1"))),
            "not a file",
        ),
        Case(
            group,
            "a pipe for IDX images",
            "train-images-idx3-ubyte",
            special(lambda folder: ((folder / "d").mkdir(), os.mkfifo(folder / "d" / "train-images-idx3-ubyte"))),
            "not a file",
        ),
        Case(
            group,
            "a pipe for a table",
            "a.parquet",
            special(lambda folder: ((folder / "d").mkdir(), os.mkfifo(folder / "d" / "a.parquet"))),
            "not a file",
        ),
        Case(group, "an empty folder", "mkdir", special(lambda folder: (folder / "d").mkdir()), "no images"),
        Case(
            group,
            "a file that may not be read",
            "chmod 0",
            special(unreadable, *ZONE, "d.npy"),
            "permission",
            as_nobody=True,
        ),
    ]
    return found


NAMES = (
    ("a line break", "a\nb.npy"),
    ("colours", "\x1b[31mred\x1b[0m.npy"),
    ("a window title", "\x1b]0;x\x07.npy"),
    ("letters read backwards", "\u202egpj.npy"),
    ("8-bit control characters", "\x9b31m.npy"),
    ("half a formula", "$\\frac{x.npy"),
    ("a wrong formula", "$x^$.npy"),
    ("braces", "{x}%s.npy"),
    ("240 letters", "n" * 240 + ".npy"),
    ("bytes that are no text", "a\udcffb.npy"),
    ("a blank", " .npy"),
)


def _names() -> list[Case]:
    group = "Names"
    found = [
        Case(
            group,
            f"{what} in the name of sound data",
            "curves are printed and drawn",
            named(name, GOOD, "--out", "z"),
            "sigma",
            answers=True,
        )
        for what, name in NAMES
    ]
    found += [
        Case(
            group, f"{what} in the name of wrong data", "all values NaN", named(name, GOOD * np.float32(np.nan)), "NaN"
        )
        for what, name in NAMES
    ]
    return [
        *found,
        Case(group, "5,000 letters", "no such file", lambda folder: [*ZONE, "x" * 5000], "no such"),
        Case(group, "a NUL in a name", "no such file", lambda folder: [*ZONE, "a\0b.npy"], "no such"),
        Case(
            group,
            "an option that clears the screen",
            "ESC [ 2 J",
            lambda folder: [*ZONE, "digits", "--\x1b[2J"],
            "No such option",
        ),
        Case(group, "a command that clears the screen", "ESC [ 2 J", lambda folder: ["\x1b[2Jx\ny"], "No such command"),
    ]


def _numbers() -> list[Case]:
    group, found = "Numbers", []
    sets: list[tuple[str, Any, str]] = [
        ("values near the largest float", np.sign(GOOD) * np.float32(3e38), "multiply|rescale"),
        ("values of 1e18", GOOD * np.float32(1e18), "multiply|rescale"),
        ("values of 1e-30", GOOD * np.float32(1e-30), "multiply|rescale"),
        ("denormal values", (GOOD.astype(np.float64) * 1e-44).astype(np.float32), "multiply|rescale"),
        ("constant values", np.ones((20, 4), np.float32), ""),
        ("two points", GOOD[:2], "at least 2"),
        ("three points", GOOD[:3], ""),
        ("one value per point", GOOD[:, :1], ""),
        ("values around a million", GOOD + np.float32(1e6), ""),
    ]
    commands = {
        "danger-zone": [*ZONE, "FILE", *FEW],
        "bounds": ["bounds", "FILE", *FEW],
        "risk": ["risk", "FILE"],
        "train": ["train", "FILE", *TRAIN, "--out", "r"],
    }
    for what, values, says in sets:
        for command, arguments in commands.items():
            constant = what == "constant values" and command != "danger-zone"
            answers = not says and not constant
            found.append(
                Case(group, f"{what}, {command}", "in a .npy", writes("d.npy", npy(values), *arguments), says, answers)
            )
    found += [
        Case(group, "one point", "in a .npy", writes("d.npy", npy(GOOD[:1])), "at least 2"),
        Case(group, "NaN", "one value", writes("d.npy", npy(np.where(np.eye(20, 4) > 0, np.nan, GOOD))), "NaN"),
        Case(
            group,
            "64-bit floats beyond 32 bits",
            "1e300",
            writes("d.npy", npy(GOOD.astype(np.float64) * 1e300)),
            "infinite",
        ),
        Case(
            group,
            "a million values per point",
            "six points",
            writes("d.npy", lambda: npy(np.random.default_rng(0).standard_normal((6, 10**6), dtype=np.float32))),
            "memory is",
        ),
    ]
    return found


def _recipes() -> list[Case]:
    group, start = "Recipes", '[source]\nkind = "file"\npath = "d.npy"\n'

    def recipe(text: str) -> Callable[[Path], list[Any]]:
        return special(
            lambda folder: (
                (folder / "d.npy").write_bytes(npy(GOOD)),
                (folder / "r.toml").write_text(text, encoding="utf-8"),
            ),
            *ZONE,
            "r.toml",
        )

    return [
        Case(group, what, how, recipe(text), "r.toml")
        for what, how, text in (
            ("a recipe 5,000 tables deep", "[ repeated", "x = " + "[" * 5000),
            ("a range of NaN", "range = [0, nan]", start + "[points]\nrange = [0, nan]\n"),
            ("an infinite range", "range = [-inf, inf]", start + "[points]\nrange = [-inf, inf]\n"),
            ("an empty range", "range = [9, 9]", start + "[points]\nrange = [9, 9]\n"),
            ("a shape of 10^30", "shape", start + f"[points]\nshape = [{10**18}, {10**12}]\n"),
            (
                "a split of -5",
                "train = -5",
                start + '[split]\nrule = "permutation"\nseed = 0\ntrain = -5\nheldout = 9\n',
            ),
            ("a recipe that reads itself", "path", '[source]\nkind = "file"\npath = "r.toml"\n'),
            ("a recipe of 17 MB", "blanks", " " * 17_000_000),
        )
    ] + [
        Case(
            group,
            "a recipe that reads a device",
            "path = /dev/zero",
            recipe('[source]\nkind = "file"\npath = "/dev/zero"\n'),
            "not a file",
        )
    ]


def _models() -> list[Case]:
    group = "Checkpoints and run directories"
    huge = {"a": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}
    both = {
        name: {"dtype": "F32", "shape": [4], "data_offsets": [start, start + 16]}
        for name, start in (("a", 0), ("b", 8))
    }
    weights = [
        ("a tensor of 4 TB", safetensors(huge, bytes(64))),
        ("a header of 2^62 bytes", struct.pack("<Q", 2**62) + b"{}"),
        ("a header of 90 MB", struct.pack("<Q", 90 * 10**6) + b" " * 100),
        ("tensors that overlap", safetensors(both, bytes(24))),
        ("a negative length", safetensors({"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}, bytes(16))),
        ("an unknown type", safetensors({"a": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}, bytes(2))),
        ("a header 100,000 lists deep", struct.pack("<Q", 10**5) + b"[" * 10**5),
        ("no bytes", b""),
    ]
    found = []
    for what, content in weights:
        found += [
            Case(
                group,
                f"safetensors with {what}, in a run",
                "model.safetensors",
                run_holding("model.safetensors", content),
                "safetensors",
            ),
            Case(
                group,
                f"safetensors with {what}, to resume",
                "state.safetensors",
                run_holding("state.safetensors", content, "train", "d.npz", *TRAIN, "--out", "run", "--resume"),
                "safetensors",
            ),
            Case(
                group,
                f"safetensors with {what}, in a diffusers folder",
                "its weights",
                with_weights(content),
                "safetensors",
            ),
        ]
    for key, values in (
        ("shape", [[10**8], [1, 10**4, 10**4], [1, 4000, 4000], [True, 8, 8], [10**400], None]),
        ("network", ["unet-cifar", "../x", None]),
        ("objective", ["os.system", []]),
        ("sigma_data", [1e300, "0.5", 10**400]),
        ("classes", [10**6 - 1, -1, "2"]),
        ("labels", [[10**30], ["a"], [2, 1]]),
        ("dropout", ["x", -1]),
        ("data", [[1], 5]),
        ("diffusers", [5]),
        ("format", ["x", None]),
    ):
        for value in values:
            changes = {key: value} | ({"network": "diffusers"} if key == "diffusers" else {})
            found.append(
                Case(
                    group,
                    f"a config.json with {key} = {_short(value)}",
                    "the sound run, changed",
                    run_saying(changes),
                    "run",
                )
            )
    for what, text in (
        ("100,000 lists deep", "[" * 10**5),
        ("a number of 5,000 digits", '{"a":' + "1" * 5000 + "}"),
        ("NaN", '{"format":"geomem.run/1","sigma_data":NaN}'),
        ("no text", b'{"\xe9":1}'),
    ):
        for name, command in (
            ("config.json", ()),
            ("levels.json", ("generate", "run", "--seeds", "0", "--out", "o.npz")),
            ("stats.jsonl", ("train", "d.npz", *TRAIN, "--out", "run", "--resume")),
        ):
            content = text if isinstance(text, bytes) else text.encode()
            found.append(
                Case(
                    group,
                    f"a {name} with {what}",
                    "in the sound run",
                    run_holding(name, content + b"\n", *command),
                    name,
                )
            )
    for key, values in (
        ("edges", [[1, 2], [0, 1], ["a"], None]),
        ("steps", [[10**30], ["../x"], None]),
        ("early_stop", [-1, "x"]),
    ):
        found += [
            Case(
                group,
                f"a levels.json with {key} = {_short(value)}",
                "the sound run, changed",
                run_saying({key: value}, "levels.json"),
                "levels.json",
            )
            for value in values
        ]
    found += [
        Case(
            group,
            f"a pipe for {name}",
            "os.mkfifo",
            special(pipe_for(name), "generate", "run", "--weights", "last", "--out", "out.npz"),
            "not a file",
        )
        for name in ("run/config.json", "run/model.safetensors")
    ]
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 40 else f"{text[:16]}... ({len(text):,} characters)"


def _networks() -> list[Case]:
    group, found = "diffusers folders", []
    for change in (
        {"_class_name": "os.system"},
        {"_class_name": "UNet2DConditionModel"},
        {"_class_name": ["UNet2DModel"]},
        {"auto_map": {"AutoModel": "x.py"}},
        {"block_out_channels": [8, 10**12]},
        {"block_out_channels": [8192, 8192]},
        {"block_out_channels": [2048, 2048]},
        {"block_out_channels": []},
        {"layers_per_block": 10**9},
        {"sample_size": 10**9},
        {"in_channels": 10**9, "out_channels": 10**9},
        {"in_channels": -1, "out_channels": -1},
        {"num_class_embeds": 10**9},
        {"time_embedding_dim": 10**6},
        {"norm_eps": "nan"},
        {"dropout": float("nan")},
        {"act_fn": "__import__('os')"},
        {"down_block_types": ["__class__"] * 2},
        {"attention_head_dim": 0},
    ):
        found.append(
            Case(
                group,
                f"a network with {_short(change)}",
                "unet/config.json, changed",
                unet_saying("unet", change),
                "unet",
            )
        )
    for change in (
        {"_class_name": "__main__"},
        {"num_train_timesteps": 10**12},
        {"beta_start": float("nan")},
        {"beta_start": -1},
        {"beta_end": 10**400},
        {"beta_schedule": "os"},
        {"trained_betas": ["x"] * 1000},
        {"prediction_type": {}},
    ):
        found.append(
            Case(
                group,
                f"a scheduler with {_short(change)}",
                "scheduler_config.json, changed",
                unet_saying("scheduler", change),
                "",
            )
        )
    return found


def _zones() -> list[Case]:
    group = "Danger-zone files"
    found = []
    for place in (
        ("zone", "sigma_low"),
        ("zone", "crossing"),
        ("zone", "sigma_low_interval"),
        ("zone",),
        ("data", "n_train"),
        ("data", "name"),
        ("curves", "sigma"),
        ("curves", "coverage", "estimate"),
        ("thresholds", "disjoint_below"),
        ("thresholds",),
        ("classes",),
        ("space",),
        ("settings",),
    ):
        for value in (float("nan"), "x", -1, 10**400, [["a"]]):
            if place[-1] == "name" and value == "x":
                continue
            found.append(
                Case(
                    group,
                    f"{'.'.join(place)} = {_short(value)}",
                    "a sound file, changed",
                    zone_saying(put(*place, value)),
                    "danger-zone.json",
                )
            )
    found += [
        Case(group, f"a file {what}", "in place of a danger-zone file", zone_holding(content), "zone.json")
        for what, content in (
            ("a million lists deep", b"[" * 10**6),
            ("with a number of 5,000 digits", b"1" * 5000),
            ("of NaN", b'{"a": NaN}'),
            ("that is no text", b'{"\xe9":1}'),
            ("without bytes", b""),
            ("of 40 MB", b" " * 40_000_000),
        )
    ]
    return [
        *found,
        Case(
            group,
            "a name with a formula and colours",
            "a sound file, changed; drawn as it is",
            zone_saying(put("data", "name", "\x1b[2J$x^$")),
            answers=True,
        ),
        Case(
            group,
            "a pipe",
            "os.mkfifo",
            special(pipe_for("zone/danger-zone.json"), "plot-curves", "zone", "--out", "p.png"),
            "not a file",
        ),
    ]


def _samples() -> list[Case]:
    group = "Samples"
    arrays = (
        ("of another shape", np.zeros((4, 3), np.float32)),
        ("of integers", np.zeros((4, 1, 8, 8), int)),
        ("of NaN", np.full((4, 1, 8, 8), np.nan, np.float32)),
        ("of no rows", np.zeros((0, 1, 8, 8), np.float32)),
        ("that are one number", np.array(np.float32(1))),
        ("of complex numbers", np.zeros((4, 1, 8, 8), complex)),
        ("beyond 32 bits", np.full((8, 1, 8, 8), 1e300)),
        ("with named columns", np.zeros(4, [("a", "f4")])),
    )
    return [
        *(
            Case(group, f"samples {what}", "np.savez", samples_holding(npz(samples=values)), "bad.npz")
            for what, values in arrays
        ),
        Case(
            group,
            "samples that are all the same",
            "np.savez",
            samples_holding(npz(samples=np.zeros((8, 1, 8, 8), np.float32))),
            answers=True,
        ),
        Case(
            group,
            "a bomb of samples",
            "a header that announces 64 GB",
            samples_holding(zipped({"samples.npy": npy_header((25 * 10**7, 8, 8)) + bytes(1000)})),
            "announces",
        ),
        Case(group, "text for samples", "x", samples_holding(b"x"), "bad.npz"),
        Case(
            group,
            "a pipe for samples",
            "os.mkfifo",
            special(lambda folder: os.mkfifo(folder / "s.npz"), "quality", "s.npz", "--data", "digits"),
            "not a file",
        ),
        Case(group, "about: 100,000 lists deep", "JSON in the file", said_about("[" * 10**5), "not JSON"),
        Case(group, "about: NaN", "JSON in the file", said_about('{"x": NaN}'), "not JSON"),
        Case(group, "about: data = [1]", "passed over with --data", said_about({"data": [1]}), answers=True),
        Case(
            group,
            "about: data = [1], relied on",
            "JSON in the file",
            said_about({"data": [1]}, "quality", "s.npz"),
            "--data",
        ),
        Case(
            group,
            "about: data in /dev/zero",
            "JSON in the file",
            said_about(
                {
                    "data": {
                        "spec": "/dev/zero",
                        "sha256": "",
                        "heldout": None,
                        "n_train": None,
                        "n_heldout": None,
                        "shuffle": False,
                        "seed": 0,
                    }
                },
                "quality",
                "s.npz",
            ),
            "not a file",
        ),
        Case(group, "about: colours", "printed as JSON", said_about({"x": "\x1b[2J"}), answers=True),
    ]


def _options() -> list[Case]:
    group, found = "Options", []
    wrong = {
        "danger-zone d.npz": (
            "--sigmas=0",
            "--sigmas=1",
            "--sigmas=99999999999999",
            "--sigmas=nan",
            "--sigmas=1e400",
            "--sigmas=",
            "--posterior-draws=0",
            "--posterior-draws=1000000000000000",
            "--threshold=nan",
            "--threshold=2",
            "--resolution=nan",
            "--resolution=inf",
            "--shell-t=nan",
            "--shell-t=inf",
            "--tolerance=nan",
            "--space=pca:0",
            "--space=pca:999999999",
            "--memory=0",
            "--memory=1B",
            "--queries=0",
            "--n-train=0",
            "--n-train=-1",
            "--n-train=1e3",
            "--n-heldout=0",
            "--seed=-1",
            "--device=cuda:99",
            "--device=meta",
            "--device=",
            "--heldout=",
            "--out=d.npz",
            "--out=" + "x" * 300,
        ),
        "train d.npz --network mlp --iterations 2 --out r": (
            "--gap=nan:1",
            "--gap=2:1",
            "--gap=1:1",
            "--gap=-1:1",
            "--gap=5t:1t",
            "--gap=1t:99999t",
            "--gap=",
            "--gap=/dev/zero",
            "--ci=nan:5",
            "--ci=5:1",
            "--batch=0",
            "--batch=1000000000000",
            "--iterations=0",
            "--learning-rate=nan",
            "--learning-rate=inf",
            "--decay=nan",
            "--dropout=nan",
            "--dropout=1",
            "--dummy-class=-5",
            "--dummy-class=1000000000000",
            "--accumulate=1000000000",
            "--stop-at-memorization=nan",
            "--init=/dev/zero",
            "--init=d.npz",
        ),
        "generate run --out o.npz": (
            "--seeds=0-99999999999",
            "--seeds=-1",
            "--seeds=1,1",
            "--steps=1",
            "--steps=1000000000000",
            "--batch=0",
            "--weights=../../x",
            "--weights=-1",
            "--label=1",
            "--out=x.npy",
        ),
        "bounds d.npz": (
            "--q=nan",
            "--delta=nan",
            "--sizes=0",
            "--sizes=-5",
            "--sizes=99999999",
            "--points=0",
            "--model=/dev/zero",
            "--model=d.npz",
        ),
        "risk d.npz": ("--top=0", "--tolerance=nan", "--samples=/dev/zero", "--samples=."),
        "memorization run": ("--n-samples=1000000000000", "--sigmas=0", "--sigmas=1e300", "--tolerance=nan"),
    }
    for command, options in wrong.items():
        for option in options:
            shown = option if len(option) < 60 else option[:20] + "..."
            found.append(
                Case(group, f"geomem {command.split()[0]} {shown}", "sound data", on(command, "d.npz", option))
            )
    return found


# --- the table ----------------------------------------------------------------------------------------------

TABLE = Path(__file__).parents[1] / "docs" / "hostile-input.md"
HEAD = """# Hostile and broken input

Written by `python tests/hostile_inputs.py`, which tries every row; `tests/test_hostile.py` tries the same rows and that
this file is up to date. Each command runs in a process of its own that may map 1 GiB more than Python and its packages
and that is ended after 30 seconds. *Answered* is exit status 0 with a right answer; everything else is exit status 2
with the line shown and nothing left behind. No row gives a traceback, a warning, or a character that a terminal would
obey; no pickle is run. What other libraries say is cut to `(...)`, long lines to `...`.
"""


def shown(case: Case, outcome: Outcome) -> str:
    """The row of the table."""
    result = "answered" if outcome.status == 0 else f"`{_steady(outcome.line)}`"
    return f"{case.row} {result.replace('|', chr(92) + '|')} |"


def _steady(line: str) -> str:
    """The error line without what depends on the versions of other libraries."""
    line = line.removeprefix("geomem: ").replace("`", "'")
    said = r"((?:cannot be read as|cannot build|is not a whole|is not JSON|cannot be used here|is damaged)[^(;]*)\(.*\)"
    line = re.sub(said, r"\1(...)", line)
    return line if len(line) <= 160 else line[:160] + "..."


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


def table() -> str:
    """The whole file."""
    lines, group = [HEAD], ""
    for case in cases():
        if case.group != group:
            group = case.group
            lines.append(f"\n## {group}\n\n| what | how it is made | what happens |\n|---|---|---|")
        lines.append(shown(case, try_case(case)[0]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(table(), encoding="utf-8")
