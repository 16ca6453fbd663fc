"""The monitor in the trainers of other libraries: where it looks, what their trackers get, and when they stop."""

import csv
import sys
from importlib import import_module
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from test_layers import FILES, imports
from torch import nn

import geomem
from geomem.errors import InputError
from geomem.integrations.looks import look_together
from geomem.models import EmpiricalDenoiser

pytestmark = pytest.mark.usefixtures("no_accelerator")

RNG = np.random.default_rng(11)
TRAIN, HELDOUT = (RNG.standard_normal((n, 6)).astype(np.float32) for n in (30, 80))
SHARES = {"memorized", "memorized_low", "memorized_high", "memorized_heldout", "leaning", "leaning_low", "leaning_high"}


class Network(nn.Module):
    """Learns one number; counts the batches that it is trained on."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.1))
        self.register_buffer("batches", torch.tensor(0))

    def forward(self, points):
        self.batches += 1
        return {"loss": (self.a * points - points).square().mean()}


class Turning(nn.Module):
    """Shrinks its points, and after ``when`` batches copies the training points."""

    def __init__(self, network, when):
        super().__init__()
        self.network, self.when = network, when
        self.copies = EmpiricalDenoiser(torch.from_numpy(TRAIN))

    def forward(self, x, sigma, labels=None):
        return self.copies(x, sigma) if self.network.batches >= self.when else self.network.a * x


@pytest.fixture
def network():
    return Network()


def monitored(network, when=6, **options):
    return geomem.Monitor(TRAIN, HELDOUT, every=2, **options), Turning(network, when)


def assert_looked(monitor, denoiser, logged):
    """Looks at steps 2, 4 and 6, the last of which stops; ``logged`` by step, and weights that were kept."""
    assert [step for step, _ in monitor.looks] == list(logged) == [2, 4, 6]
    for (_, look), line in zip(monitor.looks, logged.values(), strict=True):
        assert line == pytest.approx(look.scalars())
    assert {name.removeprefix("geomem/") for name in logged[6]} == SHARES
    assert [line["geomem/memorized"] > 0.9 for line in logged.values()] == [False, False, True]
    assert set(monitor.best_weights.steps) <= {2, 4, 6}
    assert monitor.best(denoiser)(torch.zeros(2, 6), 1.0).shape == (2, 6)


@pytest.mark.parametrize("stop", [{"stop_at": 0.5}, {"stop_at_leaning": 0.9}])
def test_transformers(network, stop, tmp_path):
    transformers = pytest.importorskip("transformers")
    from geomem.integrations.transformers import MonitorCallback

    logged = {}

    class Tracker(transformers.TrainerCallback):
        def on_log(self, args, state, control, logs, **rest):
            logged.setdefault(state.global_step, {}).update(logs)

    monitor, denoiser = monitored(network, **stop)
    settings = transformers.TrainingArguments(
        str(tmp_path), max_steps=20, per_device_train_batch_size=4, logging_steps=1, report_to=[], save_strategy="no",
        remove_unused_columns=False, disable_tqdm=True, use_cpu=True)
    trainer = transformers.Trainer(network, settings, train_dataset=[{"points": row} for row in torch.as_tensor(TRAIN)],
                                   callbacks=[Tracker()])
    trainer.add_callback(MonitorCallback(monitor, denoiser, trainer))
    trainer.train()
    assert trainer.state.global_step == 6
    assert [line["step"] for line in trainer.state.log_history if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert_looked(monitor, denoiser, {step: {name: value for name, value in line.items() if name.startswith("geomem/")}
                                      for step, line in logged.items() if "geomem/memorized" in line})


@pytest.mark.parametrize("library", ["lightning.pytorch", "pytorch_lightning"])
def test_lightning(network, library, tmp_path):
    """Two batches a step: it looks once at each step. Loggers get what falls between their own steps, too."""
    lightning = pytest.importorskip(library)
    from geomem.integrations.lightning import MonitorCallback

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network

        def training_step(self, points, index):
            return self.network(points)["loss"]

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    monitor, denoiser = monitored(network, when=12, stop_at=0.5)
    loggers = import_module(f"{library}.loggers")
    trainer = lightning.Trainer(
        max_steps=20, accumulate_grad_batches=2, accelerator="cpu", logger=loggers.CSVLogger(tmp_path),
        callbacks=[MonitorCallback(monitor, denoiser)], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False)
    trainer.fit(Module(), torch.utils.data.DataLoader(torch.as_tensor(TRAIN), batch_size=5))
    assert trainer.global_step == 6
    with open(f"{trainer.logger.log_dir}/metrics.csv", newline="") as file:
        lines = {int(line.pop("step")): {name: float(value) for name, value in line.items()}
                 for line in csv.DictReader(file)}
    assert_looked(monitor, denoiser, lines)


def test_accelerate(network):
    accelerate = pytest.importorskip("accelerate")
    from geomem.integrations.accelerate import look_and_log

    class Tracker(accelerate.tracking.GeneralTracker):
        name, requires_logging_directory, tracker = "dictionary", False, {}

        def store_init_configuration(self, values):
            pass

        def log(self, values, step):
            self.tracker[step] = values

    accelerator = accelerate.Accelerator(cpu=True, log_with=Tracker())
    accelerator.init_trackers("training")
    monitor, denoiser = monitored(network, stop_at=0.5)
    model, optimizer, batches = accelerator.prepare(
        network, torch.optim.SGD(network.parameters(), lr=0.1),
        torch.utils.data.DataLoader(torch.as_tensor(TRAIN), batch_size=3))
    for step, points in enumerate(batches, start=1):
        accelerator.backward(model(points)["loss"])
        optimizer.step()
        optimizer.zero_grad()
        if look_and_log(accelerator, monitor, denoiser, step):
            break
    assert step == 6
    assert_looked(monitor, denoiser, accelerator.get_tracker("dictionary", unwrap=True))


def member(rank, store, said):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    network = Network()
    monitor, denoiser = monitored(network, when=4, stop_at=0.5, n=16)
    stops = []
    for step in range(1, 5):
        network.batches += 1
        stops.append(look_together(monitor, denoiser, step, rank == 0)[1])
    said.send((stops, len(monitor.looks)))
    torch.distributed.destroy_process_group()


def test_the_first_of_two_processes_looks_and_both_stop(tmp_path):
    fork = get_context("fork")
    pipes = [fork.Pipe(duplex=False) for _ in range(2)]
    started = [fork.Process(target=member, args=(rank, tmp_path / "store", pipe[1])) for rank, pipe in enumerate(pipes)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        process.kill()
    assert [pipe[0].recv() if pipe[0].poll() else None for pipe in pipes] == [
        ([False, False, False, True], 2), ([False, False, False, True], 0)]


def test_what_an_adapter_holds_follows_its_network(network, monkeypatch):
    monitor, denoiser = monitored(network)
    network.to("meta")
    monkeypatch.setattr(geomem.Monitor, "__call__", lambda self, step, denoiser: denoiser.copies.points.device)
    assert look_together(monitor, denoiser, 2, True)[0].type == "meta"


LIBRARIES = {"transformers": ["transformers"], "lightning": ["lightning", "lightning.pytorch", "pytorch_lightning"],
             "accelerate": ["accelerate"], "peft": ["peft"]}


@pytest.mark.parametrize("name", LIBRARIES)
def test_without_the_library_one_line_says_what_to_install(name, monkeypatch):
    for module in LIBRARIES[name]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"geomem.integrations.{name}", raising=False)
    with pytest.raises(InputError, match=f"needs {name}; pip install"):
        import_module(f"geomem.integrations.{name}")


def test_nothing_else_imports_these_libraries():
    for path in FILES:
        if path.parent.name != "integrations":
            named = {".".join(module.split(".")[:depth]) for module in imports(path) for depth in (1, 2)}
            assert not named & {"lightning", "pytorch_lightning", "accelerate", "torchmetrics", "peft", "monai",
                                "geomem.integrations"}
