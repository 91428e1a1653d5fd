"""Steps on the masks of a chip, before they are stitched: all but one off unless asked for.

`lengths` reads radii and areas, `options` says which steps there are, `chain` puts them in order;
`atlas` and `elements` do the work on all masks of a chip at once, `reshape` erodes and dilates,
`claims` settles who owns a pixel, `fragments` joins and cuts. Frame: pixels of a chip.
"""

from geoseg.morphology.chain import refine, refine_chips
from geoseg.morphology.lengths import Measure, parse_area, parse_length
from geoseg.morphology.options import NO_STEPS, MorphologyOptions, reach_of, warn_of_nothing

__all__ = [
    "NO_STEPS",
    "Measure",
    "MorphologyOptions",
    "parse_area",
    "parse_length",
    "reach_of",
    "refine",
    "refine_chips",
    "warn_of_nothing",
]
