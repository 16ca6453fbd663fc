"""README.md, CONTRIBUTING.md and docs/: every command runs, every block of Python runs, every name and link is there.

Commands and Python run in a folder with stand-ins for what they name: 120 small photos, a danger zone, a diffusers
folder, samples. Numbers are made small: see SMALLER and SHORTER. A placeholder such as RUN stands for what PLACES says.
"""

import contextlib
import importlib.util
import io
import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import status
from test_layers import ORDER

import geomem
from geomem._renamed import RENAMED
from geomem.cli.main import cli
from geomem.data.recipes import known_recipes

ROOT = Path(__file__).parents[1]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
         for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]}

PLACES = {"DATA": "digits", "RUN...": "runs/run", "RUN_A": "runs/run", "RUN_B": "runs/run", "RUN": "runs/run",
          "SAMPLES.npz...": "samples.npz", "SAMPLES.npz": "samples.npz", "FILE...": "zone", "PNG": "curves.png",
          "DIR": "made", "LO:HI": "0.3:1.5", "before-copies": "last"}  # two steps see no copies
SMALLER = {  # appended to a documented command: the last of an option counts
    "danger-zone": "--n-train 30 --sigmas 3 --queries 30",
    "bounds": "--n-train 30 --sigmas 3 --queries 20 --points 4",
    "risk": "--n-train 30",
    "forecast": "--n-train 80 --n-heldout 60 --network mlp --iterations 60 --batch 8",
    "train": "--n-train 30 --iterations 2 --batch 8",
    "distil": "--samples 8 --iterations 2 --batch 8 --network mlp --watch-every 0",
    "generate": "--seeds 0-7 --steps 3",
    "memorization": "--n-samples 8 --sigmas 2 --n-points 8",
    "audit": "--n-samples 12 --fail-over 1",
    "swap": "--n-samples 8 --controls 0",
    "report": "--seeds 0-7",
}
SHORTER = {"every=500": "every=2", "range(1000)": "range(8)", "max_steps=2000": "max_steps=2",
           "n_train=200": "n_train=40", "iterations=1500": "iterations=2, batch=8, network='mlp', watch_every=0",
           "np.geomspace(0.02, 20, 20)": "[0.1, 1.0]"}
NOT_RUN = ("pip ", "bin/", "eval ", "#")  # how other lines begin


def blocks(page, language):
    """The fenced blocks of one language; "" for those that name none."""
    fenced = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", PAGES[page], re.M | re.S)
    return [text for name, text in fenced if name == language]


def commands(page):
    """Lines of sh blocks, and the command in the first column of each row of a table."""
    lines = [line.strip() for language in ("sh", "") for block in blocks(page, language)
             for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    return [line for line in lines if line.startswith(("geomem ", "torchrun ", *NOT_RUN))] + re.findall(
        r"^\| `((?:geomem |bin/)[^`]*)` \|", PAGES[page], re.M)


def words_of(line):
    """The arguments of geomem in a documented line, small and with stand-ins, and the file that takes stdout."""
    line = re.sub(r"\[[^\]]*\]", "", line)
    line, _, target = line.partition(" > ")
    words = [PLACES.get(word, word) for word in shlex.split(line, comments=True)]
    words = words[words.index("geomem") + 1:]
    name = next(word for word in words if word in cli.commands)
    smaller = shlex.split(SMALLER.get(name, ""))
    if name == "train" and not {"--network", "--init", "--objective"} & set(words):
        smaller += ["--network", "mlp"]
    if name == "train" and "--stop-at-memorization" not in words:
        smaller += ["--watch-every", "0"]
    return name, words + smaller, target.strip()


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory):
    """A folder with everything that the documents name."""
    from diffusers import AutoencoderKL, DDPMPipeline, DDPMScheduler
    from PIL import Image

    folder = tmp_path_factory.mktemp("stand-ins")
    rng = np.random.default_rng(0)
    for where in ("photos", "other-photos"):
        (folder / where).mkdir()
        for k in range(120):
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / where / f"{k}.png")
    for name in ("train", "test", "synthetic"):
        rows = np.column_stack([rng.normal(size=60), rng.choice(["yes", "no"], 60)]).tolist()
        (folder / f"{name}.csv").write_text("\n".join(map(",".join, [["height", "smokes"], *rows])))
    for name, count in (("volumes", 90), ("unseen", 60), ("synthetic", 12)):
        np.save(folder / f"{name}.npy", rng.normal(size=(count, 1, 3, 4, 5)).astype(np.float32))
    np.savez(folder / "samples.npz", samples=rng.uniform(-1, 1, (12, 3, 8, 8)).astype(np.float32))
    DDPMPipeline(unet_of(3), DDPMScheduler()).save_pretrained(folder / "ddpm-folder")
    AutoencoderKL(block_out_channels=(4,), norm_num_groups=2).save_pretrained(folder / "vae")
    with contextlib.chdir(folder):
        assert status("danger-zone", "digits", "--n-train", 40, "--queries", 40, "--sigmas", 12, "--quiet",
                      "--out", "zone") == 0
    (folder / "geomem.toml").write_text(blocks("docs/command-line.md", "toml")[0])
    return folder


