"""What a Parquet file takes unpacked, by its page headers, against files of which that is known by definition."""

import numpy as np
import parquet_files
import pytest

from geomem.data import load_data
from geomem.data.pages import _VALUE_BYTES, read_footer
from geomem.errors import InputError

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
ROWS = 300


def binary(seed, length=500):
    """Binary values that cannot be packed."""
    generator = np.random.default_rng(seed)
    return [generator.bytes(length) for _ in range(ROWS)]


def written(path, columns, required=True, **options):
    fields = [pa.field(name, pa.binary(), nullable=not required) for name in columns]
    parquet.write_table(pa.table(columns, pa.schema(fields)), path, **options)
    return path


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "gzip", "zstd"])
def test_plain_pages_hold_each_value_with_its_length(tmp_path, codec, version):
    """Of a required column: four bytes of length and the value; the other column counts for nothing."""
    path = written(tmp_path / "d.parquet", {"x": binary(0), "xx": binary(1, 700)}, compression=codec,
                   use_dictionary=False, data_page_version=version, row_group_size=70, data_page_size=10_000,
                   write_batch_size=10)
    found = read_footer(path).unpacked("x")
    assert found.total == ROWS * 504
    assert 10_000 <= found.largest <= 10_000 + 10 * 504


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_an_encoding_whose_values_outgrow_their_page_is_refused(tmp_path, version):
    path = written(tmp_path / "d.parquet", {"x": binary(0)}, use_dictionary=False, data_page_version=version,
                   column_encoding={"x": "DELTA_BYTE_ARRAY"})
    with pytest.raises(ValueError, match="DELTA_BYTE_ARRAY"):
        read_footer(path).unpacked("x")


def test_a_dictionary_counts_once(tmp_path):
    value = binary(0)[0]
    path = written(tmp_path / "d.parquet", {"x": [value] * ROWS}, use_dictionary=True, compression="none")
    assert read_footer(path).unpacked("x").total == 504 + ROWS * _VALUE_BYTES


def test_fields_of_a_column_belong_to_it(tmp_path):
    cells = [{"bytes": value, "path": "x"} for value in binary(0)]
    parquet.write_table(pa.table({"img": cells}), tmp_path / "d.parquet", use_dictionary=False)
    footer = read_footer(tmp_path / "d.parquet")
    assert footer.unpacked("img").total > footer.unpacked("img.bytes").total > ROWS * 504
    assert footer.unpacked("im").total == 0


@pytest.mark.parametrize("options", [{}, {"write_page_index": True}, {"store_schema": False}, {"version": "1.0"}])
def test_the_metadata_that_arrow_is_given_are_those_of_the_file(tmp_path, options):
    lists = [[1.5, 2.5]] * 6 + [None]
    parquet.write_table(pa.table({"x": lists, "label": list("abcabca")}), tmp_path / "d.parquet", row_group_size=3,
                        **options)
    given, own = read_footer(tmp_path / "d.parquet").metadata(), parquet.read_metadata(tmp_path / "d.parquet")
    assert (given.num_rows, given.num_row_groups, given.num_columns) == (7, 3, 2)
    assert given.schema == own.schema
    for group in range(3):
        for column in range(2):
            ours, theirs = given.row_group(group).column(column), own.row_group(group).column(column)
            for name in ("data_page_offset", "dictionary_page_offset", "total_compressed_size", "num_values",
                         "compression", "encodings", "path_in_schema", "physical_type"):
                assert getattr(ours, name) == getattr(theirs, name)
            assert ours.statistics is None


def test_a_large_page_that_is_hardly_packed_is_read(tmp_path, monkeypatch):
    """One of zeros is refused at the same size."""
    monkeypatch.setattr("geomem.data.pages._PAGE_BYTES", 1000)
    options = {"use_dictionary": False, "compression": "gzip"}
    assert read_footer(written(tmp_path / "a.parquet", {"x": binary(0)}, **options)).unpacked("x").largest == ROWS * 504
    zeros = written(tmp_path / "b.parquet", {"x": [bytes(500)] * ROWS}, **options)
    with pytest.raises(ValueError, match="unpacks to 151,200"):
        read_footer(zeros).unpacked("x")


def test_few_rows_at_a_time_where_pages_are_large(tmp_path, monkeypatch):
    """The same points, one row at a time."""
    values = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
    parquet.write_table(pa.table({"x": values.tolist()}), tmp_path / "d.parquet", row_group_size=7)
    monkeypatch.setattr("geomem.data.parquet._BATCH_BYTES", 1)
    data = load_data(tmp_path / "d.parquet", heldout=values)
    np.testing.assert_array_equal(data.train, values)


@pytest.mark.parametrize("field", [5, 7, 9])
def test_what_arrow_might_understand_otherwise_is_refused(tmp_path, field):
    """A number of 32 bits in place of 64 is passed over by Arrow."""
    content = parquet_files.page(parquet_files.plain([b"x"] * 20), 20)
    (tmp_path / "d.parquet").write_bytes(parquet_files.parquet(content, 20, chunk={field: 20}))
    with pytest.raises(ValueError, match="like no other"):
        read_footer(tmp_path / "d.parquet")


@pytest.mark.parametrize("number", [2, 2 + (1 << 16)])
def test_a_page_header_that_says_its_size_twice_is_refused(tmp_path, number):
    """The second time counts for Arrow, which keeps 16 bits of a field's number."""
    twice = parquet_files.thrift({1: 0, 2: 100, 3: 100})[:-1] + b"\x05" + parquet_files.varint(2 * number) + b"\x0a\0"
    (tmp_path / "d.parquet").write_bytes(parquet_files.parquet(twice, 20))
    with pytest.raises(ValueError, match="like no other"):
        read_footer(tmp_path / "d.parquet").unpacked("x")


def test_a_list_of_another_kind_is_refused(tmp_path):
    """Arrow would take encodings for numbers, and go on reading at another place."""
    content = parquet_files.page(parquet_files.plain([b"x"] * 20), 20)
    (tmp_path / "d.parquet").write_bytes(parquet_files.parquet(content, 20, chunk={2: [b"text"]}))
    with pytest.raises(ValueError, match="like no other"):
        read_footer(tmp_path / "d.parquet")


def test_class_names_that_are_too_long_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("geomem.data.parquet._BUFFER", 0)
    names = [f"{k:0>3000}" for k in range(20)]
    parquet.write_table(pa.table({"img": [b"x" * 99] * 20, "label": names}), tmp_path / "d.parquet")
    with pytest.raises(InputError, match="too long for class names"):
        load_data(tmp_path / "d.parquet")
