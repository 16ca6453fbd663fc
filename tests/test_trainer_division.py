"""A batch divided among pieces and processes trains like the whole one; processes stop, fail and resume together."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_training import CONFIG, POINTS, after_step, assert_same_run, make, terminate

from geomem.cli.main import main
from geomem.errors import InputError
from geomem.models import EDMDenoiser, build_network
from geomem.noise import LogNormalSampler
from geomem.training import (
    Interrupted,
    Run,
    Trainer,
    TrainingDiverged,
    TrainingSettings,
    denoising_loss,
    train,
    train_steps,
)
from geomem.training.trainer import pieces

IMAGES = np.random.default_rng(2).standard_normal((40, 1, 8, 8), dtype=np.float32)


def image_trainer(batch=10, flip=False, **division):
    torch.manual_seed(0)
    denoiser = EDMDenoiser(build_network("unet-tiny", (1, 8, 8)), 1.0)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    settings = TrainingSettings(iterations=9, batch=batch, flip=flip)
    return Trainer(denoiser, LogNormalSampler(), IMAGES, settings, **division)


def gradient_of(trainer):
    """The gradient that the optimizer sees at the first step, and the loss."""
    seen = []
    trainer.optimizer.register_step_pre_hook(
        lambda *_: seen.append(torch.cat([p.grad.flatten().double() for p in trainer.denoiser.parameters()])))
    trainer.step()
    return seen[0], float(trainer.losses[0])


def test_pieces_cover_the_batch_evenly():
    for size, count in [(16, 1), (16, 3), (7, 7), (128, 5)]:
        found = pieces(size, count)
        assert [k for piece in found for k in range(size)[piece]] == list(range(size))
        lengths = {piece.stop - piece.start for piece in found}
        assert len(found) == count
        assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(("division", "flip"), [
    ({"accumulate": 3}, False), ({"accumulate": 3}, True), ({"accumulate": 10}, False),
    ({"channels_last": True}, False)])
def test_divided_batch_has_the_gradient_of_the_whole(division, flip):
    """The whole one is autograd's, of the loss written out. Float32 sums of 640 values in another order: 1e-5."""
    trainer = image_trainer(flip=flip)
    batch = trainer.batch(0)
    loss = denoising_loss(trainer.denoiser.train(), batch.clean, batch.noise, batch.sigma)
    parameters = list(trainer.denoiser.parameters())
    whole = torch.cat([g.flatten().double() for g in torch.autograd.grad(loss, parameters)])
    gradient, divided_loss = gradient_of(image_trainer(flip=flip, **division))
    assert divided_loss == pytest.approx(float(loss.detach()), rel=1e-5)
    assert float((gradient - whole).norm()) < 1e-5 * float(whole.norm())


def test_a_batch_cannot_be_cut_finer_than_points():
    with pytest.raises(InputError, match="a batch of 10 cannot be divided into 11 pieces"):
        image_trainer(accumulate=11)


def test_compile_without_a_compiler_is_one_line(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="no C\\+\\+ compiler no-such-compiler here"):
        image_trainer(compiled=True)


def test_compiled_network_is_the_one_that_trains(monkeypatch):
    """The compiler's backend is replaced by one that runs the graph as it is and counts."""
    calls = []
    compile_module = torch.nn.Module.compile

    def counted(graph, inputs):
        calls.append(len(inputs))
        return graph.forward

    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile_module(self, backend=counted))
    gradient, loss = gradient_of(image_trainer(compiled=True))
    whole, whole_loss = gradient_of(image_trainer())
    assert calls
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    assert float((gradient - whole).norm()) < 1e-5 * float(whole.norm())
    assert image_trainer(compiled=True).state().keys() == image_trainer().state().keys()


SCRIPT = """
import os, signal, sys, torch
sys.path.insert(0, {tests!r})
from test_training import POINTS, after_step
from test_trainer_division import plain
from geomem.errors import LostProcess
from geomem.processes import leave_at_once, process_group
from geomem.training import Interrupted, heldout_monitor, train_steps
path, what = sys.argv[1:]
rank = int(os.environ["RANK"])
try:
    with process_group() as group:
        run, trainer = plain(path, group)
        monitor = heldout_monitor(trainer, None, POINTS[:20], every=None) if rank == 0 else None
        if rank == 1 and what in ("kill", "term"):
            number = signal.SIGKILL if what == "kill" else signal.SIGTERM
            after_step(trainer, 37, lambda: os.kill(os.getpid(), number))
        for state in train_steps(run, trainer, monitor):
            if monitor is not None and what == "enough" and state.step == 24:
                monitor.should_stop = True
    print(trainer.steps_done, file=sys.stderr)
except (LostProcess, Interrupted) as error:
    print(f"{{type(error).__name__}}: {{error}}", file=sys.stderr)
    leave_at_once(1)
leave_at_once(0)  # as the command line does: gloo's threads now and then abort Python's own end
"""


def plain(path, group=None):
    """A small run without dropout, whose masks would depend on the division."""
    run = Run(path)
    if not run.exists and (group is None or group.rank() == 0):
        run.create({**CONFIG, "dropout": 0.0})
    if group is not None:
        torch.distributed.barrier()
    torch.manual_seed(0)
    return run, Trainer(run.untrained(), LogNormalSampler(), POINTS, TrainingSettings(iterations=80, batch=15),
                        group=group)


def run_processes(path, what):
    """Exit status and stderr of each."""
    return together("-c", SCRIPT.format(tests=str(Path(__file__).parent)), path, what)


