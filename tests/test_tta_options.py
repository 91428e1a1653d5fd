"""Options of test-time augmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from geoseg.errors import ConfigError
from geoseg.tta import TtaOptions

if TYPE_CHECKING:
    pass


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="agree_iou"):
        TtaOptions(agree_iou=1.5)
