"""A source: what a reader found, before it is split, cut and decoded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from geomem.data.pictures import Form, Pictures, decoded
from geomem.data.points import Points, in_memory_if_small
from geomem.data.table import Table, TableEncoder

Part: TypeAlias = Points | Pictures | Table
TRAIN_SPLITS = ("train", "training")
HELDOUT_SPLITS = ("test", "validation", "valid", "val")


def split_word(path: Path) -> str:
    """The name of the split that a file or folder is of, by the first word of its name; "" for none."""
    word = re.split(r"[^a-z]", path.name.lower(), maxsplit=1)[0]
    return word if word in TRAIN_SPLITS + HELDOUT_SPLITS else ""


@dataclass(frozen=True, eq=False)
class Source:
    """``parts``: a training part and, where there is one, a held-out part; and things to announce.

    classes: names of the labels 0, 1, ... where labels are numbers and the source says what they stand for.
    """

    name: str
    parts: Sequence[Part]
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None

    @property
    def train(self) -> Part:
        return self.parts[0]

    @property
    def heldout(self) -> Part | None:
        return self.parts[1] if len(self.parts) > 1 else None


def read_parts(parts: Sequence[Part], form: Form | None = None) -> tuple[list[Points], list[str]]:
    """The parts as points, in memory where they are small, and what a person should be told about them.

    Pictures of one reader are decoded together: all of them become grey, or all RGB. Rows of tables become points by
    what the first part has.
    """
    if any(isinstance(part, Table) for part in parts):
        encoder = TableEncoder.of(parts[0])
        return [encoder.points(part) for part in parts], [encoder.note]
    done: dict[int, Points] = {i: part for i, part in enumerate(parts) if isinstance(part, Points)}
    notes: list[str] = []
    for read in dict.fromkeys(part.read for part in parts if isinstance(part, Pictures)):
        there = {i: part for i, part in enumerate(parts) if isinstance(part, Pictures) and part.read is read}
        points, told = decoded(list(there.values()), form)
        done |= zip(there, points, strict=True)
        notes += told
    return [in_memory_if_small(done[i]) for i in range(len(parts))], notes
