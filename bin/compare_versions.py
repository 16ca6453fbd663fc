"""Hold what one checkout of geomem answers against another: the contract that JSON keys are added, never changed.

    bin/compare-versions OLD NEW WORK     # two checkouts, and an empty directory for what they write

Both run the same commands on digits, ECG5000 and a folder of pictures (the last two where GEOMEM_TEST_DATA has them).
Every JSON object, every weight file and every line of text is compared; only seconds, versions, commands for other
programs and progress are left out. Prints one line for each command and each difference; exit status 1 where a JSON
key is gone or has another value (beyond rounding), or a file of weights differs.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import safe_open

ROUNDING = 1e-9  # relative, of numbers
IGNORED = {"seconds", "geomem"}
DIGITS = "digits --n-train 100 --n-heldout 300"
TRAIN = "--iterations 60 --batch 32 --watch-every 640"
COMMANDS = {
    "list": "data list --json", "show": "data show digits --json", "check": "data check digits",
    "zone": "danger-zone {data} --sigmas 12 --json --out {name}-zone",
    "zone-text": "danger-zone {data} --sigmas 12",
    "bounds": "bounds {data} --sigmas 6 --json", "bounds-text": "bounds {data} --sigmas 6",
    "risk": "risk {data} --json", "risk-text": "risk {data}",
    "dry-run": "train {data} --out {name}-none --gap auto --dry-run",
    "train": "train {data} --out {name}-run " + TRAIN,
    "train-gap": "train {data} --out {name}-gap --gap zone --seed 1 " + TRAIN,
    "generate": "generate {name}-run --seeds 0-63 --out {name}.npz",
    "generate-last": "generate {name}-gap --weights last --seeds 0-63 --out {name}-last.npz",
    "memorization": "memorization {name}-run --n-samples 64 --sigmas 5 --n-points 40 --json",
    "memorization-text": "memorization {name}-run --n-samples 64 --sigmas 5 --n-points 40",
    "memorization-samples": "memorization {name}.npz --json",
    "quality": "quality {name}.npz {name}-last.npz --all --json", "quality-text": "quality {name}.npz {name}-last.npz",
    "swap": "swap {name}-run gaussian skip --n-samples 16 --json",
    "report": "report {name}-run --out {name}.html",
}
DIGITS_ONLY = {
    "zone-classes": "danger-zone digits --per-class --sigmas 8 --json",
    "zone-space": f"danger-zone {DIGITS} --space pca:20 --sigmas 8 --json",
    "zone-tolerance": f"danger-zone {DIGITS} --tolerance 0.05 --sigmas 8 --json",
    "train-ddpm": f"train {DIGITS} --out ddpm --objective ddpm --gap 125t:325t {TRAIN}",
    "train-ci": f"train {DIGITS} --out ci --objective ddpm --ci 100:200 {TRAIN}",
    "train-classes": f"train {DIGITS} --out classes --conditional --flip --accumulate 2 {TRAIN}",
    "train-dummy": f"train {DIGITS} --out dummy --dummy-class 50 --decay 0.5 {TRAIN}",
    "train-init": f"train {DIGITS} --out init --init digits-run {TRAIN}",
    "generate-ddim": "generate ddpm --sampler ddim --steps 10 --seeds 0-15 --out ddim.npz",
    "generate-label": "generate classes --label 3 --seeds 0-15 --out three.npz",
    "swap-two": "swap digits-run digits-gap --window zone --n-samples 16 --json",
    "config": f"config train {DIGITS} --gap 0.3:1.5 --out RUN",
    "export": "export digits-run --out exported",
    "risk-samples": f"risk {DIGITS} --samples digits.npz --json",
    "misspelt": "danger-zone digts", "no-run": "generate nothing --out x.npz", "no-option": "train digits",
}


def commands(work: Path) -> Iterator[tuple[str, str]]:
    """Name and arguments of every command, in the order in which they build on each other."""
    data = {"digits": DIGITS}
    source = Path(os.environ.get("GEOMEM_TEST_DATA", "../shared/data")).resolve()
    if (source / "ECG5000_TRAIN.txt").exists():
        data["ecg"] = f"{source}/ECG5000_TRAIN.txt --heldout {source}/ECG5000_TEST.txt --n-train 100 --n-heldout 200"
    if (source / "pokemon64.zip").exists():
        pictures(source / "pokemon64.zip", work / "pictures")
        data["pictures"] = f"{work / 'pictures'}"
    for name, spec in data.items():
        for command, text in COMMANDS.items():
            if name == "digits" or "{" in text:
                yield f"{name} {command}", text.format(name=name, data=spec)
    for command, text in DIGITS_ONLY.items():
        yield f"digits {command}", text


def pictures(archive: Path, folder: Path, count: int = 60, side: int = 12) -> None:
    """The first pictures of an archive, small, as a folder of PNG files."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(archive) as file:
        for k, name in enumerate(sorted(file.namelist())[:count]):
            with file.open(name) as picture:
                Image.open(picture).convert("RGB").resize((side, side)).save(folder / f"{k:03}.png")


