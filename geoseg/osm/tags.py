"""Tags: what the objects of a footprint say, from a template, in text that OSM can hold.

Must not import osmium.
"""

from __future__ import annotations

import re
import string
import unicodedata
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self

from geoseg.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from geopandas import GeoDataFrame

    from geoseg.osm.elements import Tags

MAX_TEXT: Final = 255
"""Most characters of a key or a value; the server refuses more."""

DEFAULT_TAGS: Final[Tags] = MappingProxyType({"building": "yes"})
FIELDS: Final = ("id", "label", "score", "scene", "model")
"""What a value may quote of a footprint, in braces."""

_FORBIDDEN: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories no text may hold: control characters, halves of pairs, line separators."""
_NO_CHARACTERS: Final = re.compile(r"[\ufdd0-\ufdef\ufffe\uffff]")


def clean_text(text: str) -> str:
    r"""Return text that OSM's files and server take: no control characters, 255 characters.

    A NUL in a tag ends libosmium's process, and other control characters make XML that no reader
    takes; runs of blanks become one, as editors complain about them.

    Example:
        >>> clean_text(" old\x00\tmill ")
        'old mill'
    """
    kept = (" " if unicodedata.category(c) in _FORBIDDEN else c for c in text)
    plain = _NO_CHARACTERS.sub("", "".join(kept))
    return " ".join(plain.split())[:MAX_TEXT].rstrip()


def clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    r"""Return tags with clean texts, by key; those without a key or a value are left out.

    Example:
        >>> clean_tags({"building": "yes", "name\n": "", "": "x"})
        {'building': 'yes'}
    """
    cleaned = ((clean_text(key), clean_text(value)) for key, value in tags.items())
    return {key: value for key, value in sorted(cleaned) if key and value}


@dataclass(frozen=True, slots=True, kw_only=True)
class TagTemplate:
    """Which tags a footprint's object gets.

    Values may quote the footprint: `{id}`, `{label}`, `{score}`, `{scene}`, `{model}`. By default
    they do not: what a mapper sees of an object is what it is, not who found it.

    Raises:
        ConfigError: A key or value is no text that OSM takes, or quotes what there is not.
    """

    tags: Tags = field(default_factory=lambda: DEFAULT_TAGS)
    """Of every object."""
    by_label: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    """For footprints of a label, over `tags`; None takes a tag away."""

    def __post_init__(self) -> None:
        for of in ({**self.tags}, *self.by_label.values()):
            for key, value in of.items():
                _check(key, value)
        for label in (None, *self.by_label):
            if not self._of(label):
                whose = "objects" if label is None else f"objects of the label {label!r}"
                raise ConfigError(f"{whose} must have a tag: give one, such as building=yes")

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """Read `KEY=VALUE` and `LABEL/KEY=VALUE`, over `building=yes`; no value removes a tag.

        Raises:
            ConfigError: A word is neither, or see the class.

        Example:
            >>> template = TagTemplate.parse(["roof:shape=flat", "hut/building=hut"])
            >>> template.tags
            {'building': 'yes', 'roof:shape': 'flat'}
            >>> template.by_label
            {'hut': {'building': 'hut'}}
        """
        tags = dict(DEFAULT_TAGS)
        by_label: dict[str, dict[str, str | None]] = {}
        for word in words:
            where, equals, value = word.partition("=")
            label, slash, key = where.rpartition("/")
            if not (equals and key and (label or not slash)):
                raise ConfigError(f"tags must be KEY=VALUE or LABEL/KEY=VALUE, got {word!r}")
            if slash:
                by_label.setdefault(label, {})[key] = value or None
            elif value:
                tags[key] = value
            else:
                tags.pop(key, None)
        return cls(tags=tags, by_label=by_label)

    @property
    def fields(self) -> frozenset[str]:
        """What is quoted of footprints."""
        values = [*self.tags.values()]
        values += [value for of in self.by_label.values() for value in of.values() if value]
        return frozenset(name for value in values for name in _fields(value))

    def fill(self, footprints: GeoDataFrame, *, model: str = "") -> list[Tags]:
        """Return the tags of each footprint; those without quotes share one mapping per label.

        Args:
            footprints: With the column `label`, and those that are quoted.
            model: What `{model}` stands for.
        """
        labels = footprints["label"].astype(str).tolist()
        plain: dict[str, Tags] = {
            label: self._of(label if label in self.by_label else None) for label in set(labels)
        }
        if not self.fields:
            plain = {label: clean_tags(tags) for label, tags in plain.items()}
            return [plain[label] for label in labels]
        names = sorted(self.fields - {"model"})
        columns = (footprints[name].tolist() for name in names)
        return [
            _filled(plain[label], {**dict(zip(names, values, strict=True)), "model": model})
            for label, *values in zip(labels, *columns, strict=True)
        ]

    def _of(self, label: str | None) -> dict[str, str]:
        merged = {**self.tags, **(self.by_label[label] if label is not None else {})}
        return {key: value for key, value in merged.items() if value}


def _filled(tags: Tags, row: Mapping[str, Any]) -> dict[str, str]:
    texts = {k: f"{v:.3g}" if isinstance(v, float) else str(v) for k, v in row.items()}
    return clean_tags({key: value.format_map(texts) for key, value in tags.items()})


def _check(key: str, value: str | None) -> None:
    for what, text in (("key", key), ("value", value)):
        if text is None:
            continue
        if not text or text != clean_text(text):
            raise ConfigError(
                f"a tag's {what} must be 1 to {MAX_TEXT} characters on one line, got {text[:40]!r}"
            )
    unknown = [name for name in _fields(value or "") if name not in FIELDS]
    if unknown:
        known = ", ".join(f"{{{name}}}" for name in FIELDS)
        raise ConfigError(f"a tag's value may quote {known}, got {value!r}")


def _fields(value: str) -> list[str]:
    try:
        parsed = list(string.Formatter().parse(value))
    except ValueError as error:
        raise ConfigError(
            f"braces in a tag's value must be closed or doubled: {value!r}"
        ) from error
    plain = all(not spec and not conversion for _, name, spec, conversion in parsed if name)
    return [name if plain else value for _, name, _, _ in parsed if name is not None]
