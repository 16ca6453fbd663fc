"""What a reader does to itself in a child process is one error here, and no child is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from geomem.data import child
from geomem.data.child import in_child, one_child
from geomem.errors import InputError


def pieces(n):
    print("a library that talks")
    yield from range(n)
    yield os.getpid()


def ends(how):
    yield os.getpid()
    match how:
        case "aborts":
            os.abort()
        case "leaves":
            os._exit(3)
        case "raises":
            raise KeyError("x")
        case "refuses":
            raise InputError("d.npy: no")
        case "takes memory":
            yield len(bytearray(child.MEMORY))
        case "sleeps":
            time.sleep(60)


def gone(pid):
    """Whether a process has ended; asked for 5 seconds."""
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(("how", "error", "words"), [
    ("aborts", ChildProcessError, "SIGABRT"), ("leaves", ChildProcessError, "status 3"),
    ("raises", ValueError, "it lacks 'x'"), ("refuses", InputError, "d.npy: no"),
    ("takes memory", ValueError, "it takes more than 1,024 MiB of memory"),
    ("sleeps", ChildProcessError, "it took more than 4 seconds")])
def test_however_it_ends(how, error, words, monkeypatch):
    monkeypatch.setattr(child, "SECONDS", 4)
    with one_child():
        found = in_child(ends, how)
        pid = next(found)
        with pytest.raises(error, match=words):
            next(found)
        *numbers, again = in_child(pieces, 3)  # another child where the first one ended
    assert numbers == [0, 1, 2]
    assert (again == pid) == (error is not ChildProcessError)
    assert gone(pid)
    assert gone(again)


def test_a_reader_that_is_left_in_the_middle_ends():
    with one_child():
        found = in_child(ends, "sleeps")
        pid = next(found)
        *_, other = in_child(pieces, 0)  # meanwhile another child answers
        found.close()
        assert gone(pid)
    assert gone(other)


def test_ctrl_c_ends_the_child_too():
    script = ("import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell may ignore it
              "from geomem.data.child import in_child; from test_data_child import ends\n"
              "for piece in in_child(ends, 'sleeps'): print(piece, flush=True)")
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          env=os.environ | {"PYTHONPATH": paths}) as parent:
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGINT)
        assert parent.wait(20) != 0
    assert gone(pid)
