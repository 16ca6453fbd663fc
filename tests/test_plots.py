"""Figures carry what they should; how they look is for eyes."""

import io

import matplotlib
import matplotlib.colors
import matplotlib.pyplot
import numpy as np
import pytest
import seaborn

from geomem import InputError, geometry_curves
from geomem.geometry import DangerZone
from geomem.plots import plot_closest, plot_curves, plot_noise_levels, plot_samples, plot_training
from geomem.plots.style import COLOURS, LOOK, RED

SIGMA = np.geomspace(0.02, 80, 12)


def document(zone=True, extras=True):
    weight, coverage = 1 / (1 + (SIGMA / 6) ** 3), 1 - 1 / (1 + (SIGMA / 1.3) ** 3)

    def curve(estimate):
        return {"estimate": list(estimate), "low": list(estimate - 0.02), "high": list(estimate + 0.02)}

    curves = {"sigma": list(SIGMA), "max_posterior_weight": curve(weight), "coverage": curve(coverage)}
    if extras:
        curves |= {"self_posterior_weight": curve(0.9 * weight), "coverage_lower_bound": list(0.8 * coverage),
                   "coverage_upper_bound": list(np.minimum(1, 1.5 * coverage))}
    found = {"sigma_low": 1.7, "sigma_high": 4.7, "crossing": 2.9, "crossing_low": 2.8, "crossing_high": 3.1}
    thresholds = {"concentrated_below": {"mean": 2.178}, "spread_above": {"mean": 460.2}, "disjoint_below": 0.094}
    return {"curves": curves, "zone": found if zone else None, "thresholds": thresholds if extras else None}


def rendered(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.tell()


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_look_is_that_of_seaborn():
    theirs = seaborn.axes_style("ticks") | seaborn.plotting_context("paper", font_scale=1.15)
    for key, value in LOOK.items():
        if "color" in key and isinstance(value, str):
            assert matplotlib.colors.same_color(value, theirs[key]), key
        else:
            assert value == (pytest.approx(theirs[key]) if isinstance(value, float) else theirs[key]), key
    np.testing.assert_allclose(COLOURS, seaborn.color_palette("colorblind"))


def test_curves_of_one_data_set():
    before, figure = dict(matplotlib.rcParams), plot_curves([("digits", document())])
    axes, = figure.axes
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_title()) == (
        "log", r"noise level $\sigma$ (data units)", "digits")
    texts = legend_texts(figure)
    assert {"danger zone 1.7–4.7", "crossing 2.9", "weight concentrated below 2.18"} <= set(texts)
    assert not any("spread above" in text for text in texts)  # 460 is beyond the noise levels drawn
    drawn = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(drawn["coverage C"].get_ydata(), document()["curves"]["coverage"]["estimate"])
    assert drawn["self weight"].get_linestyle() == "--"
    assert len(axes.collections) == 2  # the bands of W and C
    assert rendered(figure)
    assert (dict(matplotlib.rcParams), matplotlib.pyplot.get_fignums()) == (before, []), "nothing global is left behind"


def test_curves_without_zone_and_extras_and_of_several_data_sets():
    figure = plot_curves([("a", document(zone=False, extras=False))], title="mine")
    axes, = figure.axes
    assert legend_texts(figure) == ["max posterior weight W", "coverage C", "95% intervals"]
    assert (len(axes.lines), len(axes.patches), axes.get_title()) == (2, 1, "mine")
    figure = plot_curves([("one", document()), ("two", document(zone=False)), ("three", document())])
    axes, = figure.axes
    assert legend_texts(figure) == ["max posterior weight W", "coverage C", "one", "two", "three", "danger zone",
                                    "crossing", "95% intervals"]
    curves = [line for line in axes.lines if len(line.get_xdata()) == len(SIGMA)]
    assert [line.get_color() for line in curves] == [c for c in COLOURS[:3] for _ in range(2)]
    assert len(axes.patches) == 6  # two zones, two intervals of the crossing, two entries of the legend
    assert rendered(figure)


@pytest.mark.parametrize(("draw", "words"), [
    (lambda: plot_curves([]), "at least one"), (lambda: plot_curves([("stats", {"loss": 1})]), "stats: no curves"),
    (lambda: plot_training([]), "at least one"), (lambda: plot_noise_levels([]), "at least one"),
    *((lambda a=a, b=b: plot_samples(np.zeros(a), np.zeros(b), np.zeros(4), np.zeros(4, bool)), "cannot be drawn")
      for a, b in (((4, 2, 8, 8), (4, 2, 8, 8)), ((4, 1, 2, 8, 8), (4, 1, 2, 8, 8)), ((4, 8), (5, 8)),
                   ((0, 8), (0, 8)), ((4,), (4,)))),
])
def test_what_cannot_be_drawn_is_refused(draw, words):
    with pytest.raises(InputError, match=words):
        draw()


def test_curves_of_a_record_are_those_of_its_file():
    points = np.random.default_rng(0).standard_normal((30, 3))
    curves = geometry_curves(points[:20], points[20:], sigmas=[0.1, 1, 10])
    for lines in zip(*(plot_curves([("a", drawn)]).axes[0].lines for drawn in (curves, curves.to_dict())),
                       strict=True):
        np.testing.assert_array_equal(*(line.get_xydata() for line in lines))


