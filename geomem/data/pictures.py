"""Pictures: images of a folder, archive or table that are not decoded yet.

What is cut away is never read. Decoded images that take much memory go to a temporary file.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from geomem.data.points import Names, Points, as_points
from geomem.data.unpacking import refuse_bomb, scratch_array
from geomem.errors import as_input_error, counted, file_error, one_line

# What lies in a file decides, not its name, and for other forms Pillow starts other programs (EPS: Ghostscript).
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
MAX_SIZE = 4096
MAX_ENCODED_BYTES = 1 << 28  # of one image; Pillow refuses to decode more pixels than would fit


@dataclass(frozen=True, eq=False)
class Pictures:
    """Encoded images of one place.

    ``read`` gives the contents at ascending positions; ``size`` what the images at some positions take as they
    lie there, in bytes; ``name`` is how a message names one. ``chosen`` are the positions that
    belong to this part, ``labels`` their labels, integers or class names, or None.
    """

    where: str
    read: Callable[[np.ndarray], Generator[bytes, None, None]]
    size: Callable[[np.ndarray], int]
    name: Callable[[int], str]
    chosen: np.ndarray
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.chosen)

    def take(self, index: slice | np.ndarray) -> Pictures:
        """The pictures at these places of this part, with their labels."""
        return replace(self, chosen=self.chosen[index], labels=None if self.labels is None else self.labels[index])


@dataclass(frozen=True)
class Form:
    """How images are wanted: ``grey``, and ``size``: scaled to so many pixels a side, with ``crop`` the square in the
    middle of each.
    """

    grey: bool = False
    size: int | None = None
    crop: bool = True


def decoded(parts: Sequence[Pictures], form: Form | None = None) -> tuple[list[Points], list[str]]:
    """The points of parts of one place, and what a person should be told about them.

    Grey images beside colour images become RGB, in all parts. Raises InputError for an image that cannot be
    decoded or, without ``form.size``, has another size than the first.
    """
    positions = np.concatenate([part.chosen for part in parts])
    if not len(positions):
        raise file_error(parts[0].where, "has no images to read; at least one is needed")
    order = np.argsort(positions, kind="stable")
    images, notes = _decode(parts[0], positions[order], form or Form())
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    places = np.split(back, np.cumsum([len(part) for part in parts])[:-1])
    whole = as_points(images, parts[0].where)
    return [replace(whole.take(place), labels=part.labels, names=Names(part.name, part.chosen))
            for place, part in zip(places, parts, strict=True)], notes


def _decode(place: Pictures, positions: np.ndarray, form: Form) -> tuple[np.ndarray, list[str]]:
    """uint8 ``(N, H, W)`` when all images are grey, else ``(N, H, W, 3)``."""
    from tqdm.auto import tqdm

    packed = place.size(positions)
    images: np.ndarray | None = None
    first, size = place.name(int(positions[0])), (0, 0)
    n_grey = n_transparent = 0
    sizes: Counter[tuple[int, int]] = Counter()  # width and height as they lie there
    i = -1
    # Closed at once when an image is refused: with it the archive or the process it reads from.
    with closing(place.read(positions)) as contents, tqdm(
            contents, desc=f"reading {one_line(place.where)}", unit="image", total=len(positions), leave=False, delay=1,
            disable=None) as shown:
        for i, content in enumerate(shown):
            here = f"{place.where}: {place.name(int(positions[i]))}"
            image, transparent, original = _open(here, content, form)
            n_transparent += transparent
            sizes[original] += 1
            if images is None:
                size = image.shape[:2]
                refuse_bomb(place.where, packed, len(positions) * image.size)
                images = scratch_array(place.where, (len(positions), *image.shape))
            if image.shape[:2] != size:
                raise file_error(here, f"is {image.shape[1]} x {image.shape[0]}, but {first} is {size[1]} x {size[0]}; "
                                       "all images must have one size: --size N scales them, with --crop the "
                                       "square in the middle of each")
            if image.ndim == 3 and images.ndim == 3:  # the first colour image after grey ones
                grey, images = images, scratch_array(place.where, (*images.shape, 3))
                images[:i] = grey[:i, ..., None]
            n_grey += image.ndim == 2
            images[i] = image if image.ndim == images.ndim - 1 else image[..., None]
    if images is None or i + 1 != len(positions):
        raise file_error(place.where, f"gave {i + 1:,} of {len(positions):,} images; make it again")
    notes = _scaling(sizes, form)
    notes += [f"transparency of {counted(n_transparent, 'image')} dropped"] if n_transparent else []
    if 0 < n_grey < len(positions):
        notes.append(f"{counted(n_grey, 'grey image')} made RGB beside "
                     f"{counted(len(positions) - n_grey, 'colour image')}")
    return images, notes


def _scaling(sizes: Counter[tuple[int, int]], form: Form) -> list[str]:
    """What ``form`` did to images of these widths and heights."""
    n_scaled = sum(count for size, count in sizes.items() if size != (form.size, form.size))
    if form.size is None or not n_scaled:
        return []
    n_oblong, n_small = (sum(count for size, count in sizes.items() if is_so(*size)) for is_so in (
        lambda width, height: width != height, lambda width, height: min(width, height) < form.size))
    note = f"{n_scaled:,} of {sum(sizes.values()):,} images scaled to {form.size} x {form.size} (Lanczos)"
    if n_oblong:
        note += f"; {n_oblong:,} not square: " + ("only the middle of them" if form.crop else
                                                  "stretched; --crop takes the middle")
    return [note + (f"; {n_small:,} enlarged" if n_small else "")]


def _open(here: str, content: bytes, form: Form) -> tuple[np.ndarray, bool, tuple[int, int]]:
    """uint8 ``(H, W)`` of a grey image or ``(H, W, 3)`` of another, whether it had transparency, and width and height
    before it was scaled.
    """
    from PIL import Image, ImageOps

    if len(content) > MAX_ENCODED_BYTES:
        raise file_error(here, f"has {len(content):,} bytes, too many for one image; scale it down")
    with as_input_error(here, "an image", "repair or remove it"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged files, which are refused or read all the same
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image: Image.Image = Image.open(io.BytesIO(content), formats=_FORMATS)
        tiles = getattr(image, "tile", None)
        stored = str(tiles[0][3]) if tiles else ""  # of colour, Pillow keeps 8 of 16 bits without a word
        if image.mode.startswith(("I", "F")) or ";16" in stored:
            raise file_error(here, f"has more than 8 bits per value (mode {image.mode}); convert it to 8 bits")
        image = ImageOps.exif_transpose(image)
        transparent = "A" in image.getbands() or "transparency" in image.info
        if transparent:
            image = image.convert("RGBA" if image.mode == "P" else image.mode)
        image = image.convert("L" if form.grey or image.mode in ("1", "L", "LA") else "RGB")
        original = image.size
        if form.size is not None and original != (form.size, form.size):
            if form.crop:
                side = min(image.size)
                left, top = (image.width - side) // 2, (image.height - side) // 2
                image = image.crop((left, top, left + side, top + side))
            image = image.resize((form.size, form.size), Image.Resampling.LANCZOS)
        return np.asarray(image), transparent, original
