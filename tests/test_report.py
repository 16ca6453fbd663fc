"""The page of ``geomem report``: whole and honest HTML, whatever a run directory holds."""

import base64
import io
import json
import re
import shutil
import zipfile
from html.parser import HTMLParser
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from commands import status
from PIL import Image

import geomem
from geomem import load_data
from geomem.memorization import memorization_rate
from geomem.plots import plot_training
from geomem.quality import quality_report
from geomem.report import pictures, saved
from geomem.report.collect import Collector, _Subject
from geomem.report.page import short, thinned

VOID = {"meta", "img", "br", "link", "input", "hr"}
SMALL = ["--n-train", "60", "--network", "mlp", "--iterations", "20", "--batch", "16"]
SEEDS = ["--seeds", "0-39"]
FIGURE_URI = pictures.figure_uri


class Page(HTMLParser):
    """Elements of a page in order, each as (tag, attributes); refuses ends that do not fit and what is left open."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], self.open
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):  # of SVG
        self.elements.append((tag, dict(attributes)))
        assert len(dict(attributes)) == len(attributes), f"{tag} has an attribute twice"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, text):
        if not {"style", "script"} & set(self.open):
            self.texts.append(text)

    def all(self, *tags):
        return [attributes for tag, attributes in self.elements if tag in tags]


def require_sound(text):
    """What every page must be. Returns it parsed."""
    page = Page(text)
    tags = [tag for tag, _ in page.elements]
    assert text.lstrip().lower().startswith("<!doctype html>")
    assert page.all("html") == [{"lang": "en"}]
    assert not {"script", "iframe", "object", "link", "base", "form", "embed", "foreignobject"} & set(tags)
    policy = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcset")], tag
        for name in ("src", "href", "data", "action", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,", "data:image/svg+xml;base64,"))
    assert not [word for word in ("@import", "url(") if word in text]
    assert all(a.get("alt") for a in page.all("img"))
    assert all(a.get("aria-label") for a in page.all("svg"))
    assert all(a.get("scope") in ("col", "row") for a in page.all("th"))
    depths = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert (depths[0], depths.count(1)) == (1, 1)
    assert all(b - a <= 1 for a, b in pairwise(depths)), "a heading level is left out"
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(set(ids)) == len(ids)
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)
    for a in page.all("img"):
        kind, content = a["src"].split(";base64,")
        content = base64.b64decode(content, validate=True)
        if kind.endswith("png"):
            Image.open(io.BytesIO(content)).verify()
        else:
            assert not [word for word in (b"<script", b"<dc:date>") if word in content]
    return page


@pytest.fixture(scope="module")
def runs(tmp_path_factory, run_of_digits):
    """Two runs on the same digits, the second with the zone as its gap; ``kept`` is the first with all its reports."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(run_of_digits, folder / "plain")
    assert status("train", "digits", *SMALL, "--gap", "zone", "--out", folder / "gap") == 0
    kept = folder / "kept"
    shutil.copytree(folder / "plain", kept)
    assert status("danger-zone", "digits", "--n-train", 60, "--sigmas", 6, "--out", kept / "danger-zone") == 0
    assert status("memorization", kept, "--n-samples", 30, "--sigmas", 3, "--n-points", 20, "--out",
                  kept / "memorization") == 0
    return folder


@pytest.fixture
def copied(runs, tmp_path, monkeypatch):
    """A copy of the run with its reports, to spoil. Figures are made but not rendered, which is most of the time."""
    def unrendered(what, draw):
        draw()
        return "data:image/svg+xml;base64,"

    monkeypatch.setattr(pictures, "figure_uri", unrendered)
    shutil.copytree(runs / "kept", tmp_path / "run")
    return tmp_path / "run"


def page_of(tmp_path, *arguments, name="page.html"):
    assert status("report", *arguments, "--out", tmp_path / name) == 0
    return (tmp_path / name).read_text(encoding="utf-8")


def words_of(tmp_path, *arguments):
    return require_sound(page_of(tmp_path, *arguments)).text


def require_words(words, *parts):
    assert not [part for part in parts if part not in words]


