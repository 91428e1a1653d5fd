"""Configs: what may be set, and how it is read."""

from geoseg.config.load import (
    MAX_CONFIG_BYTES,
    MAX_CONFIG_DEPTH,
    dump_config,
    load_config,
    load_train_config,
    read_yaml,
)
from geoseg.config.options import (
    MAX_BATCH_SIZE,
    MAX_READERS,
    ChipOptions,
    Config,
    ModelOptions,
    ScaleOptions,
    SceneOptions,
)

__all__ = [
    "MAX_BATCH_SIZE",
    "MAX_CONFIG_BYTES",
    "MAX_CONFIG_DEPTH",
    "MAX_READERS",
    "ChipOptions",
    "Config",
    "ModelOptions",
    "ScaleOptions",
    "SceneOptions",
    "dump_config",
    "load_config",
    "load_train_config",
    "read_yaml",
]
