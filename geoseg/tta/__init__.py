"""Test-time augmentation on instances: a chip seen from several sides, what is found merged.

`options` says from which sides and how to merge, `views` shows a chip from a side and brings back
what is found there, `merge` makes instances of several views one, and `predictor` does all of this
in the place of a plain predictor. Works with anything that streams detections; no torch.
"""

from geoseg.tta.merge import merge_views
from geoseg.tta.options import TtaOptions, ViewSet
from geoseg.tta.predictor import ChipPredictor, ViewsPredictor
from geoseg.tta.views import View, make_views

__all__ = [
    "ChipPredictor",
    "TtaOptions",
    "View",
    "ViewSet",
    "ViewsPredictor",
    "make_views",
    "merge_views",
]
