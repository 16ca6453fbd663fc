"""Tables of numbers and categories: rows as points whose distances are those of synthetic-data tools.

SDMetrics' distance to the closest record (DCR) is the mean over columns of |x - y| / range, at most 1, for numbers, and
of 1 where categories differ. Here rows become points of which the *squared Euclidean* distance is the sum over columns
of ((x - y) / range)^2 for numbers and of 1 where categories differ, since the noise of diffusion is Euclidean:

    a number            (x - middle) / range; of a column without range 0, or 1 for another number
    a missing number    the middle, and 1 in a value of its own where training rows lack some: 1 + v^2 from one at v
    a category          one-hot, 1 / sqrt(2), missing as one more; what training rows lack is at distance 1 from all

Nearest rows are the same as those of DCR where all columns are categories, and of one column of numbers. Range, middle
and categories are those of the training rows alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from geomem.data.child import in_child
from geomem.data.points import Names, Points, as_points
from geomem.data.unpacking import refuse_bomb
from geomem.errors import InputError, as_input_error, counted, file_error
from geomem.files import require_file

MAX_CATEGORIES = 1000  # of one column
MAX_BYTES = 1 << 32  # of the points
_DISTINCT = 20  # rows from which on texts that all differ are taken for names
_INDEX = ("", "Unnamed: 0", "__index_level_0__")  # what pandas calls the index that it saves
_ADVICE = "give columns of numbers or of texts, each with a name, in a file in the first line"
_MAX_LINE = 1 << 20


class Coded(NamedTuple):
    """A column of categories: ``codes`` (N,) are places in ``names``, -1 where the value is missing."""

    codes: np.ndarray
    names: tuple[str, ...]


Column: TypeAlias = "np.ndarray | Coded"


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of a table that are not encoded yet; ``columns``: numbers (N,) float64, NaN where missing, or ``Coded``;
    ``rows``: places in them of the rows that belong to this part.
    """

    where: str
    columns: dict[str, Column]
    rows: np.ndarray
    labels: None = None

    @classmethod
    def of(cls, frame: Any, where: str) -> Table:
        """Of a DataFrame, or whatever else Arrow takes for a table."""
        import pyarrow as pa

        with as_input_error(where, "a table", _ADVICE):
            is_pandas = hasattr(frame, "iloc")
            table = pa.Table.from_pandas(frame, preserve_index=False) if is_pandas else pa.table(frame)
            return cls.made_of(where, _columns(where, table))

    @classmethod
    def made_of(cls, where: str, columns: Iterator[tuple[str, Column]], packed: int | None = None) -> Table:
        """Of columns as they come, from a file of ``packed`` bytes, that must not hold far more."""
        kept, size = {}, 0
        for name, column in columns:
            values = column.codes if isinstance(column, Coded) else column
            size += values.nbytes
            if packed is not None:
                refuse_bomb(where, packed, size)
            kept[name] = column
        if not kept or not len(values):
            raise file_error(where, f"holds no {'rows' if kept else 'columns'}; {_ADVICE}")
        return cls(where, kept, np.arange(len(values)))

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: slice | np.ndarray) -> Table:
        """The rows at these places of this part."""
        return replace(self, rows=self.rows[index])


class Numbers(NamedTuple):
    """Of a column's training rows; ``missing``: whether some lack a number."""

    low: float
    high: float
    missing: bool


Categories: TypeAlias = tuple[str | None, ...]  # that training rows have; None where the value is missing


@dataclass(frozen=True)
class TableEncoder:
    """How rows become points (module docstring), column by column."""

    columns: dict[str, Numbers | Categories]

    @classmethod
    def of(cls, train: Any) -> TableEncoder:
        """Fitted on training rows. Raises InputError for a column that is empty, or of names in place of categories."""
        _require_table(train)
        if not len(train.rows):
            raise file_error(train.where, "has no training rows; at least 2 are needed")
        return cls({name: _fitted(f"{train.where}: column {name}", column, train.rows)
                    for name, column in train.columns.items()})

    @property
    def dim(self) -> int:
        """d, the number of values of a point."""
        return sum(1 + column.missing if isinstance(column, Numbers) else len(column)
                   for column in self.columns.values())

    @property
    def note(self) -> str:
        """What to say of it."""
        numbers = sum(isinstance(column, Numbers) for column in self.columns.values())
        return (f"table: {counted(numbers, 'column')} of numbers, in units of the range of the training rows, and "
                f"{len(self.columns) - numbers:,} of categories, one-hot; {counted(self.dim, 'value')} a row")

    def points(self, table: Any) -> Points:
        """The rows as points (N, d), named by their place in the table, from 0.

        Raises InputError for other columns than the training rows have, or other kinds of values.
        """
        _require_table(table)
        if other := sorted(set(table.columns) ^ set(self.columns)):
            raise file_error(table.where, f"column {other[0]} is in it or in the training table alone; give both the "
                                          "same columns")
        if 4 * len(table) * self.dim > MAX_BYTES:
            raise file_error(table.where, f"would take {len(table) * self.dim / 2**28:.1f} GiB as points; leave out "
                                          "columns of many categories, or take fewer rows")
        blocks = [_encoded(f"{table.where}: column {name}", table.columns[name], table.rows, fitted)
                  for name, fitted in self.columns.items()]
        return replace(as_points(np.concatenate(blocks, axis=1), table.where),
                       names=Names(lambda i: f"row {i}", table.rows))


def _require_table(part: Any) -> None:
    if not isinstance(part, Table):
        raise InputError("some points are rows of a table of numbers and categories, others are not; give all as such "
                         "tables")


