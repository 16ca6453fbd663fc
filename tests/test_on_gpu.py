"""``bin/gpu`` on a machine that nobody has seen: what fails or hangs costs its own step alone."""

import json

import on_gpu
import pytest
from on_gpu import Step, main, steps

HERE = {"gpu": "A card", "torch": "2", "cores": 2}


def script(text):
    return "-c", text


def test_each_step_ends_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(on_gpu, "machine", lambda: HERE)
    monkeypatch.setattr(on_gpu, "steps", lambda data: [
        Step("good", "", script("open('{out}/result.json', 'w').write('1'); print('well')"), 1),
        Step("bad", "", script("raise SystemExit('no such kernel')"), 1),
        Step("hangs", "", script("import subprocess, sys\nprint('waits', flush=True)\n"
                                 "subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"), 0.01),
        Step("last", "", script("print(1)"), 1)])
    assert main(["--out", str(tmp_path / "out")]) == 1
    report = json.loads((tmp_path / "out/gpu.json").read_text())
    assert [(step["name"], step["status"]) for step in report["steps"]] == [
        ("good", 0), ("bad", 1), ("hangs", "ended after 2 s"), ("last", 0)]
    assert [step["last_lines"] for step in report["steps"]] == [["well"], ["no such kernel"], ["waits"], ["1"]]
    assert (report["format"], report["machine"]) == ("geomem.gpu/1", HERE)
    assert (tmp_path / "out/result.json").read_text() == "1"


def test_time_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(on_gpu, "machine", lambda: HERE)
    monkeypatch.setattr(on_gpu, "steps", lambda data: [Step("any", "", script("print(1)"), 1)])
    assert main(["--out", str(tmp_path), "--minutes", "0.1"]) == 1
    assert json.loads((tmp_path / "gpu.json").read_text())["steps"][0]["status"] == "left out: no time"


def test_a_plan_runs_nothing(tmp_path, capsys):
    assert main(["--plan", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert all(step.name in printed for step in steps(tmp_path))
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        main(["--only", "nothing"])


def test_without_a_gpu_nothing_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(on_gpu, "machine", lambda: {**HERE, "gpu": None})
    assert main(["--out", str(tmp_path / "out")]) == 2
    assert "finds no GPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