def edited(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_one_run(runs, tmp_path, capsys):
    before = sorted(runs.rglob("*"))
    text = page_of(tmp_path, runs / "plain", *SEEDS)
    out = capsys.readouterr()
    words = require_sound(text).text
    assert sorted(runs.rglob("*")) == before, "the run was written into"
    assert len(text) < 1_500_000
    require_words(words, "This run: no verdict can be given.", "The samples have values from")  # after 30 steps
    require_words(
        words, "Does this model copy its training data?",
        "60 training points of 64 values each (1 x 8 x 8), 1,200 held-out points, of which 400 are for model selection",
        "samples: 40 generated for this page", "Curves: computed for this page", "Nothing is missing.",
        f"geomem memorization {runs / 'plain'} --weights per-level --n-samples 40",
        f"Made by geomem {geomem.__version__}.")
    assert "no verdict can be given" in out.out
    # the figures are those of the commands
    assert status("generate", runs / "plain", *SEEDS, "--out", tmp_path / "s.npz") == 0
    assert status("quality", tmp_path / "s.npz", "--json") == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"][0]
    share, quality = row["memorization"], row["quality"]
    require_words(words, in_percent(share),
                  f"{quality['frechet']:#.3g} [{quality['frechet_low']:#.3g}, {quality['frechet_high']:#.3g}]")


def in_percent(share):
    return f"{100 * share['rate']:.1f}% [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"


def test_same_input_same_page_and_figures(copied, tmp_path):
    first, again = (page_of(tmp_path, copied, name=name) for name in ("a.html", "b.html"))
    assert first == again
    first, again = (FIGURE_URI("losses", lambda: plot_training([{"step": 1, "loss": 1.0}])) for _ in range(2))
    assert first == again


@pytest.mark.slow
def test_several_runs(runs, tmp_path):
    text = page_of(tmp_path, runs / "plain", runs / "gap", *SEEDS)
    words = require_sound(text).text
    assert len(text) < 2_500_000
    assert words.index("Run A") < words.index("The runs compared") < words.index("What was asked")
    assert "By the figures" in words or "The difference exceeds the intervals" in words
    zone = json.loads((runs / "gap" / "danger-zone.json").read_text())["zone"]
    require_words(words, "Do these models copy their training data?", "Left out were the levels",
                  f"found in {runs / 'gap' / 'danger-zone.json'}",  # one run's zone serves both
                  f"{zone['sigma_low']:#.3g} to {zone['sigma_high']:#.3g}")
    assert words.count("Fingerprint of the data") == 1


def test_data_of_official_files_below_a_data_root(copied, tmp_path, monkeypatch, capsys):
    """The data of a recipe are found again, and the page's commands find them too."""
    monkeypatch.delenv("GEOMEM_DATA", raising=False)
    recipe, official = tmp_path / "mine.toml", tmp_path / "official files"
    recipe.write_text('[[local]]\npath = "d.npz"\n')
    official.mkdir()
    digits = load_data("digits")
    np.savez(official / "d.npz", train=digits.train, heldout=digits.heldout)
    edited(copied / "config.json", lambda config: config["data"].update(spec=str(recipe)))
    assert status("report", copied, "--out", tmp_path / "page.html") == 2
    assert "there are none in the data root" in capsys.readouterr().err
    words = words_of(tmp_path, copied, "--data-root", official)
    assert "Nothing is missing." in words
    for command in ("danger-zone", "train"):
        assert re.search(f"geomem {command} {re.escape(str(recipe))} .*--seed 0 --data-root '{official}'", words)
    assert re.search(f"geomem memorization [^ ]* --data-root '{official}'", words)


def test_what_lies_in_the_run_is_used(copied, tmp_path, monkeypatch):
    for name in ("levels_beside_references", "danger_zone"):
        monkeypatch.setattr(f"geomem.report.collect.{name}", None)
    monkeypatch.setattr("geomem.training.Pretrained.generate", None)
    words = words_of(tmp_path, copied)
    zone = json.loads((copied / "danger-zone" / "danger-zone.json").read_text())["zone"]
    require_words(words, f"Curves: found in {copied / 'danger-zone' / 'danger-zone.json'}",
                  f"samples: 30 found in {copied / 'memorization' / 'samples.npz'}",
                  "memorized share, leaning and quality: measured for this page from these samples",
                  f"memorization per noise level: found in {copied / 'memorization' / 'memorization.json'}",
                  "(20 points at each level)", "Every test, and what it would have found", "near copies",
                  "What these tests cannot see:",
                  f"danger zone is sigma {zone['sigma_low']:#.3g} to {zone['sigma_high']:#.3g}")
    assert "does not say from which state" not in words


def test_samples_of_an_earlier_state_or_of_other_data_are_not_used(copied, runs, tmp_path):
    samples = copied / "memorization" / "samples.npz"
    shutil.copy(runs / "gap" / "model.safetensors", copied / "model.safetensors")
    words = words_of(tmp_path, copied, "--weights", "last", "--seeds", "0-5")
    assert "samples: 6 generated for this page" in words
    for file in sorted((copied / "weights").iterdir()):
        shutil.copy(runs / "gap" / "model.safetensors", file)
    words = words_of(tmp_path, copied, "--seeds", "0-5")
    assert f"not used: {samples} (made with other weights than the run holds now)" in words
    assert "samples: 6 generated for this page" in words


def test_the_largest_samples_are_evaluated_on_test_points(copied):
    """As the functions do it; a share that a report gives, and other zones are not believed."""
    folder = copied / "memorization"
    with np.load(folder / "samples.npz") as arrays:
        held = dict(arrays)
    for name in ("a", "z"):
        np.savez(folder / f"{name}.npz", **held | {"samples": held["samples"][:10]})
    edited(folder / "memorization.json", lambda d: d["trajectory"].update(rate=d["trajectory"]["rate"] + 0.01))
    data, samples = load_data("digits", n_train=60), held["samples"]
    facts = Collector([str(copied)], seeds=[0, 1], device="cpu").facts()[0]
    found = memorization_rate(samples, data.train, device="cpu")
    assert facts.trajectory == found.to_dict()
    assert facts.heldout == memorization_rate(data.test, data.train, device="cpu").to_dict()
    assert facts.quality == quality_report(samples, data.train, data.test, device="cpu").to_dict()
    assert facts.samples.ratios[16:].tolist() == sorted(found.ratios.tolist())[:8]
    assert not any("the end of the training" in part.what for part in facts.missing)
    zone, subject = copied / "danger-zone" / "danger-zone.json", _Subject(Collector([str(copied)]), str(copied))
    whole = zone.read_bytes()
    for change in (lambda d: d["data"].update(sha256="0" * 64), lambda d: d.update(space={"name": "pca:2"})):
        assert subject.zone_saved()[0] is not None
        edited(zone, change)
        assert subject.zone_saved()[0] is None
        zone.write_bytes(whole)


@pytest.mark.parametrize(("change", "words"), [
    ({"spec": "/gone/photos.npz"}, "name them with --data where they are now ('/gone/photos.npz'"), ({}, "--data"),
    ({"spec": ["digits"]}, "name them with --data")])
def test_a_run_without_its_data_is_refused(change, words, copied, tmp_path, capsys):
    edited(copied / "config.json", lambda c: c.update(data=c["data"] | change if len(change) else {}))
    assert status("report", copied, "--out", tmp_path / "page.html") == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "page.html").exists()