@pytest.fixture
def here(stand_ins, tmp_path, monkeypatch):
    shutil.copytree(stand_ins, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture(scope="module", autouse=True)
def empty_pictures():
    """Pictures are written without what is in them, which takes half of the time; other tests look at that."""
    from matplotlib.figure import Figure

    write = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, *where, **options: write(Figure((1, 1)), *where, **options))
        yield


def unet_of(channels):
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    return UNet2DModel(sample_size=8, in_channels=channels, out_channels=channels, block_out_channels=(8, 8),
                       layers_per_block=1, norm_num_groups=4, attention_head_dim=4,
                       down_block_types=["DownBlock2D"] * 2, up_block_types=["UpBlock2D"] * 2)


def run(line, *more):
    """Run a documented line here; returns what it wrote to stdout."""
    _, words, target = words_of(line)
    words += more
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = status(*words)
    assert code == 0, f"{line}\n{err.getvalue()}"
    if target:
        Path(target).write_text(out.getvalue())
    return out.getvalue()


@pytest.mark.parametrize("page", [name for name in PAGES if commands(name) and name != "README.md"])
def test_every_command_runs(page, here):
    shutil.rmtree("zone")  # the pages make their own
    for line in commands(page):
        if not line.startswith(NOT_RUN):
            run(line)


@pytest.mark.parametrize("script", sorted({name for page in PAGES
                                           for name in re.findall(r"bin/[a-z-]+", PAGES[page])}))
def test_every_script_is_there(script):
    assert os.access(ROOT / script, os.X_OK)
    assert subprocess.run(["bash", "-n", ROOT / script]).returncode == 0


@pytest.fixture(scope="session")
def of_readme(stand_ins, tmp_path_factory):
    """The README's commands, each asked for JSON where it can answer so: {command: the one object on its stdout}."""
    folder = tmp_path_factory.mktemp("readme") / "here"
    shutil.copytree(stand_ins, folder)
    (folder / "samples.npz").unlink()
    documents = {}
    with contextlib.chdir(folder):
        for line in commands("README.md"):
            if line.startswith(NOT_RUN):
                continue
            name = words_of(line)[0]
            answers_json = any(param.name == "as_json" for param in cli.commands[name].params)
            text = run(line, *["--json"] * answers_json)
            if answers_json:
                assert len(text.splitlines()) == 1, f"{line} writes more to stdout than one JSON object"
                documents[name] = json.loads(text)
    return folder, documents


def test_the_readme_s_commands_answer_with_one_json_object(of_readme):
    _, documents = of_readme
    assert {"danger-zone", "memorization", "quality", "risk", "bounds"} <= set(documents)
    for name, document in documents.items():
        assert document["format"].startswith("geomem."), name


def test_the_output_in_the_readme_is_that_of_the_command(capsys):
    """But for the figures themselves, which rounding may change."""
    line = next(line for line in commands("README.md") if "--sigmas" in line)
    assert status(*line.split()[1:], "--quiet") == 0
    shown, written = (re.sub(r"[0-9.]+", "#", text).split()
                      for text in (blocks("README.md", "text")[0], capsys.readouterr().out))
    assert shown == written