def together(*arguments, count=2):
    """Exit status and stderr of each of several Python processes with the same arguments."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = [subprocess.Popen([sys.executable, *map(str, arguments)], stderr=subprocess.PIPE, text=True,
                                env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(count),
                                     "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"})
               for rank in range(count)]
    try:
        return [(process.returncode, err) for process in started for _, err in [process.communicate(timeout=120)]]
    finally:
        for process in started:
            process.kill()


def assert_same_curve(one, two):
    """Equal but for rounding: Adam divides a gradient by its size, so what starts at 1e-7 grows over 80 steps."""
    a, b = Run(one).stats, Run(two).stats
    assert [line["step"] for line in a] == [line["step"] for line in b]
    for name in ("loss", "heldout_mse"):
        np.testing.assert_allclose([line[name] for line in a], [line[name] for line in b], rtol=1e-4)
    left, right = (load_file(Path(path) / "model.safetensors") for path in (one, two))
    for name, tensor in left.items():
        np.testing.assert_allclose(tensor, right[name], rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    path = tmp_path_factory.mktemp("division") / "alone"
    run, trainer = plain(path)
    train(run, trainer, POINTS[:20])
    return path


def test_two_processes_train_like_one(alone, tmp_path):
    for status, err in run_processes(tmp_path / "two", "train"):
        assert status == 0, err
    assert_same_curve(alone, tmp_path / "two")
    assert not list((tmp_path / "two").rglob(".*"))


def test_a_signal_to_one_process_stops_all_and_one_alone_goes_on(alone, tmp_path):
    for status, err in run_processes(tmp_path / "run", "term"):
        assert (status, err.strip()) == (1, "Interrupted: stopped at step 37")
    run, trainer = plain(tmp_path / "run")
    train(run, trainer, POINTS[:20])
    assert_same_curve(alone, tmp_path / "run")


def test_two_processes_go_on_with_what_one_alone_began(alone, tmp_path):
    run, trainer = plain(tmp_path / "run")
    after_step(trainer, 37, terminate)
    with pytest.raises(Interrupted, match="stopped at step 37"):
        train(run, trainer, POINTS[:20])
    for status, err in run_processes(tmp_path / "run", "train"):
        assert (status, err.strip()) == (0, "80")
    assert_same_curve(alone, tmp_path / "run")


def test_enough_for_the_first_process_ends_all(tmp_path):
    assert [(status, err.strip()) for status, err in run_processes(tmp_path / "run", "enough")] == [(0, "25")] * 2


def test_a_killed_process_ends_the_others_with_a_word(tmp_path):
    (status, err), (killed, _) = run_processes(tmp_path / "run", "kill")
    assert killed == -signal.SIGKILL
    assert status == 1
    assert "LostProcess: another of the 2 processes has ended" in err
    assert "Traceback" not in err


def test_engine_options_of_the_command_line_may_change_on_resuming(tmp_path):
    def status(*arguments):
        try:
            main(["train", "digits", "--n-train", "40", "--network", "mlp", "--batch", "8", "--iterations", "26",
                  "--watch-every", "0", "--out", str(tmp_path / "run"), *arguments])
        except SystemExit as stop:
            return stop.code
        return 0

    assert status("--accumulate", "2") == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["engine"]["accumulate"] == 2
    assert status("--accumulate", "1", "--resume") == 0
    assert status("--snapshots", "bf16", "--resume") == 2


def test_command_line_shares_one_run_among_processes(tmp_path):
    options = ["-m", "geomem", "train", "digits", "--n-train", 40, "--network", "mlp", "--batch", 9, "--iterations", 26,
               "--gap", "0.3:1", "--out", tmp_path / "run"]
    (status, said), (other, silent) = together(*options)
    assert (status, other) == (0, 0), said + silent
    assert "26 steps done" in said
    assert silent == ""
    run = Run(tmp_path / "run")
    assert run.config["engine"]["processes"] == 2
    assert (run.path / "noise-level-law.png").exists()
    assert [line["step"] for line in run.stats] == [25, 26]


def test_snapshots_in_bf16_take_half_the_space_and_resume_exactly(tmp_path):
    for name in ("whole", "stopped", "fp32"):
        dtype = None if name == "fp32" else torch.bfloat16
        for stop_at in ((37,) if name == "stopped" else ()):
            run, trainer = make(tmp_path / name)
            after_step(trainer, stop_at, terminate)
            with pytest.raises(Interrupted, match="stopped at step 37"):
                train(run, trainer, POINTS[:20], snapshot_dtype=dtype)
        run, trainer = make(tmp_path / name)
        train(run, trainer, POINTS[:20], snapshot_dtype=dtype)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
    paths = [next((tmp_path / name / "weights").iterdir()) for name in ("whole", "fp32")]
    half, full = map(load_file, paths)
    assert paths[0].name == paths[1].name
    for name, tensor in half.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, full[name].bfloat16())
    denoiser = Run(tmp_path / "whole").denoiser("per-level")
    assert denoiser(torch.zeros(2, 6), 1.0).dtype == torch.float32


def test_checkpoints_by_images(tmp_path):
    """960 images in 60 steps of 16: after each 250 of them the next step saves, and the last one."""
    run, trainer = make(tmp_path / "run")
    assert [state.step for state in train_steps(run, trainer, checkpoint_every=250) if state.saved] == [16, 32, 47, 60]


def test_divergence_names_the_last_good_checkpoint(tmp_path):
    run, trainer = make(tmp_path / "run", learning_rate=1e-3)

    def diverge():
        with torch.no_grad():
            next(trainer.denoiser.parameters()).fill_(float("nan"))

    after_step(trainer, 33, diverge)
    with pytest.raises(TrainingDiverged, match=r"between steps 25 and 47; .* keeps the checkpoint of step 32"):
        train(run, trainer, None, checkpoint_every=250)
    _, again = make(tmp_path / "run", learning_rate=1e-3)
    run.restore(again)
    assert again.steps_done == 32