def test_what_a_run_lacks_is_named(copied, tmp_path):
    for name in ("stats.jsonl", "watch.jsonl", "levels.json"):
        (copied / name).unlink()
    edited(copied / "config.json", lambda c: c["settings"].update(iterations=2000))
    words = words_of(tmp_path, copied, "--seeds", "0-9")
    require_words(words, "the loss along training : the run holds no stats.jsonl",
                  "memorization along training : the run was not watched", "30 of 2,000 steps are done",
                  "best weights per noise level : the run kept none", "evaluated with its last weights")


ATTACK = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'`{{ 7*7 }}${x}$\\frac"


def test_a_hostile_run_stays_text(copied, tmp_path, capsys):
    """Every string that a stranger can set, in every file that is read."""
    def spoil(config):
        config["data"].update(name=ATTACK, heldout=None)
        config["settings"]["note"] = ATTACK
        config["settings"]["precision"] = ATTACK
        config[ATTACK] = [ATTACK] * 3
        config["gap"] = [ATTACK]
        config["init"] = ATTACK

    edited(copied / "config.json", spoil)
    edited(copied / "danger-zone" / "danger-zone.json",
           lambda d: (d["zone"].update(note=ATTACK), d["data"].update(name=ATTACK), d.update(zone_reason=ATTACK)))
    edited(copied / "memorization" / "memorization.json", lambda d: d["about"].update(method=ATTACK, weights=ATTACK))
    hostile = tmp_path / "<b onclick=alert(1)>"
    shutil.move(copied, hostile)
    text = page_of(tmp_path, hostile, "--seeds", "0-9")
    page = require_sound(text)
    assert "<script" not in text.lower()
    assert ATTACK in "".join(page.texts)
    assert "{{ 7*7 }}" in text, "a template inside a name is text"
    assert not [a for _, a in page.elements if "onerror" in a or "onclick" in a]


