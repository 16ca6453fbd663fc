"""A batch divided among pieces and processes trains like the whole one; processes stop, fail and resume together."""

import os
import signal
import socket
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import status
from safetensors.torch import load_file
from test_training import CONFIG, POINTS, after_step, assert_same_run, make, stopped, terminate, train_on

from geomem.errors import InputError, LostProcess
from geomem.models import EDMDenoiser, build_network
from geomem.noise import LogNormalSampler
from geomem.processes import leave_at_once, process_group
from geomem.training import (
    Interrupted,
    Run,
    Trainer,
    TrainingDiverged,
    TrainingSettings,
    denoising_loss,
    heldout_monitor,
    train,
    train_steps,
)
from geomem.training.checkpoint import restore_checkpoint
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


def test_a_batch_finer_than_points_and_no_compiler_are_one_line(monkeypatch):
    with pytest.raises(InputError, match="a batch of 10 cannot be divided into 11 pieces"):
        image_trainer(accumulate=11)
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


def member(rank, port, path, what, said):
    """One of two processes that train ``plain``; says where it ended."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    try:
        with process_group() as group:
            run, trainer = plain(path, group)
            monitor = heldout_monitor(trainer, None, POINTS[:20], every=None) if rank == 0 else None
            if rank == 1 and what in (signal.SIGKILL, signal.SIGTERM):
                after_step(trainer, 37, lambda: os.kill(os.getpid(), what))
            for state in train_steps(run, trainer, monitor):
                if monitor is not None and what == "enough" and state.step == 24:
                    monitor.should_stop = True
        said.send(str(trainer.steps_done))
    except (LostProcess, Interrupted) as error:
        said.send(f"{type(error).__name__}: {error}")
        leave_at_once(1)
    leave_at_once(0)  # as the command line does: gloo's threads now and then abort Python's own end


def run_processes(path, what=None):
    """Exit status and last words of each."""
    fork, port = get_context("fork"), free_port()
    pipes = [fork.Pipe(duplex=False) for _ in range(2)]
    started = [fork.Process(target=member, args=(rank, port, path, what, pipe[1])) for rank, pipe in enumerate(pipes)]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
        process.kill()
    return [(process.exitcode, pipe[0].recv() if pipe[0].poll() else "")
            for process, pipe in zip(started, pipes, strict=True)]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


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
    train(*plain(path), POINTS[:20])
    return path


@pytest.mark.parametrize("begun", [False, True])
def test_two_processes_train_like_one_also_from_where_one_stopped(alone, tmp_path, begun):
    if begun:
        run, trainer = plain(tmp_path / "two")
        after_step(trainer, 37, terminate)
        with pytest.raises(Interrupted, match="stopped at step 37"):
            train(run, trainer, POINTS[:20])
    assert run_processes(tmp_path / "two") == [(0, "80")] * 2
    assert_same_curve(alone, tmp_path / "two")
    assert not list((tmp_path / "two").rglob(".*"))


def test_a_signal_to_one_process_stops_all_and_one_alone_goes_on(alone, tmp_path):
    assert run_processes(tmp_path / "run", signal.SIGTERM) == [(1, "Interrupted: stopped at step 37")] * 2
    train(*plain(tmp_path / "run"), POINTS[:20])
    assert_same_curve(alone, tmp_path / "run")


def test_enough_for_the_first_process_ends_all(tmp_path):
    assert run_processes(tmp_path / "run", "enough") == [(0, "25")] * 2


def test_a_killed_process_ends_the_others_with_a_word(tmp_path):
    (status, said), (killed, _) = run_processes(tmp_path / "run", signal.SIGKILL)
    assert (status, killed) == (1, -signal.SIGKILL)
    assert "LostProcess: another of the 2 processes has ended" in said


def test_engine_options_of_the_command_line_may_change_on_resuming(tmp_path):
    command = ["train", "digits", "--n-train", 40, "--network", "mlp", "--batch", 8, "--iterations", 3,
               "--watch-every", 0, "--out", tmp_path / "run"]
    assert status(*command, "--accumulate", 2) == 0
    assert Run(tmp_path / "run").config["engine"]["accumulate"] == 2
    assert status(*command, "--accumulate", 1, "--resume") == 0
    assert status(*command, "--snapshots", "bf16", "--resume") == 2


@pytest.mark.slow
def test_command_line_shares_one_run_among_processes(tmp_path):
    words = ["train", "digits", "--n-train", "40", "--network", "mlp", "--batch", "9", "--iterations", "2", "--gap",
             "0.3:1", "--watch-every", "0", "--out", str(tmp_path / "run")]
    port = free_port()
    started = [subprocess.Popen([sys.executable, "-m", "geomem", *words], stderr=subprocess.PIPE, text=True, env={
        **os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port})
        for rank in range(2)]
    said, silent = (process.communicate(timeout=120)[1] for process in started)
    assert [process.returncode for process in started] == [0, 0], said + silent
    assert "2 steps done" in said
    assert silent == ""
    run = Run(tmp_path / "run")
    assert run.config["engine"]["processes"] == 2
    assert (run.path / "noise-level-law.png").exists()
    assert [line["step"] for line in run.stats] == [2]


def test_snapshots_in_bf16_take_half_the_space_and_resume_exactly(tmp_path):
    half = {"snapshot_dtype": torch.bfloat16}
    train_on(tmp_path / "fp32")
    train_on(tmp_path / "whole", **half)
    stopped(tmp_path / "stopped", 37, **half)
    train_on(tmp_path / "stopped", **half)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
    path = next((tmp_path / "whole" / "weights").iterdir())
    full = load_file(tmp_path / "fp32" / "weights" / path.name)
    for name, tensor in load_file(path).items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, full[name].bfloat16())
    denoiser = Run(tmp_path / "whole").denoiser("per-level")
    assert denoiser(torch.zeros(2, 6), 1.0).dtype == torch.float32


def test_checkpoints_by_images(tmp_path):
    """960 images in 60 steps of 16: after each 250 of them the next step saves, and the last one."""
    run, trainer = make(tmp_path / "run")
    assert [state.step for state in train_steps(run, trainer, checkpoint_every=250) if state.saved] == [16, 32, 47, 60]


@pytest.mark.parametrize(("step", "words", "saved"), [
    (1, "between steps 0 and 16; there is no checkpoint yet", 0),
    (33, "between steps 25 and 47; .* keeps the checkpoint of step 32", 32)])
def test_divergence_names_the_last_good_checkpoint(tmp_path, step, words, saved):
    run, trainer = make(tmp_path / "run", learning_rate=1e-3)

    def diverge():
        with torch.no_grad():
            next(trainer.denoiser.parameters()).fill_(float("nan"))

    after_step(trainer, step, diverge)
    with pytest.raises(TrainingDiverged, match=words):
        train(run, trainer, None, checkpoint_every=250)
    assert (run.path / "model.safetensors").exists() == bool(saved)
    _, again = make(tmp_path / "run", learning_rate=1e-3)
    restore_checkpoint(run, again)
    assert again.steps_done == saved
