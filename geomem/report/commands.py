"""The commands that make a run and its reports again, from its config.json."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from geomem.data.dataset import READ_AS
from geomem.errors import InputError

_PLAIN_GAP = re.compile(r"(auto|zone|none|[0-9.eE+-]+t?:[0-9.eE+-]+t?)(,[0-9.eE+-]+t?:[0-9.eE+-]+t?)*")


def shell(*arguments: Any) -> str:
    """The arguments as one line for a POSIX shell."""
    return shlex.join(str(argument) for argument in arguments)


def root_arguments(root: str | None) -> list[str]:
    """``--data-root`` where official files are looked for in a folder."""
    return [] if root is None else ["--data-root", root]


def data_arguments(data: Mapping[str, Any], root: str | None = None) -> list[str]:
    """DATA and its options, from the part "data" of a config; ``root``: the folder with official files."""
    arguments = ["DATA" if data["spec"] is None else str(data["spec"])]
    for name in ("heldout", "n_train", "n_heldout"):
        arguments += [] if data.get(name) is None else [f"--{name.replace('_', '-')}", str(data[name])]
    return [*arguments, *(["--shuffle"] if data.get("shuffle") else []), "--seed", str(data["seed"]),
            *reading_arguments(data), *root_arguments(root)]


def reading_arguments(data: Mapping[str, Any]) -> list[str]:
    """The options that say how DATA is read, from the same."""
    return [word for name in READ_AS if data.get(name)
            for word in (f"--{name.replace('_', '-')}", *([] if data[name] is True else [str(data[name])]))]


def training_command(config: Mapping[str, Any], out: str, root: str | None = None) -> str:
    """``geomem train`` or ``distil`` with the options of a run. Raises InputError where the config does not hold them.

    A gap that came from a file is written out as its range of sigma, so that the file is not needed.
    """
    try:
        settings, engine, taught = config["settings"], config.get("engine", {}), config.get("distilled")
        processes = int(engine.get("processes", 1))
        arguments = ["torchrun", "--nproc-per-node", processes, "-m"] if processes > 1 else []
        arguments += ["geomem", *_distil_arguments(taught, settings["seed"])] if taught else [
            "geomem", "train", *data_arguments(config["data"], root)]
        arguments += ["--out", out]
        arguments += [] if config.get("init") is None else ["--init", config["init"]]
        if config["network"] != "diffusers":  # else --init decides both
            arguments += ["--network", config["network"], "--objective", config["objective"]]
        arguments += [] if taught else _law_arguments(config["sampler"], config.get("gap", ["none"]))
        for name, value, usual in (("iterations", settings["iterations"], None), ("batch", settings["batch"], None),
                                   ("learning-rate", settings["learning_rate"], None),
                                   ("decay", settings["decay"], 0), ("dropout", config["dropout"], 0),
                                   ("precision", settings["precision"], "fp32"),
                                   ("snapshots", config.get("snapshots", "fp32"), "fp32"),
                                   ("dummy-class", config.get("dummy_class", 0), 0),
                                   ("accumulate", 1 if taught else engine.get("accumulate", 1), 1),
                                   ("watch-every", engine.get("watch_every"), None),
                                   ("stop-at-memorization", engine.get("stop_at"), None),
                                   ("folds", config.get("folds"), None), ("lean", config.get("lean"), None)):
            arguments += [f"--{name}", value] if value != usual else []
        for name, wanted in (("flip", settings["flip"]), ("conditional", config.get("labels") is not None),
                             ("compile", engine.get("compiled")), ("channels-last", engine.get("channels_last"))):
            arguments += [f"--{name}"] if wanted and not taught else []
        return shell(*arguments)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"config.json lacks an option of the training ({error!r})") from None


def _distil_arguments(taught: Mapping[str, Any], seed: int) -> list[Any]:
    routing = [] if taught["routing"] is None else ["--routing", taught["routing"]]
    return ["distil", taught["from"] or "RUN", "--weights", taught["weights"], *routing,
            "--samples", taught["samples"], "--seed", seed]


def _law_arguments(sampler: Mapping[str, Any], words: Sequence[Any]) -> list[Any]:
    base = sampler["base"] if sampler["kind"] == "gap" else sampler
    arguments = ["--sampler", base["kind"]]
    if base["kind"] == "ci":  # an interval of one's own holds half of the normal, that of auto nine tenths
        arguments += ["--ci", f"{base['c_low']}:{base['c_high']}" if base["coverage"] == 0.5 else "auto"]
    if sampler["kind"] != "gap":
        return arguments
    if not all(isinstance(word, str) and _PLAIN_GAP.fullmatch(word) for word in words):
        words = [f"{low}:{high}" for low, high in sampler["gaps"]]
    arguments += [part for word in words for part in ("--gap", word)]
    return arguments + (["--gap-keep", sampler["keep"]] if sampler["keep"] else [])
