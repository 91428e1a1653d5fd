"""How good results are: chips against their annotations, footprints against outlines.

`coco_figures`, `mistakes` and `calibration` look at chips; `footprints`, `shapes` and `seams` at
finished maps; `report` draws what they say. pandas and matplotlib are imported where they are used.
"""

from geoseg.evaluate.coco_figures import CocoFigures, coco_figures
from geoseg.evaluate.footprints import (
    EvalResult,
    IouLevel,
    Matches,
    evaluate_footprints,
    match_footprints,
)

__all__ = [
    "CocoFigures",
    "EvalResult",
    "IouLevel",
    "Matches",
    "coco_figures",
    "evaluate_footprints",
    "match_footprints",
]
