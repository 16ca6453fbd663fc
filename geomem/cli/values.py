"""The forms that values of options have, beyond those of click."""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar

import click

MAX_SAMPLES = 10_000_000
MAX_LEVELS = 10_000


class Number(click.FloatRange):
    """A finite number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class Parsed(click.ParamType):
    """Text of a form that click has no type for; ``parse`` raises ValueError with what is wrong."""

    def parse(self, text: str) -> Any:
        raise NotImplementedError

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Interval(Parsed):
    """``LO:HI``, two numbers."""

    name = "LO:HI"

    def parse(self, text: str) -> tuple[float, float]:
        from geomem.noise.gaps import parse_range

        return parse_range(text)


class Seeds(Parsed):
    """``0-1023`` or ``0,3,8-11``: a list of distinct seeds."""

    name = "SEEDS"

    def parse(self, text: str) -> list[int]:
        seeds: list[int] = []
        for part in text.split(","):
            match = re.fullmatch(r"([0-9]{1,18})(?:-([0-9]{1,18}))?", part)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
            if last < first:
                raise ValueError(f"{text!r} is not a list of seeds such as 0-1023 or 0,3,8-11")
            if len(seeds) + last - first >= MAX_SAMPLES:
                raise ValueError(f"{text!r} asks for more than ten million samples")
            seeds.extend(range(first, last + 1))
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{text!r} names a seed twice")
        return seeds


class Sigmas(Parsed):
    """A number of levels, or the levels themselves with commas between."""

    name = "N|S1,S2,..."

    def parse(self, text: str) -> int | list[float]:
        try:
            levels = int(text) if text.isdigit() else [float(part) for part in text.split(",")]
        except ValueError:
            raise ValueError(f"{text!r} is neither a number of noise levels nor levels such as 0.02,0.05,0.1") from None
        if levels == 0:
            raise ValueError("no noise levels; give a number of them, 1 or more")
        if isinstance(levels, int) and levels > MAX_LEVELS:
            raise ValueError(f"{text!r}: at most {MAX_LEVELS:,} noise levels")
        return levels


class Bytes(Parsed):
    """``4GiB``, ``500MB`` or a number of bytes."""

    name = "SIZE"
    units: ClassVar = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}

    def parse(self, text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]+)?) *([A-Za-z]*)", text)
        if match is None or match[2].upper() not in self.units:
            raise ValueError(f"{text!r} is no amount of memory such as 4GiB or 500MB")
        return int(float(match[1]) * self.units[match[2].upper()])
