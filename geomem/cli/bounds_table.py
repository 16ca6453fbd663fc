"""``geomem bounds``: the printed tables."""

from __future__ import annotations

from typing import Any

from geomem.errors import counted


def text_of(document: dict[str, Any]) -> str:
    """The document for people."""
    data, settings = document["data"], document["settings"]
    head = (f"{data['name']}: {data['n_train']:,} training and {counted(data['n_heldout'], 'held-out point')} of "
            f"{counted(data['dim'], 'value')}" + (
                f"; {counted(data['duplicates'], 'duplicate')}" if data["duplicates"] else ""))
    below, above, disjoint = (document["thresholds"][name]
                              for name in ("concentrated_below", "spread_above", "disjoint_below"))
    law, q = document["gaussian"], settings["q"]
    looked = [min(data[part], settings["queries"]) for part in ("n_train", "n_heldout")]
    if looked != [data["n_train"], data["n_heldout"]]:
        head += f"; looked from {looked[0]:,} and {looked[1]:,} random ones of them (--queries)"
    return "\n".join([
        head, "", *_curves_table(document), "",
        f"Theorem 4.2  with probability {1 - settings['delta']:g} one training point has weight {q:g} or more below "
        f"sigma {below['mean']:.3g} on average (smallest {below['min']:.3g}, largest {below['max']:.3g})"
        + (f", and {1 - q:.3g} or less above {above['mean']:.3g}" if above else ""),
        "Theorem 4.9  " + (f"all shells are disjoint below sigma {disjoint:.3g}" if disjoint is not None else
                           "not known from some of the training points" if looked[0] < data["n_train"] else
                           "all training points are equal"), "",
        *_near_table(document), "",
        f"Theorem 4.11 the optimal denoiser nears the Gaussian one as sigma^{law['slope']:.3f} "
        f"[{law['slope_low']:.3f}, {law['slope_high']:.3f}] (sigma {law['fit_sigma'][0]:.3g} to "
        f"{law['fit_sigma'][-1]:.3g}); the theorem says -2", *_sensitivity_lines(document), "",
        *_sizes_table(document), "", f"trend        {document['by_size']['trend']}"])


def _sensitivity_lines(document: dict[str, Any]) -> list[str]:
    whose = document["settings"]["model"] or "the Gaussian denoiser"
    lines = [f"Theorem 4.10 |J| of {whose}, how a value depends on those at wrap-around distance r: measured mean, "
             "largest (bound of the nearest periodic Gaussian model)"]
    for part in document["sensitivity"]:
        shown = [k for k, r in enumerate(part["distance"]) if r in (1, 2, 4, 8, 16, 32, 64)]
        lines.append(f"             sigma {part['sigma']:.3g}: " + "; ".join(
            f"r = {part['distance'][k]}: {part['mean'][k]:.2g}, {part['largest'][k]:.2g} ({part['bound'][k]:.2g})"
            for k in shown))
    return lines


def _curves_table(document: dict[str, Any]) -> list[str]:
    c, w, q = document["coverage"], document["max_posterior_weight"], document["settings"]["q"]
    lines = [f"{'':8}  {'':24}  {'Theorem 4.8, bounds on C':^24}  {'':17}  {'Theorem 4.2, share of points':^28}",
             f"{'sigma':>8}  {'coverage C':^24}  {'lower':>7} {'upper':>8} {'plain':>7}  {'weight W':^17}"
             f"  {f'w_1 >= {q:g}':>13} {f'w_1 <= {1 - q:.3g}':>14}"]
    lines += [
        f"{sigma:8.3g}  {c['estimate'][k]:6.4f} [{c['low'][k]:.4f}, {c['high'][k]:.4f}]  {c['lower_bound'][k]:7.4f} "
        f"{c['upper_bound'][k]:8.4f} {c['plain_upper_bound'][k]:7.4f}  {w['estimate'][k]:7.4f} -+ {w['stderr'][k]:.4f}"
        f"  {w['share_concentrated'][k]:13.1%} {w['share_spread'][k]:14.1%}"
        for k, sigma in enumerate(document["sigma"])]
    return lines


def _near_table(document: dict[str, Any]) -> list[str]:
    near, flow, law, settings = (document[part] for part in ("near_point", "flow", "gaussian", "settings"))
    both = f"{'bound':>11} {'measured':>11}"
    lines = [f"near a training point, means over {settings['points']:,} of them; each bound holds with probability "
             f"{near['probability']:.3g} or more",
             "(for a point where it says nothing it counts as w_1 >= 0 and cosine >= -1; - where it does for none)",
             f"{'':8}  {'Lemma A.1: weight w_1':^23}  {'|m - x_1|':^23}  {'Cor. A.2: flow cosine':^23}  Gaussian law",
             f"{'sigma':>8}  {both}  {both}  {both}  {'difference':>12}"]
    for k, sigma in enumerate(document["sigma"]):
        informative = near["informative"][k] > 0
        lines.append(f"{sigma:8.3g}  {_shown(near['weight_bound'][k], informative)} {near['weight'][k]:11.4f}"
                     f"  {_shown(near['distance_bound'][k], informative)} {near['distance'][k]:11.4g}"
                     f"  {_shown(flow['bound'][k], flow['informative'][k] > 0)} {flow['cosine'][k]:11.4f}"
                     f"  {law['difference'][k]:12.3g}")
    return lines


def _shown(bound: float, informative: bool) -> str:
    return f"{bound:11.4g}" if informative else f"{'-':>11}"


def _sizes_table(document: dict[str, Any]) -> list[str]:
    by_size, threshold = document["by_size"], document["settings"]["threshold"]
    sizes = by_size["sizes"]
    lines = ["coverage C with n training points, the mean over all subsets",
             f"{'sigma':>8}" + "".join(f"{f'n={n:,}':>10}" for n in sizes)]
    lines += [f"{sigma:8.3g}" + "".join(f"{row[k]:10.4f}" for row in by_size["coverage"])
              for k, sigma in enumerate(document["sigma"])]
    lines += ["", f"{'n':>8}  {f'C >= {threshold:g} from':>14} {f'W >= {threshold:g} up to':>16} {'crossing':>9} "
                  f"{'peak of min(W, C)':>18}"]
    for n, low, high, crossing, peak in zip(*(by_size[name] for name in (
            "sizes", "sigma_low", "sigma_high", "crossing", "peak")), strict=True):
        zone = low is not None and high is not None and low <= high
        lines.append(f"{n:8,}  {_sigma(low):>14} {_sigma(high):>16} {_sigma(crossing):>9} {peak:18.4f}"
                     + ("" if zone else "  no zone"))
    levels = document["sigma"]
    if len(levels) > 1:
        apart = (levels[-1] / levels[0]) ** (1 / (len(levels) - 1))
        lines.append(f"read between the levels above, a factor of {apart:.3g} apart; geomem danger-zone adds levels "
                     "where it reads, and gives intervals")
    return lines


def _sigma(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