def is_table(values: Any) -> bool:
    """Whether values are a DataFrame of pandas or polars, or a table of Arrow; none of these is imported."""
    return hasattr(values, "columns") and (hasattr(values, "iloc") or hasattr(values, "__arrow_c_stream__"))


def encoded(train: Any, **others: Any) -> tuple[Any, ...]:
    """``train`` and the others, DataFrames as arrays (N, d) by one encoder, and anything else as it is."""
    given = {"train": train, **others}
    if not any(map(is_table, given.values())):
        return tuple(given.values())
    tables = [Table.of(values, name) if is_table(values) else values for name, values in given.items()]
    encoder = TableEncoder.of(tables[0])
    return tuple(encoder.points(table).values for table in tables)


def read_csv(path: Path) -> Table:
    """A text file with the names of its columns in the first line, separated by commas, semicolons or tabs.

    Fields that are empty, or NA, NaN, null and the like, are missing.
    """
    require_file(path, _ADVICE)
    size = path.stat().st_size
    with as_input_error(path, "a table", _ADVICE):
        return Table.made_of(str(path), in_child(_csv_columns, path, file_bytes=size), size)


def _fitted(where: str, column: Column, rows: np.ndarray) -> Numbers | Categories:
    if isinstance(column, Coded):
        found = np.unique(column.codes[rows]).tolist()
        if len(found) == len(rows) > _DISTINCT:
            raise file_error(where, f"holds {len(found):,} texts that all differ and are no categories; leave it out")
        return tuple(sorted(column.names[code] for code in found if code >= 0)) + (None,) * (-1 in found)
    values = column[rows]
    there = values[~np.isnan(values)]
    if not len(there):
        raise file_error(where, "holds no number in any training row; leave it out")
    return Numbers(float(there.min()), float(there.max()), len(there) < len(values))


def _encoded(where: str, column: Column, rows: np.ndarray, fitted: Numbers | Categories) -> np.ndarray:
    """Its values of the points, (rows, values) float32."""
    if isinstance(fitted, Numbers) and isinstance(column, np.ndarray):
        values = column[rows]
        missing = np.isnan(values)
        if missing.any() and not fitted.missing:
            raise file_error(where, f"lacks {counted(int(missing.sum()), 'number')}, in the training table none is "
                                    "missing; fill them in or leave the rows out")
        width = fitted.high - fitted.low
        scaled = (values - (fitted.low + width / 2)) / width if width else np.where(values == fitted.low, 0.0, 1.0)
        parts = [np.where(missing, 0, scaled), missing][:1 + fitted.missing]
        return np.stack(parts, axis=1).astype(np.float32)
    if isinstance(column, Coded) and not isinstance(fitted, Numbers):
        k, names = len(fitted), (*column.names, None)  # the last one's code is -1
        # t (1, ..., 1) is at distance 1 from each e_i / sqrt(2): k t^2 - sqrt(2) t + 1/2 = 1.
        each = np.full((len(names), k), (math.sqrt(2) - math.sqrt(2 + 2 * k)) / (2 * k), dtype=np.float32)
        for place, name in enumerate(fitted):
            if name in names:
                each[names.index(name)] = np.eye(1, k, place) / math.sqrt(2)
        return each[column.codes[rows]]
    raise file_error(where, f"holds {'categories' if isinstance(column, Coded) else 'numbers'}, in the training table "
                            "it does not; give both the same columns")


# In the child where they come from files


def _csv_columns(path: Path) -> Iterator[tuple[str, Column]]:
    from pyarrow import csv

    with open(path, encoding="utf-8-sig") as file:
        first = file.readline(_MAX_LINE)
    table = csv.read_csv(path, csv.ReadOptions(use_threads=False),
                         csv.ParseOptions(delimiter=max(",;\t", key=first.count), newlines_in_values=True),
                         csv.ConvertOptions(strings_can_be_null=True))
    for name in table.column_names:
        if _is_number(name):
            raise ValueError(f"its first line holds the number {name}, no name")
    yield from _columns(path, table)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _columns(where: object, table: Any) -> Iterator[tuple[str, Column]]:
    if len(set(table.column_names)) < len(table.column_names):
        raise ValueError("two columns have one name")
    yield from ((name, as_column(f"{where}: column {name}", table[name])) for name in points_columns(table.schema))


def points_columns(schema: Any) -> list[str]:
    """All but an index that pandas saved."""
    return [name for name in schema.names if name not in _INDEX]


def as_column(where: str, values: Any) -> Column:
    """A column of an Arrow table. Raises InputError for dates, and for what is neither numbers nor categories."""
    import pyarrow as pa
    from pyarrow import types

    values = values.cast(values.type.value_type) if types.is_dictionary(values.type) else values
    kind = values.type
    if types.is_temporal(kind):
        raise file_error(where, "holds dates or times; turn them into numbers, such as days, or leave it out")
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        numbers = values.cast(pa.float64(), safe=False).to_numpy()
        if np.isinf(numbers).any():
            raise file_error(where, "holds infinite values; repair or remove them")
        return numbers
    if not (types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind)):
        raise file_error(where, f"holds values of type {kind}, neither numbers nor categories; leave it out")
    coded = values.cast(pa.large_string()).combine_chunks().dictionary_encode()
    if len(coded.dictionary) > MAX_CATEGORIES:
        raise file_error(where, f"holds {len(coded.dictionary):,} different texts, and at most {MAX_CATEGORIES:,} are "
                                "categories; leave it out")
    return Coded(coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64),
                 tuple(coded.dictionary.to_pylist()))
