"""Every kind of bad input that is tried, a row each: what it is, and how it is made with the command that is given it.

test_hostile.py tries them; ``python tests/hostile_inputs.py`` prints them as a page of the documentation.
"""

from __future__ import annotations

import atexit
import base64
import gzip
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
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
from PIL import Image
from scipy.io import savemat

GOOD = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
PIXELS = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
TRACE = "code-was-run"
FEW = ["--sigmas", "4"]
TRAIN = ["--network", "mlp", "--iterations", "2", "--batch", "4"]
GENERATE = ["generate", "run", "--seeds", "0-3", "--out", "out.npz"]
RESUME = ["train", "d.npz", *TRAIN, "--out", "run", "--resume"]
UNET = ["generate", "unet", "--seeds", "0", "--out", "out.npz"]
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


def npy_header(shape: Any, descr: Any = "<f4") -> bytes:
    """A .npy header that may say anything."""
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar(files: dict[str, bytes], packed: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{packed}") as archive:
        for name, content in files.items():
            (member := tarfile.TarInfo(name)).size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def png(height: int = 8, width: int = 8, kind: str = "L", form: str = "png", value: int = 7) -> bytes:
    buffer = io.BytesIO()
    Image.new(kind, (width, height), value).save(buffer, form)
    return buffer.getvalue()


def png_of(width: int, height: int, pixels: bytes = b"", bits: int = 8, colour: int = 0) -> bytes:
    """A PNG header of any size, with as many pixel bytes as given."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)), (b"IDAT", zlib.compress(pixels)),
        (b"IEND", b"")))


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def safetensors(header: dict[str, Any], content: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def sparse(path: Path, start: bytes, size: int) -> None:
    with open(path, "wb") as file:
        file.write(start)
        file.truncate(size)


def special(make: Callable[[Path], Any], *arguments: str) -> Make:
    """``make`` is given the folder; the arguments follow, by default the danger zone of ``d``."""

    def both(folder: Path) -> list[Any]:
        make(folder)
        return list(arguments) or ["danger-zone", "d", *FEW]

    return both


def writes(files: str | dict[str, Any], content: bytes | Callable[[], bytes] = b"", *arguments: str) -> Make:
    """Writes one file or several; by default the arguments look for the danger zone in it."""
    named = files if isinstance(files, dict) else {files: content}
    first = next(iter(named))

    def make(folder: Path) -> None:
        for name, what in named.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(what() if callable(what) else what)

    return special(make, *([part.replace("FILE", first) for part in arguments]
                           or ["danger-zone", first.split("/")[0], *FEW]))


def images(count: int, content: bytes | Callable[[], bytes], ending: str = "png") -> Make:
    """A folder of images that are all the same."""
    return writes({f"d/{k:03}.{ending}": content for k in range(count)})


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
    for arguments in (["train", "d.npz", *TRAIN, "--out", "run"], ["danger-zone", "d.npz", *FEW, "--out", "zone"],
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


def changed(file: str, change: Any, *arguments: str) -> Make:
    """The sound things of the folder that ``file`` lies in, with this file replaced by other content, its JSON given
    other entries, or changed by a function.
    """

    def make(folder: Path) -> None:
        sound(folder, file.split("/")[0])
        path = folder / file
        if isinstance(change, bytes):
            path.write_bytes(change)
            return
        document = json.loads(path.read_text())
        document.update(change) if isinstance(change, dict) else change(document)
        path.write_text(json.dumps(document))

    return special(make, *arguments)


def samples(content: bytes) -> Make:
    return special(lambda folder: (sound(folder), (folder / "bad.npz").write_bytes(content)), "memorization", "bad.npz",
                   "--data", "d.npz")


def said_about(value: Any, *arguments: str) -> Make:
    """Sound samples that say something else about themselves."""
    content = npz(samples=PIXELS[:8].transpose(0, 3, 1, 2) / np.float32(127.5) - 1,
                  about=np.asarray(value if isinstance(value, str) else json.dumps(value)))
    return special(lambda folder: (sound(folder), (folder / "s.npz").write_bytes(content)), "quality", "s.npz",
                   *arguments)


# --- files of harmful forms ---------------------------------------------------------------------------------


def gif(frames: int) -> bytes:
    """An animation that shows one frame again and again."""
    whole = png(kind="P", form="gif")
    start = whole.index(b"\x2c")
    return whole[:-1] + whole[start:-1] * frames + whole[-1:]


def tiff_without_end() -> bytes:
    """A TIFF of 8 x 8 whose next page is its first."""
    entries = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
               (277, 3, 1, 1), (279, 4, 1, 64)]
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
            + b"".join(struct.pack("<HHII", *entry) for entry in entries) + struct.pack("<I", 8) + bytes(64))


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


def folder_with(name: str, target: str) -> Make:
    """A folder with a sound image and a link."""

    def make(folder: Path) -> None:
        (folder / "d").mkdir()
        (folder / "d" / "a.png").write_bytes(png())
        (folder / "d" / name).symlink_to(target)

    return special(make)


def pickled_unet(folder: Path) -> None:
    sound(folder, "unet")
    (folder / "unet" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "unet" / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Payload()))


def pipe(name: str, *arguments: str) -> Make:
    def make(folder: Path) -> None:
        sound(folder, "run", "zone")
        (folder / name).unlink(missing_ok=True)
        (folder / name).parent.mkdir(exist_ok=True)
        os.mkfifo(folder / name)

    return special(make, *(arguments or ("danger-zone", name.split("/")[0])))


def unreadable(folder: Path) -> None:
    (folder / "d.npy").write_bytes(npy(GOOD))
    (folder / "d.npy").chmod(0)


def flowers(change: Callable[[bytes], bytes]) -> Make:
    """Flowers-102 whose list of images is changed byte by byte."""
    buffer = io.BytesIO()
    savemat(buffer, {"trnid": np.zeros(2000), "valid": [2], "tstid": [3]})
    return writes({"d/setid.mat": change(buffer.getvalue()), "d/jpg/a.jpg": b""})


# --- the cases ----------------------------------------------------------------------------------------------


@cache
def cases() -> list[Case]:
    """All of them, group by group."""
    groups = {"Code": _code(), "NumPy files and archives": _arrays(), "Images": _images(), "Parquet files": _tables(),
              "MATLAB files and CIFAR's pickles": _official(), "Text and recipes": _text(),
              "Folders, links, pipes, devices": _special(), "Names": _names(), "Numbers": _numbers(),
              "Checkpoints, run directories, diffusers folders": _models(), "Danger-zone files": _zones(),
              "Samples": _samples(), "Options": _options()}
    return [replace(case, group=group) for group, found in groups.items() for case in found]


def _code() -> list[Case]:
    pickled, objects = pickle.dumps(Payload()), np.array([Payload()] * 4, dtype=object)
    start = ["train", "digits", *TRAIN, "--init", "FILE", "--out", "r"]
    return [
        Case("objects in a .npy", writes("d.npy", lambda: npy(objects)), "Python objects"),
        Case("objects in a .npz", writes("d.npz", lambda: npz(train=objects)), "Python objects"),
        Case("a pickle of code as a CIFAR batch", writes("d/data_batch_1", pickle.dumps(Payload(), 2)), "asks for"),
        Case("a pickle called .pkl, as a model", writes("d.pkl", pickled, "generate", "FILE", "--out", "o.npz"),
             "pickled"),
        Case("a pickle called .bin, as samples", writes("d.bin", pickled, "memorization", "FILE", "--data", "digits"),
             "pickled"),
        Case("a pickle called .safetensors", writes("d.safetensors", pickled, *start), "safetensors"),
        Case("a checkpoint as torch.save writes it", writes("d.pt", zipped({"archive/data.pkl": pickled}), *start),
             "pickled"),
        Case("a diffusers folder with pickled weights", special(pickled_unet, *UNET), "pickled"),
    ]


def _arrays() -> list[Case]:
    long_header = b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1)
    return [
        Case("a header that announces 4 TB", writes("d.npy", npy_header((10**6, 10**6)) + bytes(320)), "d.npy"),
        Case("a header whose lengths overflow", writes("d.npz", zipped(
            {"train.npy": npy_header((2**32, 2**32)) + bytes(320)})), "d.npz"),
        Case("a header of 4 GiB", special(lambda folder: sparse(folder / "d.npy", long_header, 5 << 30), "danger-zone",
                                          "d.npy"), "d.npy"),
        Case("a header of 9,000 parentheses", writes("d.npy", b"\x93NUMPY\1\0" + struct.pack("<H", 9000)
                                                     + b"(" * 9000), "d.npy"),
        Case("bytes after the array", writes("d.npy", npy(GOOD) + b"x" * 10), "announces"),
        Case("big-endian doubles in Fortran order", writes("d.npy", npy(np.asfortranarray(GOOD.astype(">f8")))),
             answers=True),
        Case("a .npz bomb: 100 MB of zeros, a header that announces 8 GB",
             writes("d.npz", lambda: zipped({"train.npy": npy_header((2 * 10**8, 10)) + bytes(10**8)})), "announces"),
        Case("a .npz whose directory says 4 GiB", writes("d.npz", zip_saying(npz(train=GOOD), 2**32 - 2)), "bomb"),
        Case("images called ../../../tmp/evil/0.png", writes(
            "d.zip", zipped({f"../../../tmp/evil/{k}.png": png() for k in range(6)})), answers=True),
        Case("the same in a .tar.gz", writes(
            "d.tgz", tar({f"../../../tmp/evil/{k}.png": png() for k in range(6)}, "gz")), answers=True),
        Case("a .tar.gz of a header that says 8 GiB", writes("d.tgz", lambda: gzip.compress(
            tar({"a.png": png()}).replace(b"%011o" % len(png()), b"77777777777", 1))), "d.tgz"),
        Case("a zipped image of 300 MB of zeros", writes("d.zip", lambda: zipped({"a.png": bytes(300 * 10**6)})),
             "too large"),
        Case("an encrypted zip", writes("d.zip", zipped({"a.png": png()}).replace(b"\x14\0\0\0\x08",
                                                                                b"\x14\0\1\0\x08")), "d.zip"),
    ]


def _images() -> list[Case]:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%EOF\n"
    text = png()[:33] + png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(10**8))) + png()[33:]
    return [
        Case("a PNG of 30,000 x 30,000", images(3, png_of(30_000, 30_000)), "exceeds limit"),
        Case("a PNG of 9,000 x 9,000 without pixels", images(3, png_of(9000, 9000, bytes(1000))), "000.png"),
        Case("60 small PNGs that decode to 5 GB", images(60, cache(lambda: png(9000, 9000))), "bomb"),
        Case("a text chunk that unpacks to 100 MB", images(3, text), "000.png"),
        Case("a GIF of 100,000 frames, of which the first is taken", images(6, gif(10**5), "gif"), answers=True),
        Case("a TIFF whose next page is its first", images(6, tiff_without_end(), "tif"), answers=True),
        Case("PostScript called .png, for which Pillow would start Ghostscript", images(3, postscript),
             "cannot identify"),
        Case("zipped images in folders with names of 60,000 letters",
             writes("d.zip", zipped({f"{name * 60_000}/{k}.png": png() for name in "ab" for k in range(3)})), "255"),
        Case("a CMYK JPEG, taken as RGB", images(6, png(kind="CMYK", form="jpeg"), "jpg"), answers=True),
    ]


def _tables() -> list[Case]:
    """Written byte by byte after github.com/apache/parquet-format, whose headers and footer may say anything."""
    return [Case(what, writes("d.parquet", base64.b85decode(text)), "d.parquet.*" + says) for what, says, text in (
        ("a page that says 2 GiB", "memory",
         "P(e~L6#y0f|Ns9F6+SE#C=~z|1{DSX03VA80000000aYLU>F6XAut*O!#xB5fENn}=mP)%6#^Oj0!RjPV`yb<VHE-Z6$~W+7y)<y7AP6"
         "~0U7)OCI}oA3>ozS02%lJ0eBSz7AO{I7HB32000(f7AOD!KmY&$P(e~L"),
        ("a row of a thousand million floats, as run lengths", "memory",
         "P(e~L6$BLs6$nff0u=xN0001hKNSEKIu$xB6@aMLxd#;x6$TXs000O800062{-@Tt2LT2E004lf*0~1)0f4C1xd#9h0vY@SNCtCbXk~3"
         "-6#@V?0vG{!6#^9o05t>{1Z-(@bQJ;s6$m8&7zbr+Wo>0{bO06t8T<hm`~fBi92E!|^#K4G_yYlW1Z-(@bO&W@Wo>0{bQJ&=C>DkR7KQ"
         ";PDkca302YP;76JeOZ2$lOP(e~L"),
        ("10^12 rows", "announce",
         "P(e~L6#x|;6&@@V1{DAm1{DSX009610C)ia004La0001Z6#^Oj0!RjPV`yb<VHE-Z6$~W+7y)<y7J$I0%9=VE`~eyK0VW6>6$}~m0RS2"
         "J0Reaw02T%oKo&qI2mk;UKo$l707U=*08l|vF#"),
        ("statistics over which pyarrow ends its process", "ended",
         "P(e~L6#x|;6&@@V1{DAm1{DSX009610C)ia004La0001Z6#^Oj0!RjPV`yb<VHE-Z6$~W+7y)<y76uvo0U7)OCI}oA3>ozS02%lJ0eBS"
         "v76ukT7C<Hld@1$?1_lNO1{wAR1_lNO1^@s67C;sT002?|002-yQZW"))]


def _official() -> list[Case]:
    batch = python2_batch(np.zeros((2, 3, 32, 32), np.uint8), [0, 1])
    megabyte = b"X" + struct.pack("<I", 10**6) + b"a" * 10**6
    return [
        Case("a MATLAB variable that says 4 GiB", flowers(lambda mat: mat[:132] + b"\xff" * 4 + mat[136:]),
             "setid.mat"),
        Case("a pickle whose memo has 2^32 places",
             writes("d/data_batch_1", batch[:3] + b"r" + b"\xff" * 4 + batch[3:]), "data_batch_1"),
        Case("a pickle that makes 10 GB of one text", writes(
            "d/data_batch_1", b"\x80\x02c_codecs\nencode\nq\x00" + megabyte + b"q\x01U\x06latin1q\x02]("
            + b"h\x00h\x01h\x02\x86R" * 10_000 + b"e."), "memory"),
    ]


def _text() -> list[Case]:
    recipe = '[source]\nkind = "file"\npath = "d.npy"\n'
    return [
        Case("UTF-16", writes("d.txt", "1 2 3\n2 3 4\n".encode("utf-16")), "UTF-8"),
        Case("colours and a window title", writes("d.txt", b"1 2 \x1b[2J\x1b]0;x\x07\n"), "row 0"),
        *(Case(f"a line of 20 GiB (.{name})", special(
            lambda folder, name=name, start=start: sparse(folder / f"d.{name}", start, 20 << 30), "danger-zone",
            f"d.{name}"), "a line") for name, start in (("txt", b"1 2"), ("arff", b"@relation x\n"))),
        *(Case(f"a recipe {what}", writes({"r.toml": text.encode(), "d.npy": npy(GOOD)}), says)
          for what, text, says in (
            ("5,000 tables deep", "x = " + "[" * 5000, "r.toml"),
            ("with a shape of 10^30", recipe + f"[points]\nshape = [{10**18}, {10**12}]\n", "r.toml"),
            ("that reads itself", '[source]\nkind = "file"\npath = "r.toml"\n', "r.toml"),
            ("that reads a device", '[source]\nkind = "file"\npath = "/dev/zero"\n', "not a file"))),
    ]


def _special() -> list[Case]:
    return [
        *(Case(f"/dev/{device} as {name}", special(
            lambda folder, name=name, device=device: (folder / name).symlink_to(f"/dev/{device}"), "danger-zone", name),
            "not a file") for name, device in (("d.npz", "zero"), ("d.toml", "urandom"))),
        *(Case(f"a pipe called {name}", pipe(name), "not a file") for name in ("d/b.npy", "d/b.png", "d/a.parquet")),
        Case("a pipe for weights", pipe("run/model.safetensors", *GENERATE, "--weights", "last"), "not a file"),
        Case("a pipe for a danger-zone file", pipe("zone/danger-zone.json", "plot-curves", "zone", "--out", "p.png"),
             "not a file"),
        Case("a pipe for samples", pipe("p.npz", "quality", "p.npz", "--data", "digits"), "not a file"),
        Case("a device among images", folder_with("b.png", "/dev/zero"), "not a file"),
        Case("a link to nothing among images", folder_with("b.png", "gone"), "b.png"),
        Case("a link to the folder itself", folder_with("e", "."), "link"),
        Case("two links in each of thirty folders", special(branching_links), "link"),
        Case("a file that may not be read", special(unreadable, "danger-zone", "d.npy"), "permission", as_nobody=True),
    ]


def _names() -> list[Case]:
    wrong = npy(GOOD * np.float32(np.nan))
    return [
        *(Case(f"{what} in the name of sound data", writes(
            name, npy(GOOD), "danger-zone", "./FILE", *FEW, "--out", "z"), "sigma", answers=True) for what, name in (
                ("half a formula", "$\\frac{x.npy"), ("bytes that are no text", "a\udcffb.npy"))),
        *(Case(f"{what} in the name of wrong data", writes(name, wrong, "danger-zone", "./FILE"), "NaN")
          for what, name in (("a line break", "a\nb.npy"), ("letters read backwards", "\u202egpj.npy"),
                             ("8-bit control characters", "\x9b31m.npy"))),
        *(Case(what, special(lambda folder: None, *arguments), says) for what, arguments, says in (
            ("a name of 5,000 letters", ("danger-zone", "x" * 5000), "no such"),
            ("an option that clears the screen", ("danger-zone", "digits", "--\x1b[2J"), "No such option"),
            ("a command that clears the screen", ("\x1b[2Jx\ny",), "No such command"))),
    ]


def _numbers() -> list[Case]:
    commands = {"danger-zone": ["danger-zone", "FILE", *FEW],
                "danger-zone in 64MiB": ["danger-zone", "FILE", *FEW, "--memory", "64MiB"],
                "bounds": ["bounds", "FILE", *FEW], "risk": ["risk", "FILE"],
                "train": ["train", "FILE", *TRAIN, "--out", "r"]}
    ones = np.ones((20, 4), np.float32)
    return [Case(f"{what}, {command}", writes("d.npy", lambda values=values: npy(values()), *commands[command]), says,
                 says == "") for what, command, values, says in (
        ("values near the largest float", "danger-zone", lambda: np.sign(GOOD) * np.float32(3e38), "multiply|rescale"),
        ("values of 1e-30", "train", lambda: GOOD * np.float32(1e-30), "multiply|rescale"),
        ("constant values", "danger-zone", lambda: ones, ""), ("constant values", "risk", lambda: ones, "distinct"),
        ("three points", "train", lambda: GOOD[:3], ""),
        ("one point", "bounds", lambda: GOOD[:1], "at least 2"),
        ("a million values per point", "danger-zone in 64MiB",
         lambda: np.zeros((6, 10**6), "f4") + np.eye(6, 10**6, dtype="f4"), "memory is"))]


def _models() -> list[Case]:
    def tensors(**places: tuple[list[int], int, int]) -> dict[str, Any]:
        return {name: {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
                for name, (shape, start, end) in places.items()}

    overlap = safetensors(tensors(a=([4], 0, 16), b=([4], 8, 24)), bytes(24))
    weights, config = "unet/unet/diffusion_pytorch_model.safetensors", "unet/unet/config.json"
    last = [*GENERATE, "--weights", "last"]
    return [Case(what, changed(file, change, *arguments), says) for what, file, change, arguments, says in (
        ("safetensors with a tensor of 4 TB", "run/model.safetensors",
         safetensors(tensors(a=([10**6, 10**6], 0, 4 * 10**12)), bytes(64)), last, "safetensors"),
        ("safetensors with a header of 2^62 bytes", "run/state.safetensors", struct.pack("<Q", 2**62) + b"{}", RESUME,
         "safetensors"),
        ("safetensors with tensors that overlap", weights, overlap, UNET, "safetensors"),
        ("safetensors with a header 100,000 lists deep", weights, struct.pack("<Q", 10**5) + b"[" * 10**5, UNET,
         "safetensors"),
        ("a config.json 100,000 lists deep", "run/config.json", b"[" * 10**5, last, "config.json"),
        ("a levels.json with a number of 5,000 digits", "run/levels.json", b'{"a":' + b"1" * 5000 + b"}", GENERATE,
         "levels.json"),
        ("a stats.jsonl with NaN", "run/stats.jsonl", b'{"step":NaN}\n', RESUME, "stats.jsonl"),
        *((f"a config.json with {_short(change)}", "run/config.json", change, GENERATE, "run") for change in (
            {"shape": [1, 10**4, 10**4]}, {"network": "../x"}, {"sigma_data": 1e300}, {"classes": 10**6 - 1})),
        *((f"a levels.json with {_short(change)}", "run/levels.json", change, GENERATE, "levels.json")
          for change in ({"edges": ["a"]}, {"steps": ["../x"]})),
        *((f"a unet with {_short(change)}", config, change, UNET, "unet") for change in (
            {"_class_name": "os.system"}, {"auto_map": {"AutoModel": "x.py"}}, {"block_out_channels": [2048, 2048]})),
        *((f"a scheduler with {_short(change)}", "unet/scheduler/scheduler_config.json", change, UNET, "")
          for change in ({"num_train_timesteps": 10**12}, {"beta_start": float("nan")})))]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 40 else f"{text[:16]}... ({len(text):,} characters)"


def _zones() -> list[Case]:
    file, plot = "zone/danger-zone.json", ["plot-curves", "zone", "--out", "p.png"]
    zone = {"sigma_low": 0.3, "sigma_high": 1.5, "crossing": 0.6, "crossing_low": 0.5, "crossing_high": 0.7,
            "threshold": 0.8}

    def put(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
        def change(document: dict[str, Any]) -> None:
            document["zone"] = zone.copy()
            for part in path[:-1]:
                document = document[part]
            document[path[-1]] = value

        return change

    wrong: list[tuple[tuple[str, ...], Any]] = [
        (("zone", "sigma_low"), float("nan")), (("zone",), [["a"]]), (("data", "n_train"), -1),
        (("curves", "sigma"), "x"), (("curves", "coverage", "estimate"), 10**400)]
    return [
        *(Case(f"{'.'.join(path)} = {_short(value)}", changed(file, put(*path, value=value), *plot), "danger-zone.json")
          for path, value in wrong),
        *(Case(f"a danger-zone file {what}", changed(file, content, "train", "d.npz", *TRAIN, "--gap", "./zone",
                                                     "--out", "new"), "danger-zone.json")
          for what, content in (("a million lists deep", b"[" * 10**6), ("of 40 MB", b" " * 40_000_000))),
        Case("a name with a formula and colours, drawn as it is",
             changed(file, put("data", "name", value="\x1b[2J$x^$"), *plot), answers=True),
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
        Case("about: 100,000 lists deep", said_about("[" * 10**5, "--data", "d.npz"), "not JSON"),
        Case("about: data = [1], relied on", said_about({"data": [1]}), "--data"),
        Case("about: data in /dev/zero", said_about(device), "not a file"),
        Case("about: colours, printed as JSON", said_about({"x": "\x1b[2J"}, "--data", "d.npz"), answers=True),
    ]


def _options() -> list[Case]:
    train = "train d.npz --network mlp --iterations 2 --out r"
    return [Case(f"geomem {command.split()[0]} {option}", special(lambda folder: sound(folder, "run"), *command.split(),
                                                                  option)) for command, options in (
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