SPOILT = [
    '{"format": "geomem.memorization/1", "trajectory": {"rate": NaN}}',
    '{"format": "geomem.memorization/1"}',
    '{"format": "geomem.memorization/1", "data": {"sha256": "x"}, "about": 3, "trajectory": [1], "heldout": null}',
    "[" * 100_000, "{", "nothing", '"' + "x" * 100,
    '{"format": "geomem.danger-zone/1", "zone": null, "curves": {"sigma": [1, 1e999]}}',
    '{"format": "geomem.danger-zone/1", "curves": 1, "zone": []}',
]


def test_damaged_reports_are_named_and_left_out(copied, tmp_path):
    shutil.rmtree(copied / "danger-zone")
    for k, text in enumerate(SPOILT):
        (copied / f"spoilt-{k}.json").write_text(text)
    words = words_of(tmp_path, copied, "--seeds", "0-3")
    for k in range(len(SPOILT)):
        assert re.search(rf"not used: [^ ]*spoilt-{k}\.json", words), SPOILT[k][:80]


LOOK = ('{"step": 1, "rate": 0, "low": 0, "high": 0.1, "n": 64, "floor_high": 0, "sigma": [1], "mse_train": [1], '
        '"mse_heldout": [1], "has_set_in": false, "leaning": LEANING}\n')


@pytest.mark.parametrize(("leaning", "words"), [
    ("null", "of 64 samples were copies. "),
    ('{"share": 0.7, "low": 0.6, "high": 0.8, "points": "test"}',
     "were copies, 70.0% [60.0, 80.0] were nearer to training points than to as many test points")])
def test_leaning_along_the_training_stands_beside_the_copies(leaning, words, copied, tmp_path):
    (copied / "watch.jsonl").write_text(LOOK.replace("LEANING", leaning))
    assert words in words_of(tmp_path, copied, "--seeds", "0-3")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "change"), [
    ("stats.jsonl", '{"step": 1, "loss": 1e999}\n'), ("stats.jsonl", '{"step": 1, "loss": "1"}\n'),
    ("stats.jsonl", '{"step": 1}\n'), ("stats.jsonl", "[" * 100_000 + "\n"), ("stats.jsonl", '{"step": 1e9}\n'),
    ("watch.jsonl", '{"step": 1, "rate": 2}\n'), ("watch.jsonl", "x\n"),
    ("watch.jsonl", LOOK.replace("LEANING", '{"share": 2, "low": 0, "high": 1, "points": "test"}')),
    ("levels.json", '{"format": "geomem.levels/1", "edges": [1, 2], "steps": [-1], "early_stop": 0}'),
    ("levels.json", '{"format": "geomem.levels/1", "edges": [1, 2], "steps": [1' + "0" * 400 + '], "early_stop": 0}'),
])
def test_damaged_training_files_are_missing_parts(name, change, copied):
    (copied / name).write_text(change)
    facts = Collector([str(copied)], seeds=[0, 1], device="cpu").facts()[0]
    assert [part.why for part in facts.missing if name.split(".")[0] in part.why], facts.missing


