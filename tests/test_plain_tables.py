"""Tables of numbers and categories: distances after SDMetrics' definition, files, DataFrames, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from commands import refused, status

import geomem
from geomem.data import Table, TableEncoder, load_data
from geomem.errors import InputError

pytestmark = pytest.mark.usefixtures("one_child")


def rows(n, seed):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({
        "age": rng.integers(18, 90, n), "income": rng.lognormal(10, 1, n), "job": rng.choice(["cook", "nurse"], n),
        "member": rng.random(n) < 0.3, "city": pd.Series(rng.choice(["Ulm", "Bonn", None], n)),
        "grade": pd.Categorical(rng.choice(["a", "b", "c"], n)),
        "weight": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n))})


def dcr(x, y, ranges, power=1):
    """Sum over columns after SDMetrics 0.2x (single_table/privacy/dcr_utils.py), but for its bound of 1 on numbers:
    |x - y| / range to the ``power`` of numbers, 1 where categories differ or one of both is missing. x, y: records.
    """
    total = 0.0
    for name, a in x.items():
        b = y[name]
        missing = [value is None or value != value for value in (a, b)]
        if any(missing):
            total += missing[0] != missing[1]
        elif name in ranges:
            total += (abs(float(a) - float(b)) / ranges[name]) ** power if ranges[name] else float(a != b)
        else:
            total += a != b
    return total


def ranges_of(frame):
    return {name: float(frame[name].max() - frame[name].min()) for name in frame
            if pd.api.types.is_numeric_dtype(frame[name]) and not pd.api.types.is_bool_dtype(frame[name])}


def arrays(train, *others):
    encoder = TableEncoder.of(Table.of(train, "train"))
    return [np.asarray(encoder.points(Table.of(frame, "others")).values, float) for frame in (train, *others)]


def test_squared_distances_are_those_of_the_definition():
    train, others = rows(40, 0).assign(same=3), rows(30, 1).assign(same=[3, 4] * 15)
    others.loc[[0, 3], "job"] = "pilot"  # which no training row is
    known, points = arrays(train, others)
    ranges = ranges_of(train)
    for i, x in enumerate(others.to_dict("records")):
        for j, y in enumerate(train.to_dict("records")):
            found, expected = np.square(points[i] - known[j]).sum(), dcr(x, y, ranges, 2)
            if pd.isna(x["weight"]) != pd.isna(y["weight"]):  # a missing number lies in the middle, and 1 beside it
                there = known[j] if pd.isna(x["weight"]) else points[i]
                expected += there[-3] ** 2
            assert found == pytest.approx(expected, abs=1e-5)


def test_distances_to_a_category_that_training_rows_lack_are_1():
    known, points = arrays(pd.DataFrame({"a": ["x", "y", "z"]}), pd.DataFrame({"a": ["w", None, "x"]}))
    distances = np.linalg.norm(points[:, None] - known[None], axis=2)
    np.testing.assert_allclose(distances, [[1, 1, 1], [1, 1, 1], [0, 1, 1]], atol=1e-6)


@pytest.mark.parametrize("kind", ["categories", "numbers"])
def test_leaning_is_the_dcr_share_where_the_definitions_coincide(kind):
    """Categories alone, where many samples are as near to both, and a single column of numbers. SDMetrics takes the
    range of either set and counts a tie as nearer to held-out rows; geomem takes that of the training rows, and half.
    """
    rng = np.random.default_rng(3)
    if kind == "numbers":  # of one range in both
        train, heldout = (pd.DataFrame({"x": [low, low + 1, *(low + rng.random(58))]}) for low in (0.0, 0.25))
        samples = pd.DataFrame({"x": rng.random(60)})
    else:
        train, heldout, samples = (pd.DataFrame({f"c{k}": rng.choice([*"abcdefg"], 60) for k in range(6)})
                                   for _ in range(3))
    references = [(part.to_dict("records"), ranges_of(part)) for part in (train, heldout)]
    near = np.array([[min(dcr(x, y, ranges) for y in records) for records, ranges in references]
                     for x in samples.to_dict("records")])
    ties, nearer = near[:, 0] == near[:, 1], near[:, 0] < near[:, 1]
    found = geomem.leaning(samples, train, heldout, tolerance=0.0)
    assert (found.m, found.leaked, ties.any()) == (60, 0, kind == "categories")
    np.testing.assert_array_equal(found.per_sample, nearer + ties / 2)
    assert found.share == pytest.approx(nearer.mean() + ties.mean() / 2)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """train, test and samples: the last are copies of training rows, in half of them."""
    folder = tmp_path_factory.mktemp("tables")
    train, test = rows(80, 1), rows(60, 2)
    samples = pd.concat([train[:30], rows(30, 3)], ignore_index=True)
    for name, frame in (("train", train), ("test", test), ("samples", samples)):
        frame.to_csv(folder / f"{name}.csv", index=False)
        frame.to_csv(folder / f"{name}.tsv", sep="\t")
        frame.to_parquet(folder / f"{name}.parquet")
    (folder / "both").mkdir()
    train[:50].to_parquet(folder / "both/train-0.parquet")
    train[50:].to_parquet(folder / "both/train-1.parquet")
    test.to_parquet(folder / "both/test.parquet")
    return folder


@pytest.mark.parametrize("form", ["csv", "tsv", "parquet", "folder"])
def test_files_are_read_as_the_frames_that_they_hold(files, form):
    expected = load_data(rows(80, 1), heldout=rows(60, 2))
    found = load_data(files / "both") if form == "folder" else load_data(files / f"train.{form}",
                                                                         heldout=files / f"test.{form}")
    assert expected.train.shape == (80, 14)
    assert np.array_equal(found.train, expected.train)
    assert np.array_equal(found.heldout, expected.heldout)
    assert found.notes == ("table: 3 columns of numbers, in units of the range of the training rows, and 4 of "
                           "categories, one-hot; 14 values a row",)
    assert found.files([7]) == ["row 7"]


def test_the_encoder_knows_training_rows_alone(files):
    data = load_data(files / "train.csv")
    at = [int(name.split()[1]) for name in map(data.train_names.__getitem__, range(len(data.train)))]
    frame = rows(80, 1)
    assert len(data.heldout) == 16
    known, _ = arrays(frame.iloc[at], frame)
    np.testing.assert_allclose(data.train, known, atol=1e-6)
    assert np.ptp(data.train[:, 0]) == pytest.approx(1)


def test_python_takes_frames(files):
    train, test, samples = rows(80, 1), rows(60, 2), pd.read_csv(files / "samples.csv")
    data = load_data(train, heldout=test)
    points = data.table.points(Table.of(samples, "samples")).values
    assert geomem.leaning(samples, train, test).share == geomem.leaning(points, data.train, data.heldout).share > 0.6
    assert geomem.memorization_rate(samples, train).rate == geomem.memorization_rate(points, data.train).rate
    assert geomem.audit(samples, train, test).verdict == "copies"
    assert geomem.danger_zone(train, test, sigmas=8).zone == geomem.danger_zone(data.train, data.heldout, sigmas=8).zone
    with pytest.raises(InputError, match="give all as such tables"):
        geomem.leaning(points, train, test)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_samples_are_judged_in_the_units_of_the_training_table(files, form, capsys):
    samples, *data = (files / f"samples.{form}", "--data", files / f"train.{form}", "--heldout", files / f"test.{form}")
    assert status("audit", samples, *data) == 0
    assert "verdict: copies" in capsys.readouterr().out
    assert "is a table; name the training table with --data" in refused(capsys, "audit", samples)
    assert "needs --data" in refused(capsys, "memorization", samples, *data[2:])


@pytest.mark.parametrize(("column", "message"), [
    ({"x": pd.date_range("2020", periods=80)}, "column x: holds dates or times; turn them into numbers"),
    ({"x": [f"person {k}" for k in range(80)]}, "column x: holds 80 texts that all differ"),
    ({"x": [[1.0]] * 80}, "holds values of type list"),
    ({"x": [np.inf] * 80}, "holds infinite values"),
    ({"x": [np.nan] * 80}, "holds no number in any training row"),
    ({"x": [1, "a"] * 40}, "cannot be read as a table"),
    ({"x": 1}, "column x is in it or in the training table alone"),
])
def test_wrong_columns_are_one_line(column, message):
    with pytest.raises(InputError, match=message) as error:
        load_data(rows(80, 1).assign(**column), heldout=rows(60, 2))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("heldout", "message"), [
    ({"age": np.nan}, "column age: lacks 60 numbers, in the training table none is missing"),
    ({"age": "old"}, "column age: holds categories, in the training table it does not"),
])
def test_other_rows_must_fit(heldout, message):
    with pytest.raises(InputError, match=message):
        load_data(rows(80, 1), heldout=rows(60, 2).assign(**heldout))


@pytest.mark.parametrize(("text", "message"), [
    ("a,39,b\nx,40,c\n", "first line holds the number 39, no name"),
    ("a,a\n1,2\n", "two columns have one name"),
    ("a,b\n", "column a: holds values of type null"),
    ("a,b\n1,2\n3\n", "cannot be read as a table"),
    ("when,b\n2020-01-02,2\n2020-01-03,2\n", "column when: holds dates or times"),
    ("a,b\n" + "\n".join(f"text {k},1" for k in range(1200)), "1,200 different texts, and at most 1,000"),
])
def test_wrong_text_is_one_line(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        load_data(tmp_path / "t.csv")
    assert "\n" not in str(error.value)


def test_options_of_pictures_have_no_effect_on_a_table(files):
    for option in ({"size": 8}, {"channels": "last"}, {"column": "age"}):
        with pytest.raises(InputError, match=r"leave out|there are age"):
            load_data(files / "train.parquet", **option)
    with pytest.raises(InputError, match="leave out --column"):
        load_data(files / "train.csv", column="age")
