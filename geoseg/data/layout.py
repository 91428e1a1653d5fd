"""Where chips and their annotations lie: crowdAI's folders, and plainer ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from geoseg.errors import InputNotFoundError

if TYPE_CHECKING:
    from pathlib import Path

SPLITS = ("train", "val", "test")
DOCUMENTS = ("annotation.json", "annotations.json", "coco.json")
SMALL_DOCUMENT = "annotation-small.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One part of a data set."""

    name: str
    images: Path
    """Folder that file names begin in."""
    document: Path
    """COCO annotations."""


def find_split(root: Path, name: str, *, small: bool = False) -> Split:
    """Find a split below a folder: `NAME/images` and `NAME/annotation.json`, as crowdAI has it.

    A folder of chips that `geoseg tile --labels` wrote, `NAME/chips` and `NAME/coco.json`, is one
    too, and so is a split whose images lie beside the document.

    Args:
        root: Folder with the splits.
        name: train, val or test.
        small: Take `annotation-small.json`.

    Raises:
        InputNotFoundError: There is none; the message says what was looked for.
    """
    folder = root / name
    wanted = _documents(small=small)
    document = _first_file(folder, wanted)
    if document is None:
        raise InputNotFoundError(
            f"no annotations of split {name!r}: {folder} must hold {' or '.join(wanted)}"
        )
    images = next((folder / d for d in ("images", "chips") if (folder / d).is_dir()), folder)
    return Split(name=name, images=images, document=document)


def images_beside(document: Path) -> Path:
    """Return where a document's images lie if nobody says so: `images/` beside it, or beside it."""
    folder = document.parent / "images"
    return folder if folder.is_dir() else document.parent


def escapes(name: str) -> bool:
    """Say whether a file name of a document is none inside the folder that names begin in."""
    outside = name.startswith(("/", "\\")) or ".." in name.split("/")
    return outside or not name.isprintable() or not name.strip("./")


def find_splits(root: Path, *, small: bool = False) -> list[Split]:
    """Return all splits below a folder, but for a test without annotations, as crowdAI's is.

    Raises:
        InputNotFoundError: There is none, or train or val has no annotations.
    """
    there = [name for name in SPLITS if (root / name).is_dir()]
    if not there:
        raise InputNotFoundError(f"{root} must hold at least one of {', '.join(SPLITS)}")
    documents = _documents(small=small)
    needed = [n for n in there if n != "test" or _first_file(root / n, documents)]
    return [find_split(root, name, small=small) for name in needed or there]


def _documents(*, small: bool) -> tuple[str, ...]:
    return (SMALL_DOCUMENT,) if small else DOCUMENTS


def _first_file(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)
