"""Public aids for testing a footprints pipeline: a synthetic town, models that know it, checks.

`make_town` renders a town with exact truth; `write_town` puts it on disk; `oracle` and its kin read
the painted ids back as a perfect (or noisy, soft, blind) model; the `assert_*` helpers say what
every set of footprints must hold. Deterministic; torch is imported only when a model is built.
"""

from geoseg.testing.asserts import assert_footprints_valid, assert_no_overlaps
from geoseg.testing.files import TownFiles, mosaic_truth, write_town, write_town_mosaic
from geoseg.testing.oracle import blank, ids_to_rgb, noisy_oracle, oracle, soft_oracle
from geoseg.testing.town import Town, make_town
from geoseg.testing.worn import Wear, worn_masks

__all__ = [
    "Town",
    "TownFiles",
    "Wear",
    "assert_footprints_valid",
    "assert_no_overlaps",
    "blank",
    "ids_to_rgb",
    "make_town",
    "mosaic_truth",
    "noisy_oracle",
    "oracle",
    "soft_oracle",
    "worn_masks",
    "write_town",
    "write_town_mosaic",
]
