"""``geomem danger-zone``: the printed tables."""

from __future__ import annotations

from typing import Any

from geomem.errors import counted, duration


def text_of(document: dict[str, Any]) -> str:
    """The document for people."""
    data, zone, settings = document["data"], document["zone"], document["settings"]
    lines = [f"{data['name']}: {data['n_train']:,} training and {counted(data['n_heldout'], 'held-out point')} of "
             f"{counted(data['dim'], 'value')}" + (
                 f"; {counted(data['duplicates'], 'duplicate')}" if data["duplicates"] else "")
             + (f"; {data['merged']:,} training and {counted(data['merged_heldout'], 'held-out point')} merged with "
                "an equal or near-equal one" if data["merged"] or data["merged_heldout"] else ""),
             "", *_curves_table(document), ""]
    lines += [f"no danger zone: {document['zone_reason']}"] if zone is None else _zone_lines(zone, document)
    lines.append(f"draws        {settings['posterior_draws']} per training and {settings['coverage_draws']} per "
                 "held-out point")
    if "variance_kept" in (space := document["space"]):
        lines.append(f"space        {space['dim']:,} principal components of {space['data_dim']:,} values, "
                     f"{space['variance_kept']:.1%} of the variance of the training points; W and C are those of the "
                     "projected points")
    if latents := document.get("latents"):
        lines.append(f"latents      {latents['of']} of the posterior of {latents['vae']}, whose standard deviation is "
                     f"{latents['posterior_std']:.3g} (root mean square)")
    lines += [f"note         {note}" for note in document["notes"]]
    below, above, disjoint = (document["thresholds"][name]
                              for name in ("concentrated_below", "spread_above", "disjoint_below"))
    lines.append(f"Theorem 4.2  on average one training point holds the weight below sigma {below['mean']:.3g}"
                 + (f", no longer above {above['mean']:.3g}" if above else "")
                 + (f"; shells disjoint below {disjoint:.3g}" if disjoint is not None else ""))
    return "\n".join(lines + _class_table(document.get("classes", [])))


def cost_text(document: dict[str, Any]) -> str:
    """What ``--dry-run`` found, for people."""
    data, work, rates = document["data"], document["work"], document["rates"]
    products = ", ".join(f"{work[name] / 1e9:,.3g} GFLOP of {kind} at {rates[name] / 1e9:,.3g} GFLOP/s"
                         for name, kind in (("products32", "float32"), ("products64", "float64")))
    return "\n".join([
        f"{data['name']}: {data['n_train']:,} training and {counted(data['n_heldout'], 'held-out point')} of "
        f"{counted(data['dim'], 'value')}, {counted(document['levels'], 'level')}; nothing was measured",
        f"looks from   {document['queries'][0]:,} training and {counted(document['queries'][1], 'held-out point')}, "
        f"{document['draws'][0]} and {document['draws'][1]} draws each; {counted(document['passes'], 'pass')}",
        f"products     {products}",
        f"elementwise  {work['steps'] / 1e9:,.3g} billion steps at {rates['steps'] / 1e9:,.3g} billion a second",
        f"memory       {document['bytes'] / 2**20:,.0f} MiB at most beside points and libraries (--memory)",
        f"time         about {duration(document['seconds'])} on {document['device']}, "
        f"{counted(document['threads'], 'thread')}, {counted(document['processes'], 'process')}; the zone "
        "refined; without --per-class and --tolerance"])


def _curves_table(document: dict[str, Any]) -> list[str]:
    curves, zone = document["curves"], document["zone"]
    lines = [f"{'sigma':>8}  {'posterior weight W':^24}  {'coverage C':^24}  {'bounds on C (Thm 4.8)':>21}"]
    for k, sigma in enumerate(curves["sigma"]):
        inside = zone is not None and zone["sigma_low"] <= sigma <= zone["sigma_high"]
        estimates = "".join(f"  {curve['estimate'][k]:{width}.4f} [{curve['low'][k]:.4f}, {curve['high'][k]:.4f}]"
                            for curve, width in ((curves["max_posterior_weight"], 8), (curves["coverage"], 6)))
        lines.append(f"{sigma:8.3g}{estimates}  {curves['coverage_lower_bound'][k]:8.4f} - "
                     f"{curves['coverage_upper_bound'][k]:.4f}" + ("  danger" if inside else ""))
    return lines


def _zone_lines(zone: dict[str, Any], document: dict[str, Any]) -> list[str]:
    lines = [f"danger zone  sigma {_span(zone)}  (W and C both >= {zone['threshold']:g})"]
    if zone["crossing"] is not None:
        lines.append(f"crossing     sigma {_crossing(zone)}")
    steps = zone["ddpm_timesteps"]
    lines.append(f"holds        {zone['edm_mass']:.1%} of the noise levels of EDM's published law; DDPM timesteps "
                 + (f"{steps[0]} to {steps[1]}" if steps else "none"))
    if zone["resolution"] is not None:
        lines.append(f"read         between levels {zone['resolution']:.2g} apart in log sigma "
                     f"({counted(document['levels_added'], 'level')} added); intervals: points resampled, 95%")
    return lines + ([f"note         {zone['note']}"] if zone["note"] else [])


def _span(zone: dict[str, Any]) -> str:
    return " to ".join(_value(zone[name], *(zone[f"{name}_interval"] or (None, None)))
                       for name in ("sigma_low", "sigma_high"))


def _crossing(zone: dict[str, Any]) -> str:
    return _value(zone["crossing"], zone["crossing_low"], zone["crossing_high"])


def _value(value: float, low: float | None, high: float | None) -> str:
    return f"{value:#.4g}" + ("" if low is None else f" [{low:#.4g}, {high:#.4g}]")


def _class_table(classes: list[dict[str, Any]]) -> list[str]:
    if not classes:
        return []
    names = [str(part["class"] if part.get("name") is None else part["name"]) for part in classes]
    width = max(5, *map(len, names))
    lines = ["", f"{'class':>{width}}  {'training':>8}  {'held-out':>8}  {'danger zone, sigma':^49}  crossing, sigma"]
    for part, name in zip(classes, names, strict=True):
        zone, data = part["zone"], part["data"]
        lines.append(f"{name:>{width}}  {data['n_train']:>8,}  {data['n_heldout']:>8,}  " + (
            f"none: {part['zone_reason']}" if zone is None else
            f"{_span(zone):<49}  {'none' if zone['crossing'] is None else _crossing(zone)}"))
    if limited := [name for part, name in zip(classes, names, strict=True) if part["notes"]]:
        lines.append("note         wider than the tolerance somewhere, for want of points or draws: class "
                     + ", ".join(limited))
    return lines
