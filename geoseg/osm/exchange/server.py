"""Which server, whether it is the map that everybody uses, and what an upload there needs.

Addresses only: nothing here reaches a network. Must not import osmium.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from geoseg.errors import ConfigError

DEVELOPMENT_SERVER: Final = "https://master.apis.dev.openstreetmap.org"
"""A server for trying out: its map is nobody's."""

_LIVE: Final = ("openstreetmap.org", "osm.org")
_TRIAL: Final = ("dev.openstreetmap.org",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """What an upload to a server needs; checks itself.

    Raises:
        ConfigError: The server is the map that everybody uses, and the import guidelines were not
            read, or no discussion of the import is named.
    """

    server: str
    understands_guidelines: bool = False
    discussion_url: str | None = None

    def __post_init__(self) -> None:
        url = self.discussion_url
        if url is not None and not url.startswith(("https://", "http://")):
            raise ConfigError(f"the discussion's URL must begin with https://, got {url[:80]!r}")
        if not is_live(self.server):
            return
        if not self.understands_guidelines:
            raise ConfigError(
                f"{self.server} is the live map: read the import guidelines, discuss the import, "
                "then give --i-understand-the-import-guidelines"
            )
        if url is None:
            raise ConfigError(
                f"{self.server} is the live map: give --changeset-url, the page where the import "
                "was discussed"
            )


def check_server(url: str) -> str:
    """Return the address of a server without the API's path, checked.

    Raises:
        ConfigError: It is not an https address, or carries more than a host, port and path. Plain
            http is for this machine only: a token would travel in the clear.

    Example:
        >>> check_server("https://API.openstreetmap.org/api/0.6/")
        'https://api.openstreetmap.org'
    """
    shown = url[:120] if "@" not in url else "an address with a user name"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    if not host or not host.isascii() or not plain or any(c.isspace() for c in url):
        raise ConfigError(
            f"the server must be an address such as {DEVELOPMENT_SERVER}; got {shown}"
        )
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ConfigError(f"the server must be reached by https, as a token is sent; got {shown}")
    path = parts.path.rstrip("/").removesuffix("/api/0.6").removesuffix("/api").rstrip("/")
    name = f"[{host}]" if ":" in host else host.rstrip(".")
    return f"{parts.scheme}://{name}{f':{port}' if port else ''}{path}"


def is_live(server: str) -> bool:
    """Say whether an address is one of the map that everybody uses.

    Example:
        >>> is_live("https://api.openstreetmap.org"), is_live(DEVELOPMENT_SERVER)
        (True, False)
    """
    host = (urlsplit(server).hostname or "").rstrip(".").lower()
    return _below(host, _LIVE) and not _below(host, _TRIAL)


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine, by name or number."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _below(host: str, domains: tuple[str, ...]) -> bool:
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)