def test_every_command_is_documented():
    documented = {words_of(line)[0] for page in PAGES for line in commands(page) if not line.startswith(NOT_RUN)}
    told = {word for page in PAGES for line in commands(page) for word in re.findall(r"geomem ([a-z-]+)", line)}
    assert set(cli.commands) <= documented | told


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_in_the_text_exist(page):
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.M | re.S))
    for span in spans:
        words = span.removeprefix("geomem ").removeprefix("config ").split()
        if words[0] not in cli.commands:
            continue
        command = cli.commands[words[0]]
        known = {option for param in command.params for option in param.opts} | {"--help"}
        for word in words[1:]:
            if word.startswith("--"):
                assert word.split("=")[0].strip(",.;") in known, span


def namespace():
    """What the blocks of Python take for granted."""
    from diffusers import DDPMScheduler
    from torch.utils.data import DataLoader

    from geomem.models import build_network

    data = geomem.load_data("digits", n_train=40)
    train, heldout, unet = data.train[:24], data.validation[:40], unet_of(1)
    network = build_network("mlp", train.shape[1:])
    optimizer = torch.optim.AdamW([*unet.parameters(), *network.parameters()], lr=1e-3)
    return {"data": data, "train": train, "heldout": heldout, "unet": unet, "my_unet": unet, "network": network,
            "my_network": lambda x, sigma: 0 * x, "optimizer": optimizer, "scheduler": DDPMScheduler(),
            "batches": DataLoader(torch.from_numpy(train), batch_size=8), "samples": data.test[:50],
            "volumes": [train[:1]] * 2, "sigmas": [0.3, 1.0], "config": {"sampler": {"kind": "uniform"}}}


def python_blocks():
    return [pytest.param(page, number, id=f"{page}-{number}") for page in PAGES
            for number in range(len(blocks(page, "python")))]


@pytest.mark.parametrize(("page", "number"), python_blocks())
def test_every_block_of_python_runs(page, number, here, no_accelerator):
    source = blocks(page, "python")[number]
    for package in re.findall(r"^(?:from|import) ([a-z_]+)", source, re.M):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    for long, short in SHORTER.items():
        source = source.replace(long, short)
    names = namespace()
    for earlier in blocks(page, "python")[:number] if page == "README.md" else []:  # one goes on from the other there
        exec("\n".join(line for line in earlier.splitlines() if line.startswith(("import", "from"))), names)
    before = torch.cat([p.detach().flatten().clone() for p in (*names["unet"].parameters(),
                                                              *names["network"].parameters())])
    exec(compile(source, f"{page}, block {number}", "exec"), names)
    if "monitor = " in source:
        after = torch.cat([p.detach().flatten() for p in (*names["unet"].parameters(), *names["network"].parameters())])
        assert not torch.equal(before, after.to(before))  # it trained
        assert [step for step, _ in names["monitor"].looks] == [2]
        assert names["monitor"].best_weights.early_stop == 2


def test_the_documentation_builds(tmp_path):
    """Strictly: a link, an anchor or a name that leads nowhere is an error. Formulas become MathML."""
    pytest.importorskip("mkdocs")
    built = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
                           cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    formulas = (tmp_path / "formulas" / "index.html").read_text(encoding="utf-8")
    assert formulas.count("<math ") > 50
    assert "arithmatex" not in formulas
    assert 'id="geomem.data.load_data"' in (tmp_path / "api" / "data" / "index.html").read_text(encoding="utf-8")
    names = (tmp_path / "names" / "index.html").read_text(encoding="utf-8")
    for name in [*known_recipes(), "mlp", "unet1d", "unet-tiny", "unet-small", "unet-grey", "unet-cifar"]:
        assert f"<code>{name}</code>" in names
    shown = (tmp_path / "gallery" / "index.html").read_text(encoding="utf-8")
    for notebook in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        assert list(tmp_path.glob(f"notebooks/{notebook.stem}-*.png"))
        assert f'src="../notebooks/{notebook.stem}-' in shown
    assert "DOES NOT HOLD" in (tmp_path / "reproduction" / "index.html").read_text(encoding="utf-8")


