"""Checkpoints of a run: killed at any moment, its directory still holds the last whole one."""

from __future__ import annotations

import json

from geomem.errors import InputError
from geomem.files import TEMPORARY_PREFIX, parse_json, write_json, write_text
from geomem.models.weights import open_tensors, read_tensors, write_tensors
from geomem.training.best_weights import BestWeights, Snapshot
from geomem.training.earlier import EarlierWeights
from geomem.training.monitor import Monitor
from geomem.training.run import BEFORE_FORMAT, LEVELS_FORMAT, TEACHER_SAMPLES, Run
from geomem.training.trainer import Trainer


def save_checkpoint(run: Run, trainer: Trainer, monitor: Monitor | None = None) -> None:
    """Write the training's state, and the weights that the monitor keeps.

    The order matters: snapshots first, then the state that names them, then what is derived from it.
    """
    best, earlier = (None, None) if monitor is None else (monitor.best_weights, monitor.earlier)
    snapshots = {**(earlier.snapshots if earlier else {}), **(best.snapshots if best else {})}
    for step, snapshot in snapshots.items():
        if not run.snapshot_path(step).exists():
            write_tensors(run.snapshot_path(step), snapshot)
    metadata = {"steps_done": str(trainer.steps_done)}
    if best is not None:
        metadata["best"] = json.dumps(best.to_dict())
    if earlier is not None:
        metadata["earlier"] = json.dumps(earlier.to_dict())
    write_tensors(run.path / "state.safetensors", trainer.state(), metadata)
    write_tensors(run.path / "model.safetensors", trainer.ema.state_dict())
    if best is not None and best.snapshots:
        write_json(run.path / "levels.json", {"format": LEVELS_FORMAT, "edges": best.edges.tolist(),
                                              "steps": best.steps, "early_stop": best.early_stop})
    if earlier is not None and earlier.step is not None:
        write_json(run.path / "before-copies.json", {"format": BEFORE_FORMAT, "step": earlier.step,
                                                     "copies_at": earlier.copies_at})
    kept = {run.snapshot_path(step) for step in snapshots}
    for path in (run.path / "weights").glob("*.safetensors"):
        if path not in kept:
            path.unlink()


def restore_checkpoint(run: Run, trainer: Trainer, monitor: Monitor | None = None) -> None:
    """Load the last checkpoint into the trainer, and into ``monitor`` the weights that it kept.

    No checkpoint: nothing changes. Weights from before the copies stay, even where nobody looks any more.
    """
    path = run.path / "state.safetensors"
    if not path.is_file():
        return

    def snapshot(step: int) -> Snapshot:
        return read_tensors(run.snapshot_path(step))

    with open_tensors(path) as file:
        metadata = file.metadata()
    try:
        trainer.load_state(read_tensors(path), int(metadata["steps_done"]))
        if monitor is None:
            return
        earlier, best = (parse_json(metadata.get(name, "null"), f"{path} is damaged", "start again in another --out")
                         for name in ("earlier", "best"))
        if earlier and (monitor.earlier or earlier["copies_at"] is not None):
            monitor.earlier = monitor.earlier or EarlierWeights()
            monitor.earlier.restore(earlier, snapshot)
        if best and monitor.best_weights is not None:
            monitor.best_weights = BestWeights.from_dict(best, snapshot, monitor.best_weights.dtype)
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{path} is damaged ({error}); start again in another --out") from None


def rewind(run: Run, steps_done: int) -> None:
    """Forget the lines after a checkpoint: the steps behind them will be done again."""
    for name in ("stats.jsonl", "watch.jsonl"):
        if (run.path / name).exists():
            kept = [line for line in run.lines(name) if line["step"] <= steps_done]
            write_text(run.path / name, "".join(json.dumps(line) + "\n" for line in kept))


def tidy(run: Run) -> None:
    """Remove the half-written files of a run that was killed."""
    for folder in (run.path, run.path / "weights", run.path / TEACHER_SAMPLES):
        for leftover in (*folder.glob(f"{TEMPORARY_PREFIX}*"), *folder.glob(".tmp??????")):  # ours, safetensors'
            if leftover.is_file():
                leftover.unlink()
