"""JSON from strangers is bounded and refused on one line; what can be written is known before, and nothing is left."""

import os

import pytest

from geomem.errors import InputError
from geomem.files import read_json, require_writable


def test_json_up_to_its_limit(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}')
    assert read_json(path, "go", largest=8) == {"a": 1}
    with pytest.raises(InputError, match="larger than 7 bytes; go"):
        read_json(path, "go", largest=7)


def test_what_json_has_not_is_read_where_it_is_allowed(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": -Infinity}')
    assert read_json(path, "go", strict=False) == {"a": -float("inf")}
    with pytest.raises(InputError, match="it holds -Infinity"):
        read_json(path, "go")


@pytest.mark.parametrize(("content", "words"), [
    (b"[1]", "not a JSON object"), (b"3", "not a JSON object"), (b"", "not JSON"), (b"{", "not JSON"),
    (b"\xff{}", "not JSON"), (b'{"a": ' + b"[" * 100_000, "not JSON"), (b'{"a": ' + b"1" * 5000 + b"}", "not JSON")])
def test_other_content_is_refused(tmp_path, content, words):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{words}.*; go") as caught:
        read_json(path, "go")
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    for name, words in (("gone", "no such file"), (".", "is not a file"), ("pipe", "is not a file")):
        with pytest.raises(InputError, match=f"{words}; go"):
            read_json(tmp_path / name, "go")


def test_writable_or_not_is_known_before(tmp_path):
    (tmp_path / "file").write_text("kept")
    for path in (tmp_path / "new", tmp_path / "a" / "b" / "new", tmp_path / "file"):
        require_writable(path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "kept"
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for path, words in ((tmp_path, "is a directory"), (tmp_path / "file" / "new", "cannot be written"),
                        (tmp_path / "file" / "a" / "new", "cannot be written"),
                        (tmp_path / "nowhere" / "new", "cannot be written")):
        with pytest.raises(InputError, match=words):
            require_writable(path)
