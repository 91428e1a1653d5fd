"""Detections of overlapping chips in, whole instances out: strip agreement.

Two detections from different chips are one building when their masks agree inside the strip that
both chips see. `pieces` says what is matched, `agree` measures pairs, `group` unites them without
letting one bad mask fuse its neighbours, `merge` blends each group's soft masks, and `sweep` runs
this row by row in the memory of the chip rows still in touch. Frame: pixels of the scene's grid.
"""

from geoseg.stitch.group import StitchOptions
from geoseg.stitch.merge import Instance
from geoseg.stitch.sweep import Stitcher, stitch

__all__ = ["Instance", "StitchOptions", "Stitcher", "stitch"]
