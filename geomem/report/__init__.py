"""One HTML page about one or several runs, for a reader who has never heard of geomem.

    found      what a run directory holds already, read with suspicion: sizes bounded, every number checked
    facts      what the page says, as frozen records
    verdict    from figures with intervals to sentences
    pictures   figures and points as data inside the page
    page       the template filled in

Nothing here computes a result: ``cli/report.py`` gathers or computes the facts.
"""

from geomem._renamed import renamed
from geomem.report.facts import DataFacts, Missing, RunFacts, SampleFacts
from geomem.report.page import render_page
from geomem.report.verdict import compare, frechet_difference, judge, share_difference

__all__ = ["DataFacts", "Missing", "RunFacts", "SampleFacts", "compare", "frechet_difference", "judge", "render_page",
           "share_difference"]
__getattr__ = renamed(__name__)
