"""What people expect of any command line: configuration files, quiet and verbose, completion, colour, suggestions."""

import json
import logging
import os
import pty
import re
import subprocess
import sys
import tomllib

import click
import numpy as np
import pytest
from commands import status

from geomem.cli import output
from geomem.cli.config import config_text, configurable, key_of
from geomem.cli.main import cli

TINY = ["digits", "--n-train", "40", "--network", "mlp", "--batch", "16", "--iterations", "2"]


@pytest.fixture
def write(tmp_path):
    def write(text, name="geomem.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path
    return write


@pytest.fixture
def lines(monkeypatch):
    """What is logged, with a line of progress for every step."""
    said = []
    monkeypatch.setattr(output, "LINE_SECONDS", 0)
    monkeypatch.setattr(output, "say", said.append)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    before = output.LOG.level
    output.LOG.setLevel(logging.INFO)  # which also forgets what earlier levels let through
    yield said
    output.LOG.setLevel(before)


def test_progress_without_a_terminal_is_lines_and_counts_this_session_only(lines):
    """1,000 of 2,000 steps were done before; 10 in 5 seconds leave 495 seconds, which is 8:15."""
    with output.progress_bar(2000, "training", "step", 1000) as bar:
        bar.start_t -= 5
        bar.last_print_t -= 5
        bar.set_postfix(loss="0.5", refresh=False)
        bar.update(10)
        assert lines[-1] == "training: 1010 of 2000 steps,  2.00step/s, 08:15 left, loss=0.5"


def test_quick_work_shows_no_line_of_progress(lines, monkeypatch):
    monkeypatch.setattr(output, "LINE_SECONDS", 30)
    with output.progress_bar(20, "training", "step") as bar:
        bar.to(20, 20)
    assert lines == []


@pytest.fixture
def dry(capsys):
    """The resolved configuration of a training, from train --dry-run."""
    def dry(*arguments):
        capsys.readouterr()
        assert status(*arguments, "--dry-run") == 0
        return json.loads(capsys.readouterr().out)["config"]
    return dry


CONFIG = """
[train]
data = "digits"
n-train = 40
network = "mlp"
iterations = 7
batch = 16
learning-rate = 1e-3
gap = ["0.3:0.5", "1.5:2"]
snapshots = "bf16"

[danger-zone]
data = "digits"
n-train = 40
sigmas = "0.3,0.6"
"""


@pytest.mark.parametrize("before", [True, False], ids=["before the command", "after it"])
def test_a_configuration_file_gives_options_and_the_command_line_wins(write, dry, tmp_path, before, capsys):
    path = write(CONFIG)

    def words(command, *rest):
        return ["--config", path, command, *rest] if before else [command, *rest, "--config", path]

    config = dry(*words("train", "--out", tmp_path / "run"))
    assert config["settings"]["iterations"] == 7
    assert config["settings"]["learning_rate"] == 1e-3
    assert config["sampler"]["gaps"] == [[0.3, 0.5], [1.5, 2]]
    assert (config["network"], config["snapshots"], config["data"]["n_train"]) == ("mlp", "bf16", 40)
    config = dry(*words("train", "--iterations", 3, "--gap", "none", "--out", tmp_path / "run"))
    assert config["settings"]["iterations"] == 3
    assert config["sampler"]["kind"] == "lognormal"
    assert status(*words("danger-zone", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["curves"]["sigma"] == [0.3, 0.6]


@pytest.mark.parametrize(("text", "words"), [
    ("[tran]\nbatch = 2", "train?"),
    ("[train]\nn_train = 2", "n-train?"),
    ("[train]\nlearning-rat = 2", "learning-rate?"),
    ("[train]\nzzz = 2", "known are"),
    ("[train]\nquiet = true", "quiet"),
    ("[train]\nflip = 1", "true or false"),
    ("[train]\nbatch = true", "one number or one text"),
    ("[train]\nbatch = [1, 2]", "one number or one text"),
    ("[train]\ngap = [[1, 2]]", "one number or one text"),
    ("[train]\nbatch = 2024-01-01", "one number or one text"),
    ("[train]\nbatch = 0", "--batch"),
    ("[train]\nprecision = 'fp8'", "fp8"),
    ("train = 3", "table"),
    ("train", "not TOML"),
    ("[train]\nbatch = 1\nbatch = 2", "not TOML"),
    ("x = " + "[" * 5000, "TOML"),
    ("#" + "x" * 2**20, "larger"),
])
def test_a_wrong_configuration_file_is_one_line(write, text, words, capsys, tmp_path):
    assert status("train", *TINY[:3], "--out", tmp_path / "run", "--config", write(text)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert words in error
    assert not (tmp_path / "run").exists()


def test_bytes_that_are_no_text_and_a_missing_file_are_refused(tmp_path, capsys):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe[train]")
    for name in ("bytes", "none", "."):
        assert status("--config", tmp_path / name, "train", *TINY, "--out", tmp_path / "run") == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_config_prints_a_file_that_asks_for_the_same_training(write, dry, tmp_path, capsys):
    odd = tmp_path / 'a "b" \\ é\t\x7f'
    np.savez(odd.with_suffix(".npz"), train=np.eye(4), heldout=np.eye(4) + 1)
    words = ["train", odd.with_suffix(".npz"), "--gap", "0.3:0.5,3:4", "--gap", "5:6", "--ci", "100:200", "--flip",
             "--dummy-class", "--learning-rate", "1e-5", "--out", tmp_path / "run"]
    assert status("config", *words) == 0
    text = capsys.readouterr().out
    table = tomllib.loads(text)["train"]
    assert table == {"data": str(odd.with_suffix(".npz")), "gap": ["0.3:0.5,3:4", "5:6"], "ci": "100:200", "flip": True,
                     "dummy-class": -1, "learning-rate": 1e-5, "out": str(tmp_path / "run")}
    assert "# iterations = 4000" in text
    assert not (tmp_path / "run").exists()
    words.remove("--flip")
    plain = write(text.replace("flip = true\n", ""))
    assert dry("train", "--config", plain) == dry(*words)
    # Every default that stands in a comment is one that the file may hold, and changes nothing.
    everything = write(plain.read_text().replace("\n# ", "\n#").replace("#The others", "# The others")
                       .replace("\n#", "\n").replace("\n The others", "\n# The others"), "everything.toml")
    assert len(tomllib.loads(everything.read_text())["train"]) > 20
    assert dry("train", "--config", everything) == dry(*words)


def test_config_keeps_how_data_are_read(write, dry, tmp_path, capsys):
    np.save(tmp_path / "d.npy", np.random.default_rng(0).standard_normal((20, 8, 8, 3)).astype(np.float32))
    words = ["train", tmp_path / "d.npy", "--channels", "first", "--network", "mlp", "--out", tmp_path / "run"]
    reading = ["--size", 8, "--crop", "--column", "image", "--data-root", "official"]
    assert status("config", *words, *reading) == 0
    table = tomllib.loads(capsys.readouterr().out)["train"]
    assert [table[name] for name in ("channels", "size", "crop", "column", "data-root")] == [
        "first", 8, True, "image", "official"]
    assert status("config", *words) == 0
    config = dry("train", "--config", write(capsys.readouterr().out))
    assert (config["shape"], config["data"]["channels"]) == ([8, 8, 3], "first")
    assert config == dry(*words)


def test_config_goes_on_from_a_file(write, capsys):
    path = write(CONFIG)
    for words in (["--config", path, "config", "train", "--out", "x", "--iterations", 3],
                  ["config", "train", "--out", "x", "--iterations", 3, "--config", path]):
        assert status(*words) == 0
        table = tomllib.loads(capsys.readouterr().out)["train"]
        assert table == tomllib.loads(CONFIG)["train"] | {"iterations": 3, "out": "x"}


def test_config_reads_what_it_is_given(capsys):
    for words in (["config"], ["config", "trian"], ["config", "train", "digits"],
                  ["config", "train", "digits", "--batch", "0", "--out", "x"], ["config", "data", "list"]):
        assert status(*words) == 2
        assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", [name for name in cli.commands if name != "data"])  # which has commands of its own
def test_every_command_can_be_configured(name):
    """Keys are unique, and none shadows an option that may stand before the command's name."""
    command = cli.commands[name]
    keys = [key_of(param) for param in configurable(command)]
    assert len(keys) == len(set(keys))
    assert not set(keys) & {"config", "quiet", "verbose", "debug", "help"}
    given = [word for param in command.params if param.required and isinstance(param, click.Argument)
             for word in ["bash" if isinstance(param.type, click.Choice) else "train"]]
    given += [word for param in command.params if param.required and isinstance(param, click.Option)
              for word in (param.opts[0], next(iter(getattr(param.type, "choices", ["here.npz"]))))]
    with cli.make_context("geomem", [name]) as parent, command.make_context(name, list(given), parent=parent) as ctx:
        table = tomllib.loads(config_text(name, command, given, ctx))[name]
    assert len(table) == sum(param.required for param in command.params)


def test_quiet_stands_after_a_command_of_a_group_too(tmp_path, capsys):
    np.save(tmp_path / "points.npy", np.eye(20, dtype=np.float32))
    assert status("data", "show", tmp_path / "points.npy", "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_quiet_and_verbose(tmp_path, capsys):
    np.savez(tmp_path / "points.npz", train=np.random.default_rng(0).standard_normal((40, 3)))
    words = ["danger-zone", tmp_path / "points.npz", "--sigmas", "3", "--json"]
    said = {}
    for volume in ([], ["--quiet"], ["--verbose"]):
        assert status(*volume, *words) == status(*words, *volume) == 0
        captured = capsys.readouterr()
        first, second = captured.out.splitlines()
        assert json.loads(first)["curves"] == json.loads(second)["curves"]
        said[tuple(volume)] = captured.err
    assert said[()].count("note: ") == 2  # no held-out part
    assert said["--quiet",] == ""
    assert re.search(r"sha256 [0-9a-f]{64}", said["--verbose",])
    assert len(re.findall(r"[0-9.]+ s, [0-9,]+ MiB at most; geomem .*, Python 3.*, numpy .*, torch ",
                          said["--verbose",])) == 2
    assert status("--quiet", "danger-zone", "--verbose", "digits") == 2
    assert status("--quiet", "danger-zone", "digitz") == 2
    assert capsys.readouterr().err.count("geomem: ") == 2  # errors are said all the same


@pytest.mark.parametrize(("volume", "lines"), [("--quiet", "warning\n"), ("--debug", "note on one line\nwarning\n")])
def test_what_the_library_logs_is_shown(volume, lines, monkeypatch, capsys):
    @click.command()
    def speak():
        log = logging.getLogger("geomem")
        log.debug("only with --verbose")
        log.info("note\non one line")
        log.warning("warning")

    monkeypatch.setitem(cli.commands, "speak", speak)
    assert status(volume, "speak") == 0
    assert capsys.readouterr().err == lines


@pytest.mark.parametrize(("words", "right"), [
    (["dangerzone", "digits"], "danger-zone"), (["trian"], "train"), (["qualty", "x.npz"], "quality"),
    (["train", "digits", "--iteration", "3"], "--iterations"), (["danger-zone", "digits", "--jsn"], "--json"),
    (["danger-zone", "digitz"], "digits"), (["train", "digits", "--out", "x", "--precision", "fp"], "fp32"),
])
def test_a_misspelt_word_is_answered_with_the_right_one(words, right, capsys):
    assert status(*words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert right in error


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell, capsys):
    assert status("completion", shell) == 0
    assert "_GEOMEM_COMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize(("line", "wanted"), [
    ("geomem da", ["plain,data", "plain,danger-zone"]), ("geomem train dig", ["plain,digits"]), ("geomem train --iter",
     ["plain,--iterations"]), ("geomem train digits --precision ", ["plain,fp32", "plain,bf16"]),
    ("geomem generate runs/", ["file,runs/"]), ("geomem quality a", ["file,a"]),
    ("geomem danger-zone photos/", ["file,photos/"]), ("geomem bounds x.npz --heldout dig", ["plain,digits"]),
    ("geomem risk digits --samples s", ["file,s"]), ("geomem train digits --out runs/", ["dir,runs/"]),
])
def test_what_a_shell_is_offered(line, wanted, monkeypatch, capsys):
    """The program as the lines of ``geomem completion bash`` call it."""
    for name, value in (("_GEOMEM_COMPLETE", "bash_complete"), ("COMP_WORDS", line), ("COMP_CWORD", line.count(" "))):
        monkeypatch.setenv(name, str(value))
    status()
    assert capsys.readouterr().out.split() == wanted


def test_what_a_shell_is_offered_needs_no_torch():
    """Or TAB would take seconds."""
    script = "import sys; from geomem.cli.main import main\ntry: main([])\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env={
        **os.environ, "_GEOMEM_COMPLETE": "bash_complete", "COMP_WORDS": "geomem train dig", "COMP_CWORD": "2"})
    assert done.stdout.split() == ["plain,digits"], done.stderr


def on_a_terminal(*arguments, **environment):
    """What the program writes to a terminal."""
    here, there = pty.openpty()
    try:
        subprocess.run([sys.executable, "-m", "geomem", *arguments], stdout=there, stderr=there, stdin=there,
                       env={**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, **environment})
        os.set_blocking(here, False)
        return os.read(here, 10**5).decode()
    finally:
        os.close(here)
        os.close(there)


def test_colour_on_a_terminal_only(capsys):
    assert on_a_terminal("trian").startswith("\x1b[31mgeomem:\x1b[0m ")
    assert on_a_terminal("trian", NO_COLOR="1").startswith("geomem: ")
    assert status("trian") == 2
    assert "\x1b" not in capsys.readouterr().err


def test_a_reader_that_has_seen_enough():
    """``geomem ... | head -0``: no traceback, no message."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "geomem", "config", "train", "digits", "--out", "x"], stdout=writer,
                          stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(("chosen", "spins"), [({}, "1000"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "0")])
def test_threads_wait_without_a_core(chosen, spins):
    """As OpenMP itself says when torch loads it: beside other programs, threads that spin took six times as long."""
    plain = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run([sys.executable, "-m", "geomem", "danger-zone", "digits", "--n-train", "9", "--sigmas", "3"],
                          capture_output=True, text=True, env={**plain, "OMP_DISPLAY_ENV": "VERBOSE", **chosen})
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr


def test_version_and_no_command(capsys):
    import geomem

    assert status("--version") == 0
    assert capsys.readouterr().out == f"geomem, version {geomem.__version__}\n"
    assert status() == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Commands:" in captured.err


def test_other_processes_leave_work_that_is_not_shared_to_the_first(monkeypatch, tmp_path):
    done = subprocess.run([sys.executable, "-m", "geomem", "--quiet", "plot-curves", "none", "--out", "none.png"],
                          capture_output=True, text=True, env={**os.environ, "RANK": "1", "WORLD_SIZE": "2"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