@pytest.mark.slow
@pytest.mark.parametrize("change", [
    {"sampler": {"kind": "unknown"}}, {"sampler": "gap"}, {"settings": [1]}, {"settings": {}}, {"engine": 3},
    {"sampler": {"kind": "gap", "gaps": [[1, 2]] * 100_000, "base": {"kind": "uniform"}, "keep": 0}},
    {"note": "x" * 3_000_000},
], ids=range(7))
def test_damaged_configs_give_a_small_page(change, copied, tmp_path):
    edited(copied / "config.json", lambda config: config.update(change))
    text = page_of(tmp_path, copied, "--seeds", "0-3")
    require_sound(text)
    assert len(text) < 1_500_000


def test_no_run_is_refused_in_one_line(runs, copied, tmp_path, capsys):
    config = copied / "config.json"
    edited(config, lambda document: document.update({"labels": list(range(50_000))}))
    for arguments, words in (([copied], ""), ([tmp_path], "config.json"), ([runs / "plain"] * 13, "at most 12"),
                             ([copied], "not JSON"), ([runs / "plain", "--out", tmp_path / "p.txt"], ".html"),
                             ([tmp_path / "none", "--out", config / "p.html"], "cannot be written")):
        assert status("report", "--out", tmp_path / "p.html", *arguments) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("geomem:")
        assert words in last
        assert len(last) < 500
        config.write_text("[" * 100_000)
    assert not (tmp_path / "p.html").exists()


def test_samples_and_folders_of_diffusers_have_a_page_of_their_own(tmp_path, capsys):
    np.savez(tmp_path / "samples.npz", samples=np.zeros((3, 4), dtype=np.float32))
    for folder in ("pictures", "pipeline"):
        (tmp_path / folder).mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "pictures" / "0.png")
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    for name, what in (("samples.npz", "is a file"), ("pictures", "holds samples"),
                       ("pipeline", "is a diffusers folder")):
        assert status("report", tmp_path / name, "--out", tmp_path / "p.html") == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith(f"geomem: {tmp_path / name} {what}, ")
        assert last.endswith(f": geomem audit {tmp_path / name} --data DATA --out DIR")


def test_huge_files_are_not_read(copied, tmp_path, monkeypatch):
    size = sum(part.file_size for part in zipfile.ZipFile(copied / "memorization" / "samples.npz").infolist())
    monkeypatch.setattr(saved, "MAX_SAMPLES_BYTES", size - 1)
    monkeypatch.setattr("geomem.report.collect.read_samples", None)
    words = words_of(tmp_path, copied, "--seeds", "0-3")
    assert f"samples.npz unpacks to {size:,} bytes" in words
    (copied / "large.json").write_text(" " * saved.MAX_JSON_BYTES + "{}")
    ignored: list[str] = []
    documents = saved.documents_in(copied, "any", saved.memorization, ignored.append)
    assert "large.json" not in {path.name for path, _ in documents}
    assert [reason for reason in ignored if "large.json is larger than" in reason]


def test_links_out_of_a_run_are_not_followed(copied, tmp_path):
    (tmp_path / "secret.json").write_text("{}")
    (copied / "link.json").symlink_to(tmp_path / "secret.json")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.json").write_text("{}")
    (copied / "folder").symlink_to(tmp_path / "elsewhere")
    assert {path.name for path in saved.files_in(copied, ".json")} == {
        "config.json", "levels.json", "danger-zone.json", "curves.json", "memorization.json"}


