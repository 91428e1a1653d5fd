"""What is wrong with a document of annotations, one finding a line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that breaks or spoils training."""

    kind: str
    """Such as `missing image`; findings of one kind are counted together."""
    message: str
    """What must hold and what is there."""
    image: str | None = None
    """File name of the chip, where it is about one."""
    annotation: int | None = None
    """Id of the annotation, where it is about one."""

    def __str__(self) -> str:
        where = [self.image, None if self.annotation is None else f"annotation {self.annotation}"]
        return ": ".join([*(part for part in where if part), f"{self.kind}: {self.message}"])
