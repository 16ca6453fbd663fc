"""geomem law: what other trainers draw when they are told so, by their own rules written again."""

import json
import tomllib

import numpy as np
import pytest
import torch
from commands import status

from geomem.errors import InputError
from geomem.noise import FlowSchedule, GapSampler, LogitNormalSampler
from geomem.noise.trainers import STABLE_DIFFUSION, TRAINERS, law_for

N = 100_000
REFUSED = [("kohya", "keep"), ("onetrainer", "keep"), ("kohya", "shift"), ("diffusers-sdxl", "shift"),
           ("simpletuner", "side"), ("diffusers-sdxl", "side")]
GAPS = [(0.3, 1.5), (0.05, 0.2), (1.0, 4.0)]


def drawn(law):
    """Noise levels as the trainer draws them from the file that it is given."""
    rng = np.random.default_rng(0)
    text = law.text()
    if law.trainer == "simpletuner":  # SimpleTuner: sample_flow_sigmas with flow_custom_timesteps
        times = torch.tensor([float(part) for part in json.loads(text)["--flow_custom_timesteps"].split(",")])
        assert 1 < times.max() <= 1000
        assert times.min() >= 0
        return FlowSchedule().sigma_of(rng.choice(times.double().numpy(), N))
    if law.trainer == "kohya":  # sd-scripts: torch.randint(min_timestep, max_timestep)
        options = tomllib.loads(text)
        return STABLE_DIFFUSION.sigmas[rng.integers(options["min_timestep"], options["max_timestep"], N)]
    if law.trainer == "onetrainer":  # ModelSetupNoiseMixin._get_timestep_discrete, UNIFORM
        options = json.loads(text)
        low, high = (int(1000 * options[f"{end}_noising_strength"]) for end in ("min", "max"))
        shift, t = options["timestep_shift"], low + (high - low) * rng.uniform(size=N)
        t = (1000 * shift * t / ((shift - 1) * t + 1000)).astype(int)
        return STABLE_DIFFUSION.sigmas[t] if shift == 1 else FlowSchedule().sigmas[t]  # (t + 1) / 1000
    options = dict(line.removeprefix("--").split("=") for line in text.splitlines())  # generate_timestep_weights
    assert options["timestep_bias_strategy"] == "range"
    weights = torch.ones(1000)
    weights[int(options["timestep_bias_begin"]):int(options["timestep_bias_end"])] *= float(
        options["timestep_bias_multiplier"])
    return STABLE_DIFFUSION.sigmas[torch.multinomial(weights, N, replacement=True, generator=torch.Generator()
                                                     .manual_seed(0)).numpy()]


@pytest.mark.parametrize("options", [{}, {"keep": 0.2}, {"shift": 3.0}, {"side": "below"}], ids=str)
@pytest.mark.parametrize("gap", GAPS, ids=str)
@pytest.mark.parametrize("trainer", TRAINERS)
def test_trainers_draw_what_is_said(trainer, gap, options):
    if (trainer, *options) in REFUSED:
        with pytest.raises(InputError, match=r"leave (it|the shift|the side) out") as caught:
            law_for(trainer, gap, **options)
        assert "\n" not in str(caught.value)
        return
    law = law_for(trainer, gap, **options)
    sigma = drawn(law)
    inside = ((sigma >= gap[0]) & (sigma <= gap[1])).mean()
    assert abs(inside - law.mass_in_gap) < 5 * np.sqrt(law.mass_in_gap / N) + 1e-9
    assert law.mass_in_gap < 1e-5 or options.get("keep")
    assert law.probability.sum() == pytest.approx(1)
    levels, counts = np.unique(sigma, return_counts=True)
    expected = N * law.probability[np.abs(np.log(levels)[:, None] - np.log(law.sigma)).argmin(1)]
    assert np.abs(counts - expected).max() < 6 * np.sqrt(expected.max())
    if options.get("side"):
        assert sigma.max() < gap[0]


def test_what_is_left_untrained():
    law = law_for("kohya", (0.3, 1.5), side="above")
    below = (STABLE_DIFFUSION.sigmas < 0.3).mean()
    assert law.mass_untrained == pytest.approx(below)
    assert law_for("kohya", (0.3, 1.5), side="below").mass_untrained == pytest.approx(
        (STABLE_DIFFUSION.sigmas > 1.5).mean())


def test_simpletuner_list_is_the_gapped_law():
    law = law_for("simpletuner", (0.3, 1.5), shift=2.0, levels=500, keep=0.2)
    whole = GapSampler(LogitNormalSampler(shift=2.0), (0.3, 1.5), keep=0.2)
    assert np.abs(whole.cdf(np.sort(law.sigma)) - (np.arange(500) + 0.5) / 500).max() < 1e-4
    assert law.mass_in_gap == pytest.approx(float(np.exp(whole.log_prob(np.linspace(0.3, 1.5, 10_001))).mean() * 1.2),
                                            abs=1 / 500)


def test_schedule_of_stable_diffusion():
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
    np.testing.assert_allclose(STABLE_DIFFUSION.alpha_bar, theirs, rtol=1000 * 2**-23)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_command(trainer, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert status("law", "0.3:1.5", "--for", trainer, "--out", "options") == 0
    said = capsys.readouterr().out
    text = (tmp_path / "options").read_text()
    assert text == law_for(trainer, (0.3, 1.5)).text()
    assert text.strip() in said
    assert "in the gap" in said
    assert status("law", "0.3:1.5", "--for", trainer, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["format"] == "geomem.law/1"
    assert (document["trainer"], document["gap"]) == (trainer, {"sigma_low": 0.3, "sigma_high": 1.5})


@pytest.mark.parametrize(("words", "expected"), [
    (["nothing", "--for", "kohya"], "ZONE 'nothing' is not LO:HI"),
    (["0.3:1.5", "--for", "kohya", "--flow-shift", "3"], "no flow times"),
    (["0.3:1.5", "--for", "onetrainer", "--gap-keep", "0.1"], "cannot keep a share"),
    (["0.3:1.5", "--for", "kohya", "--levels", "30"], "no list of flow times"),
    (["0.3:1.5", "--for", "simpletuner", "--side", "above"], "both sides of the gap"),
    (["50:60", "--for", "kohya", "--side", "above"], "no timestep lies above"),
    (["50:60", "--for", "diffusers-sdxl"], "nothing to leave out"),
    (["0:1e9", "--for", "simpletuner"], "leaves no noise level"), (["0.3:1.5", "--for", "fluxgym"], "'fluxgym'")])
def test_bad_input_is_one_line(words, expected, capsys):
    assert status("law", *words) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.strip().splitlines()) == 1