@pytest.mark.parametrize("kind", ["signals", "vectors", "colour"])
def test_other_points_than_grey_images(kind, copied, tmp_path):
    rng = np.random.default_rng(0)
    points = {"signals": rng.normal(size=(60, 1, 40)), "vectors": rng.normal(size=(60, 5)),
              "colour": rng.integers(0, 256, size=(60, 8, 8, 3)).astype(np.uint8)}[kind]
    np.savez(tmp_path / "data.npz", train=points[:30], heldout=points[30:])
    assert status("train", tmp_path / "data.npz", *SMALL[2:], "--out", tmp_path / "other") == 0
    page = require_sound(page_of(tmp_path, tmp_path / "other", "--seeds", "0-9"))
    pairs = [a for a in page.all("svg") if a["class"] == "line"] if kind != "colour" else [
        a for a in page.all("img") if a["class"] == "pair"]
    assert len(pairs) == 10 + 8 + (30 if kind != "colour" else 0)


def test_images_on_the_page_are_those_of_the_data():
    """Decoded again, the sheet holds the first images' own grey values, and nothing between them."""
    data = load_data("digits", n_train=20)
    markup = str(pictures.sheet(data.train[:20], "digits"))
    content = base64.b64decode(re.search("base64,([^\"]+)", markup)[1])
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    assert pixels.shape == (3 * 9 - 1, 8 * 9 - 1, 2)
    expected = np.round((np.array(data.train[9, 0]) + 1) * 127.5)
    np.testing.assert_allclose(pixels[9:17, 9:17, 0], expected, atol=1)
    assert (pixels[9:17, 9:17, 1] == 255).all()
    assert (pixels[8, :, 1] == 0).all()
    assert (pixels[18:, 4 * 9:, 1] == 0).all(), "the fifth place of the third row is empty"


def test_large_images_become_small_ones_and_lines_of_a_signal_are_its_values():
    big = np.random.default_rng(0).uniform(-1, 1, (2, 3, 512, 300)).astype(np.float32)
    markup = str(pictures.pair(*big, (-1, 1), "pair"))
    assert len(markup) < 60_000
    assert 'height="96"' in markup
    markup = str(pictures.lines([np.array([0.0, 1.0, 0.5]), np.array([1.0, 1.0, 0.0])], "signal"))
    assert 'points="1.0,39.0 50.0,1.0 99.0,20.0"' in markup
    assert 'class="second" points="1.0,1.0 50.0,1.0 99.0,39.0"' in markup


def test_text_is_cut_and_rows_are_thinned():
    assert (short("x" * 300), len(short("x" * 10**6)) < 350) == ("x" * 300, True)
    assert (thinned(range(5), 10), thinned(range(1000), 3)) == ([0, 1, 2, 3, 4], [0, 500, 999])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "1", None, 1e31, [1]])
def test_numbers_of_files_are_checked(value):
    for check in (lambda: saved.number(value), lambda: saved.numbers([0.5, value], 0, 1),
                  lambda: saved.share({"rate": value, "low": 0, "high": 1, "n": 3})):
        with pytest.raises((ValueError, TypeError)):
            check()


@pytest.mark.parametrize("sigma", [[], [0, 1], [2, 1], [1, 1], [-1, 2], "12", [1] * 3000, [1e-20, 1]])
def test_noise_levels_of_files_are_checked(sigma):
    with pytest.raises(ValueError):
        saved.levels(sigma)


def luminance(colour):
    """WCAG 2.1, relative luminance of #rrggbb."""
    channels = [int(colour[k:k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_reaches_wcag_aa_in_light_dark_and_print():
    style = (Path(geomem.__file__).parent / "report" / "templates" / "style.css").read_text()
    blocks = re.findall(r":root {(.*?)}", style, re.S)
    looks = [dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", block)) for block in blocks]
    assert len(looks) == 3
    for look in looks:
        look = {name: "#" + "".join(2 * c for c in value[1:]) if len(value) == 4 else value
                for name, value in look.items()}
        for name, ground in product(("text", "soft", "link", "copy", "clean", "open"), ("page", "card")):
            light, dark = sorted((luminance(look[name]), luminance(look[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, ground, look)


def test_templates_are_in_the_wheel():
    text = (Path(geomem.__file__).parent.parent / "setup.cfg").read_text()
    assert "geomem.report = templates/*" in text
