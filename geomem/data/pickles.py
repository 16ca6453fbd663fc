"""Reading the pickles of CIFAR-10 without unpickling them.

A pickle is a program. Here its opcodes are interpreted one by one on a stack of plain values; a name such as
``numpy.core.multiarray._reconstruct`` stays a word that is compared with the few words known, and is never looked
up. Known are the opcodes that Python 2 wrote into the official files and those that Python 3 writes for the same
values at protocols 2 and 3; every other one is refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_WORDS = {"_codecs encode", "numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct",
          "numpy ndarray", "numpy dtype"}
_MAX_OPCODES = 2_000_000  # an official batch has 40,000


@dataclass(frozen=True)
class _Word:
    """The name of a function or class in the pickle."""

    text: str


@dataclass
class _Type:
    """A NumPy dtype as it is being described."""

    code: str


@dataclass
class _Array:
    """A NumPy array as it is being described; complete when it has a shape."""

    shape: tuple[int, ...] | None = None
    kind: str = ""
    fortran: bool = False
    content: bytes = b""

    def values(self) -> np.ndarray:
        if self.shape is None or self.kind != "u1" or self.fortran:
            raise ValueError("an array is not uint8 in C order")
        array = np.frombuffer(self.content, dtype=np.uint8)
        return array.reshape(self.shape)


class _Mark:
    pass


@dataclass
class _Machine:
    """The stack and the memo; ``budget`` bounds the bytes that decoding text may make."""

    budget: int
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def pop(self) -> Any:
        if not self.stack or isinstance(self.stack[-1], _Mark):
            raise ValueError("it takes a value that is not there")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        for i in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[i], _Mark):
                values = self.stack[i + 1:]
                del self.stack[i:]
                return values
        raise ValueError("a mark is missing")

    def top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise ValueError(f"a {kind.__name__} is missing")
        return self.stack[-1]

    def recall(self, place: int) -> None:
        if place not in self.memo:
            raise ValueError("it recalls what was never kept")
        self.stack.append(self.memo[place])

    def keep(self, place: int) -> None:
        self.memo[place] = self.top(object)

    def set_items(self, values: list[Any]) -> None:
        target = self.top(dict)
        if len(values) % 2:
            raise ValueError("a key has no value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str | bytes | int):
                raise ValueError("a key is no text")
            target[key] = value

    def word(self, text: str) -> None:
        if text not in _WORDS:
            raise ValueError(f"it asks for {text.replace(' ', '.')}, which no CIFAR batch needs")
        self.stack.append(_Word(text))

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Word) or not isinstance(arguments, tuple):
            raise ValueError("it calls what is no function")
        self.stack.append(self._result(function.text, arguments))

    def _result(self, function: str, arguments: tuple[Any, ...]) -> Any:
        match function, arguments:
            case "_codecs encode", (str(text), "latin1" | b"latin1"):
                self.budget -= len(text)
                if self.budget < 0:
                    raise ValueError("it unpacks to more than it holds")
                return text.encode("latin1")
            case ("numpy.core.multiarray _reconstruct" | "numpy._core.multiarray _reconstruct",
                  (_Word(text="numpy ndarray"), *_)):
                return _Array()
            case "numpy dtype", (str() | bytes() as code, *_):
                return _Type(code.decode("latin1") if isinstance(code, bytes) else code)
        raise ValueError(f"it calls {function.replace(' ', '.')} in an unknown way")

    def build(self) -> None:
        state = self.pop()
        target = self.stack[-1] if self.stack else None
        if isinstance(target, _Type):
            return  # byte order and flags of one byte say nothing
        match target, state:
            case _Array(), (int(), tuple() as shape, _Type() as kind, bool() as fortran, str() | bytes() as content):
                if not all(type(n) is int and n >= 0 for n in shape):
                    raise ValueError("an array has an impossible shape")
                target.shape, target.kind, target.fortran = shape, kind.code, fortran
                target.content = content.encode("latin1") if isinstance(content, str) else content
                return
        raise ValueError("it describes an array in an unknown way")


_PLAIN = {"BININT", "BININT1", "BININT2", "SHORT_BINSTRING", "BINSTRING", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES"}
_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    **{name: lambda machine, value: machine.stack.append(value) for name in _PLAIN},
    "PROTO": lambda machine, version: None,
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "MARK": lambda machine, _: machine.stack.append(_Mark()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.stack.append((machine.pop(),)),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple([machine.pop(), machine.pop()][::-1])),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple([machine.pop(), machine.pop(), machine.pop()][::-1])),
    "APPEND": lambda machine, _: _append(machine, [machine.pop()]),
    "APPENDS": lambda machine, _: _append(machine, machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "BINPUT": _Machine.keep, "LONG_BINPUT": _Machine.keep,
    "BINGET": _Machine.recall, "LONG_BINGET": _Machine.recall,
    "GLOBAL": _Machine.word,
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}


def _append(machine: _Machine, values: list[Any]) -> None:
    machine.top(list).extend(values)


def read_plain_pickle(content: bytes) -> dict[str, Any]:
    """The dictionary in a pickle, its keys as text, its uint8 arrays as arrays.

    Values are integers, text, bytes, None, tuples, lists, dictionaries and arrays; memory is at most a few times
    ``len(content)``. Raises ValueError for anything else.
    """
    machine = _Machine(budget=len(content))
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name == "STOP":
            break
        if count > _MAX_OPCODES:
            raise ValueError("it holds more opcodes than any CIFAR batch")
        if opcode.name not in _STEPS:
            raise ValueError(f"it holds the opcode {opcode.name}, which no CIFAR batch needs")
        _STEPS[opcode.name](machine, argument)
    result = machine.pop()
    if machine.stack or not isinstance(result, dict):
        raise ValueError("it is no dictionary")
    plain = {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in result.items()}
    return {key: value.values() if isinstance(value, _Array) else value for key, value in plain.items()}