def answer(checkout: Path, folder: Path, arguments: str) -> tuple[str, str, int]:
    """stdout, stderr and exit status of ``geomem ARGUMENTS``, run in ``folder`` with the package of ``checkout``."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-m", "geomem", *shlex.split(arguments)], cwd=folder, env=environment,
                          capture_output=True, text=True)
    return done.stdout, done.stderr, done.returncode


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """What ``new`` changes or lacks of ``old``; keys that it adds are none."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old:
            if key not in IGNORED:
                yield from ([f"{where}.{key} is gone"] if key not in new else
                            differences(old[key], new[key], f"{where}.{key}"))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for k, pair in enumerate(zip(old, new, strict=True)):
            yield from differences(*pair, f"{where}[{k}]")
    elif old != new and not (isinstance(old, float) and isinstance(new, float)
                             and math.isclose(old, new, rel_tol=ROUNDING)):
        yield f"{where}: {str(old)[:60]} -> {str(new)[:60]}"


def of_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def content(path: Path) -> dict[str, Any]:
    """What a file of weights says and holds, to the bit; the order of its notes differs from run to run."""
    with safe_open(path, "numpy") as file:
        return {"notes": file.metadata(), **{name: (str(value.dtype), value.shape, value.tobytes())
                                             for name in sorted(file.keys()) for value in [file.get_tensor(name)]}}


READERS: dict[str, Callable[[Path], Any]] = {  # of the others it is compared whether they are there
    ".json": lambda path: of_json(path.read_text()), ".safetensors": content,
    ".jsonl": lambda path: [of_json(line) for line in path.read_text().splitlines()],
    **dict.fromkeys((".npz", ".csv", ".html", ".png"), lambda path: None)}


def compared_files(old: Path, new: Path) -> Iterator[str]:
    """Differences of what the commands wrote."""
    for path in sorted(path for path in old.rglob("*") if path.suffix in READERS):
        name, read = path.relative_to(old), READERS[path.suffix]
        if (new / name).exists():
            yield from (f"{name}{line}" for line in differences(read(path), read(new / name)))
        else:
            yield f"{name} is gone"


def main() -> int:
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    old, new, work = (Path(argument).resolve() for argument in sys.argv[1:])
    work.mkdir(parents=True, exist_ok=True)
    folders = work / "old", work / "new"
    for folder in folders:
        folder.mkdir(exist_ok=True)
    broken = 0
    for name, arguments in commands(work):
        saved = folders[0] / f"{name}.answer".replace(" ", "-")  # the old checkout answers once
        if not saved.exists():
            saved.write_text(json.dumps(answer(old, folders[0], arguments)))
        before, after = json.loads(saved.read_text()), answer(new, folders[1], arguments)
        lines = [f"exit status {before[2]} -> {after[2]}: {after[1].strip()[-200:]}"] if before[2] != after[2] else []
        parsed = of_json(before[0])
        lines += differences(parsed, of_json(after[0])) if parsed is not None else []
        broken += len(lines)
        for stream, a, b in (("stdout", before[0], after[0]), ("stderr", before[1], after[1])):
            if (parsed is None or stream == "stderr") and a != b:
                changed = sum(x != y for x, y in zip(a.splitlines(), b.splitlines(), strict=False))
                lines.append(f"text on {stream}: {changed} of {len(a.splitlines())} lines differ")
        print(f"{name}: {'; '.join(lines[:5]) or 'the same'}", flush=True)
    files = list(compared_files(*folders))
    print("\n".join(["files:", *files]) if files else "files: the same", flush=True)
    return int(bool(broken or files))


if __name__ == "__main__":
    sys.exit(main())
