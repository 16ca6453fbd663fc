"""``geomem forecast``: after how many steps will a training lean on its points, or copy them?"""

from __future__ import annotations

from typing import Any

import click

from geomem.cli.options import data_options, device_option, json_option, load, require_data
from geomem.cli.output import answer, progress_bar, warn
from geomem.cli.train import training_options


class Parts(click.ParamType):
    """``8,4``: whole numbers, which the library judges."""

    name = "K,K,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        words = [word.strip() for word in value.split(",")]
        if not all(word.isdecimal() and 0 < len(word) < 10 for word in words):
            self.fail(f"{value!r} is no list of whole numbers such as 8,4", param, ctx)
        return tuple(int(word) for word in words)


@click.command()
@data_options
@click.option("--out", required=True, metavar="DIR", type=click.Path(file_okay=False),
              help="Write forecast.json, forecast.png and the run of each part to this directory.")
@click.option("--parts", type=Parts(), default="8,4", show_default=True,
              help="Train on the Kth part of the points, one after another, each part on points of its own. More parts "
                   "narrow the interval and take longer.")
@click.option("--until", type=click.Choice(["leaning", "copies"]), default="leaning", show_default=True,
              help="When a part ends: copies come later than leaning, which is then seen too.")
@training_options
@click.option("--resume", is_flag=True, help="Go on where the same command stopped.")
@device_option
@json_option
def forecast(data: str, as_json: bool, **options: Any) -> None:
    """How many steps until samples lean on the training points of DATA, or copy them?

    Parts of the points are trained on with the options of the training to come, until leaning has set in on each: fewer
    points are learned by heart sooner. A line through these steps tells those on all points, with a 95% interval, or
    says why it cannot be told. The parts take at most 40% of --iterations.

    Example: geomem forecast digits --iterations 2000 --out forecast
    """
    require_data(data, options["heldout"])
    from geomem.run_forecast import forecast as foretold
    from geomem.training import Interrupted, TrainingDiverged

    said = click.get_current_context().get_parameter_source("objective") is click.core.ParameterSource.COMMANDLINE
    if options["init"] and not said:
        options["objective"] = None
    try:
        with progress_bar(1, "forecast", "step") as bar:
            document = foretold(data, progress=bar.to, load=load, **options).to_dict()
    except Interrupted as stop:
        warn("geomem: stopped and saved; repeat the command with --resume to go on")
        raise SystemExit(128 + stop.signal_number) from None
    except TrainingDiverged as error:
        warn(f"geomem: {error}")
        raise SystemExit(1) from None
    answer(document, _text, as_json)


def _text(document: dict[str, Any]) -> str:
    from geomem.training.forecast import EVENTS, words

    lines = [f"{'points':>8}  {'steps':>7}  {'leaning at':>10}  {'copies at':>9}  held-out loss smallest at"]
    for part in document["parts"]:
        lean, copies = ("-" if part[event] is None else f"{part[event]:,.0f}" for event in EVENTS)
        best = "-" if part["early_stop"] is None else f"{part['early_stop']:,}"
        lines.append(f"{part['n']:8,}  {part['steps']:7,}  {lean:>10}  {copies:>9}  "
                     + ("the end, still falling" if part["falling"] else best))
    lines += ["", f"On all {document['n']:,} points:"]
    for event in EVENTS:
        onset = document[event]
        lines.append(f"  {event:8}" + (f"cannot tell: {onset['reason']}" if onset["step"] is None else
                                       f"sets in at {words(onset)}"))
    if document["best_from"] is not None:
        lines.append(f"  held-out loss smallest at step {document['best_from']:,} or later")
    share = document["share"]
    return "\n".join([*lines, f"The parts took as long as {document['price']:,.0f} steps on all points"
                      + ("" if share is None else f", {share:.0%} of those until {document['until']}") + "."])