def test_formulas_name_functions_that_exist():
    names = re.findall(r"`(geomem\.[\w.]+)`", PAGES["docs/formulas.md"])
    assert len(names) > 35
    for name in names:
        assert pkgutil.resolve_name(name) is not None
        assert name not in RENAMED


NUMBERED = {"G": ["Eq. 2", "Eq. 3", "Eq. 6", "Eq. 7", "Def. 4.1", "Thm 4.2", "Lemma 4.5", "Def. 4.6", "Def. 4.7",
                  "Thm 4.8", "Thm 4.9 (formal: B.6)", "Thm 4.10 (formal: D.4)", "Thm 4.11 (formal: C.4)",
                  "Lemma A.1", "Cor. A.2", "section 3", "section 4.2", "section 5", "Fig. 1", "Fig. 2", "Fig. 7",
                  "Table 1"],
            "C": [f"Eq. {k}" for k in range(8, 13)], "K": ["Eq. 2", "Eq. 5", "Eq. 7", "Eq. 8", "Table 1"]}


@pytest.mark.parametrize(("paper", "number"), [(paper, number) for paper in NUMBERED for number in NUMBERED[paper]])
def test_every_numbered_formula_has_its_place(paper, number):
    headings = re.findall(rf"\*\*\[{paper}\] ([^*]*)\*\*", PAGES["docs/formulas.md"])
    assert any(re.search(rf"{re.escape(number)}(?![0-9.]*[0-9])", heading) for heading in headings)


def test_formulas_cited_in_docstrings_are_on_the_page():
    """What a docstring cites of the two papers by number is on the page of formulas."""
    page = PAGES["docs/formulas.md"]
    citation = r"(?:Dodson|Vu) et al\. 2026,\s+((?:Eq\.|Thm|Def\.|Lemma|Cor\.) [A-D0-9.]*[0-9])"
    for path in (ROOT / "geomem").rglob("*.py"):
        for cited in re.findall(citation, path.read_text("utf-8")):
            assert cited in page, f"{path.name}: {cited}"


def documented_keys(title):
    section = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGES["docs/files.md"], re.M | re.S)
    assert section, f"docs/files.md says nothing of {title}"
    return {key for row in re.findall(r"^\| (`.*?) \|", section[1], re.M) for key in re.findall(r"`([^`]+)`", row)}


def test_every_key_of_every_file_is_documented(of_readme):
    folder, answers = of_readme
    documents = {f"{document['format'].removeprefix('geomem.').split('/')[0]}.json": document
                 for document in answers.values()}
    documents["config.json"] = json.loads((folder / "runs/run/config.json").read_text())
    with np.load(folder / "samples.npz") as file:
        documents["samples.npz"] = dict.fromkeys(file)
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "geomem").rglob("*.py"))
    for title, document in documents.items():
        known = documented_keys(title)
        assert set(document) - {"format"} - known == set(), title
        assert [key for key in known if f'"{key}"' not in source and f"{key}=" not in source] == [], title
    known = documented_keys("A run")
    for path in (folder / "runs/run").iterdir():
        assert re.sub("-[0-9]+", "-N", path.name) + "/" * path.is_dir() in known, path.name


def test_the_layers_are_those_that_are_tested():
    shown = next(text for text in blocks("CONTRIBUTING.md", "") if "->" in text)
    assert re.findall(r"[a-z_]+", shown) == [layer for layer in ORDER if layer != "_renamed"]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])  # those in docs/ are followed when it is built
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.M | re.S)):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}, target


def test_citation_names_the_version_and_both_papers():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {geomem.__version__}\n" in text
    assert text.count("arXiv:2602.17846") == text.count("arXiv:2601.21348") == 1


def test_the_documented_configuration_file_is_toml():
    assert set(tomllib.loads(blocks("docs/command-line.md", "toml")[0])) <= set(cli.commands)
