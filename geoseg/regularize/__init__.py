"""Regular outlines: from what a network sees to what is built.

`regularize` takes outlines one by one: main directions from the dense contour, the cheapest
sequence of walls around it, lines fitted to these, their corners, and a guard that keeps the raw
outline where the answer is far from it. `share_walls` then lets neighbours meet in one wall.
"""

from geoseg.regularize.neighbours import share_walls
from geoseg.regularize.options import RegularizeOptions
from geoseg.regularize.regular import Regularized, regularize

__all__ = ["RegularizeOptions", "Regularized", "regularize", "share_walls"]
