"""The one family of errors and warnings.

A `GeosegError` is the user's to mend: its message is one line that says what must hold, what came
and what to do next; the command line prints it without a traceback. Each also subclasses the
builtin a library caller would expect. Broken invariants are `assert`s, not errors.
"""

from __future__ import annotations


class GeosegError(Exception):
    """Base of every error that a user can mend."""


class ConfigError(GeosegError, ValueError):
    """A parameter, config key or combination of options is out of its range."""


class InputNotFoundError(GeosegError, FileNotFoundError):
    """An input path does not exist."""


class SceneError(GeosegError, ValueError):
    """A raster cannot be used as a scene: not a raster, no CRS, no geotransform, too few bands."""


class ReadError(GeosegError, OSError):
    """Pixels of a window could not be read: truncated or corrupt data, a lost connection."""


class VectorError(GeosegError, ValueError):
    """A vector input is unreadable, empty or does not touch the scene."""


class ModelError(GeosegError, ValueError):
    """A model name, weights file or model output does not fit what is asked of it."""


class DeviceError(GeosegError, RuntimeError):
    """The compute device asked for is not there, or its memory does not hold one chip."""


class FormatError(GeosegError, ValueError):
    """A file is not of the format or schema it should have."""


class OutputError(GeosegError, OSError):
    """An output cannot be written: no folder, read-only, unknown extension, disk full."""


class BusyError(GeosegError, RuntimeError):
    """Another run holds the folder."""


class ClusterError(GeosegError, ConnectionError):
    """A Dask cluster cannot be reached, is lost on the way or does not fit."""


class ServerError(GeosegError, ConnectionError):
    """An OpenStreetMap server cannot be used: its address, its answer, or what it holds."""


class LostReplyError(ServerError):
    """A request got no answer, or a broken one: whether it was carried out is not known."""


class RefusedError(ServerError):
    """The server said no: nothing of the request was carried out."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class MissingExtraError(GeosegError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class GeosegWarning(UserWarning):
    """Base of every warning geoseg emits."""


class ResolutionWarning(GeosegWarning):
    """The scene's ground resolution is outside the range the model was trained on."""


class FormatWarning(GeosegWarning):
    """The chosen output format loses something."""