def levels(scale):
    rate = 1 / (1 + SIGMA * scale)
    return {"sigma": list(SIGMA), "rate": list(rate), "low": list(rate * 0.9), "high": list(rate),
            "mse_train": list(SIGMA**2), "mse_heldout": list(SIGMA**2 * 1.5)}


@pytest.mark.parametrize("zone", [None, {"sigma_low": 1.0, "sigma_high": 2.0}, (1.0, 2.0),
                                  DangerZone(1.0, 2.0, None, None, None, 0.8)])
def test_noise_levels(zone):
    figure = plot_noise_levels([("no gap", levels(1)), ("best weights", levels(9))], zone=zone)
    rate, error = figure.axes
    assert "memorized" in rate.get_ylabel()
    assert "squared data units" in error.get_ylabel()
    assert (error.get_xscale(), error.get_yscale()) == ("log", "log")
    assert [line.get_linestyle() for line in error.lines] == ["-", "--", "-", "--"]
    np.testing.assert_allclose(error.lines[1].get_ydata(), SIGMA**2)  # dashed is training
    shaded = [] if zone is None else ["gap" if isinstance(zone, tuple) else "danger zone"]
    assert legend_texts(figure) == ["no gap", "best weights", "95% intervals", *shaded]
    assert len(rate.patches) - 1 == len(error.patches) == len(shaded)
    assert rate.lines[0].get_linewidth() > rate.lines[1].get_linewidth()  # or equal shares would hide the first
    assert rendered(figure)
    memorizing = levels(1) | {"mse_train": list(1e-30 * SIGMA**2)}  # an error of almost 0 leaves the others readable
    error = plot_noise_levels([("empirical optimal", memorizing)]).axes[1]
    assert error.get_ylim()[0] == pytest.approx(1.5 * SIGMA[0] ** 2 / 100)


def test_copies_among_the_closest_samples_are_framed():
    images = np.random.default_rng(0).standard_normal((5, 1, 4, 4))
    figure = plot_closest(images, images, np.arange(5.0), 9, copied=np.array([True, False, True, False, False]))
    assert red_frames(figure) == 2
    assert figure.get_suptitle().endswith("red frame: copies, 2 of these")
    assert red_frames(plot_closest(images, images, np.arange(5.0), 9)) == 0


def red_frames(figure):
    edges = [axes.spines["left"] for axes in figure.axes if axes.axison]
    return sum(e.get_visible() and matplotlib.colors.same_color(e.get_edgecolor(), RED) for e in edges)


@pytest.mark.parametrize("channels", [1, 3])
def test_images(channels):
    rng = np.random.default_rng(0)
    samples, nearest = rng.uniform(-1.2, 1.2, (11, channels, 6, 5)), rng.uniform(-1, 1, (11, channels, 6, 5))
    memorized = np.arange(11) % 3 == 0
    figure = plot_samples(samples, nearest, rng.uniform(size=11), memorized, shown=9)
    assert red_frames(figure) == 3  # 0, 3, 6 of the nine shown
    assert figure.get_suptitle().startswith("4 of 11 samples memorized (red frame); first 9 shown")
    image = np.asarray(figure.axes[2].images[0].get_array()).reshape(6, 11, -1)
    expected = (nearest[2].transpose(1, 2, 0) + 1) / 2
    np.testing.assert_allclose(image[:, 6:, :channels], expected)  # sample, one column of gap, nearest
    assert rendered(figure)


@pytest.mark.parametrize("shape", [(5, 30), (5, 2, 30)])
def test_signals(shape):
    rng = np.random.default_rng(0)
    samples, nearest = rng.standard_normal(shape), rng.standard_normal(shape)
    figure = plot_samples(samples, nearest, np.full(5, 0.2), np.full(5, True))
    assert red_frames(figure) == 5
    assert "shown" not in figure.get_suptitle()
    styles = [line.get_linestyle() for line in figure.axes[0].lines]
    assert styles == [style for style in ("-", "--") for _ in range(len(shape) - 1)]
    np.testing.assert_array_equal(figure.axes[1].lines[len(shape) - 1].get_ydata(), nearest[1].reshape(-1, 30)[0])
    assert rendered(figure)


def test_training_marks_the_chosen_step_of_each_band_and_the_early_stop():
    lines = [{"step": step, "loss": 1 / step, "heldout_mse": [one, two]}
             for step, one, two in ((10, 2.0, 0.6), (20, 1.0, 0.3), (30, 4.0, 0.2))]
    left, right, _ = plot_training(lines, {"edges": [0.1, 1, 10], "steps": [20, 30], "early_stop": 20}).axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), [1 / 10, 1 / 20, 1 / 30])
    curves = [line for line in right.lines if len(line.get_xdata()) == 3]
    np.testing.assert_allclose([line.get_ydata() for line in curves], [[2, 1, 4], [3, 1.5, 1]])
    dots = [(line.get_xdata()[0], line.get_ydata()[0]) for line in right.lines
            if line.get_marker() == "o" and len(line.get_xdata()) == 1]
    assert dots == [(20, 1), (30, 1)]
    assert any(list(line.get_xdata()) == [20, 20] for line in right.lines)
    assert len(plot_training([{"step": 1, "loss": 1.0}]).axes) == 1
