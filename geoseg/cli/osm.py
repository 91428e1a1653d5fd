"""`geoseg osm`: new buildings to OpenStreetMap, and back."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from geoseg.cli import EXIT_PARTIAL
from geoseg.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geoseg.osm.exchange.plan import UploadPlan
    from geoseg.osm.exchange.revert import Reverted
    from geoseg.osm.exchange.server import Permission
    from geoseg.osm.exchange.upload import Uploaded

TOKEN_VARIABLE = "GEOSEG_OSM_TOKEN"
KEYRING_SERVICE = "geoseg-osm"
SHOWN = 10
_PATH = click.Path(path_type=Path)
_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_yes = click.option("--yes", is_flag=True, help="Do it. Without, only say what would be done.")


@click.group("osm")
def command() -> None:
    """Send new buildings to OpenStreetMap, or take them back.

    What geoseg finds is for people to review first: docs/osm.md begins with the rules of the
    community. The token is read from GEOSEG_OSM_TOKEN, or from the keyring (service geoseg-osm,
    user: the server's host).
    """


@command.command("upload")
@click.argument("files", nargs=-1, required=True, type=_PATH, metavar="FILE.osc...")
@click.option("--server", metavar="URL", help="OSM API 0.6 [the development server].")
@click.option("--comment", required=True, metavar="TEXT", help="What the changesets are about.")
@click.option("--source", metavar="TEXT", help="The imagery.")
@click.option("--hashtags", metavar="#A,#B", help="Hashtags of the changesets.")
@click.option("--changeset-url", metavar="URL", help="Page where the import was discussed.")
@click.option("--max-elements", type=int, metavar="N", help="Most elements of a changeset [5000].")
@click.option(
    "--max-bbox-km", type=float, metavar="KM", help="Longest side of a changeset's area [50]."
)
@click.option("--journal", type=_PATH, metavar="FILE", help="[FIRST-FILE.journal.jsonl]")
@click.option(
    "--i-understand-the-import-guidelines",
    "understands",
    is_flag=True,
    help="Needed for the live map, with --changeset-url.",
)
@_yes
@_json
def upload_command(
    files: tuple[Path, ...], *, journal: Path | None, yes: bool, as_json: bool, **parameters: Any
) -> int:
    """Send the new buildings of osmChange files, a changeset after the other.

    The journal says what was sent: the same command again goes on where it ended, and sends nothing
    twice.
    """
    from geoseg.osm.exchange.api import OsmApi
    from geoseg.osm.exchange.plan import plan_upload
    from geoseg.osm.exchange.upload import upload

    permission, tags = _permission_and_tags(parameters)
    limits = {
        k: parameters[k] for k in ("max_elements", "max_bbox_km") if parameters[k] is not None
    }
    plan = plan_upload(files, **limits)
    server, journal = permission.server, journal or _beside(files[0])
    if not yes:
        _show_plan(plan, tags, server, journal, as_json=as_json)
        return 0
    with OsmApi(server, _token(server), say=_say) as api, _resumable(journal):
        done = upload(
            plan,
            tags,
            api=api,
            permission=permission,
            journal_path=journal,
            run=secrets.token_hex(8),
            say=_say,
        )
    _show_uploaded(done, server, journal, as_json=as_json)
    return 0


@command.command("revert")
@click.argument("uploaded", type=_PATH, metavar="JOURNAL")
@click.option(
    "--journal", type=_PATH, metavar="FILE", help="Journal of the revert [JOURNAL.revert.jsonl]."
)
@_yes
@_json
def revert_command(uploaded: Path, journal: Path | None, *, yes: bool, as_json: bool) -> int:
    """Take back what JOURNAL says was uploaded, as far as nobody has touched it since.

    Exit code 3 if something is left, because others changed or use it.
    """
    from geoseg.osm.exchange.api import OsmApi
    from geoseg.osm.exchange.journal import read_journal
    from geoseg.osm.exchange.revert import preview, read_trace, revert

    trace = read_trace(read_journal(uploaded), uploaded)
    journal = journal or uploaded.with_name(f"{uploaded.name.removesuffix('.jsonl')}.revert.jsonl")
    if journal.resolve() == uploaded.resolve():
        raise ConfigError(f"{journal}: a revert needs a journal of its own")
    if not yes:
        with OsmApi(trace.server, "", say=_say) as api:
            done = preview(trace, api=api, say=_say)
    else:
        with OsmApi(trace.server, _token(trace.server), say=_say) as api, _resumable(journal):
            done = revert(
                uploaded, api=api, journal_path=journal, run=secrets.token_hex(8), say=_say
            )
    code = EXIT_PARTIAL if done.left else 0
    _show_reverted(done, code, did=yes, as_json=as_json)
    return code


def _permission_and_tags(parameters: dict[str, Any]) -> tuple[Permission, dict[str, str]]:
    from geoseg.osm.exchange.plan import changeset_tags
    from geoseg.osm.exchange.server import DEVELOPMENT_SERVER, Permission, check_server

    page = parameters["changeset_url"]
    permission = Permission(
        server=check_server(parameters["server"] or DEVELOPMENT_SERVER),
        understands_guidelines=parameters["understands"],
        discussion_url=page,
    )
    tags = changeset_tags(
        parameters["comment"],
        source=parameters["source"],
        hashtags=_hashtags(parameters["hashtags"]),
        discussion_url=page,
    )
    return permission, tags


def _token(server: str) -> str:
    """Return the token for a server, from the environment or a keyring."""
    token = os.environ.get(TOKEN_VARIABLE, "").strip() or _from_keyring(server)
    if not token:
        raise ConfigError(
            f"a token for {server} is needed: set {TOKEN_VARIABLE}, or store it in the keyring "
            f"under {KEYRING_SERVICE}"
        )
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigError(f"the token in {TOKEN_VARIABLE} must be letters, digits and dashes")
    return token


def _from_keyring(server: str) -> str:
    try:
        import keyring
    except ImportError:
        return ""
    try:
        found = keyring.get_password(KEYRING_SERVICE, urlsplit(server).hostname or "")
    except keyring.errors.KeyringError:  # none on this machine, or it stays locked
        return ""
    return (found or "").strip()


def _hashtags(text: str | None) -> list[str]:
    return [word for word in (text or "").replace(";", ",").split(",") if word]


def _beside(path: Path) -> Path:
    stem = path.name.removesuffix(".gz").removesuffix(".osc")
    return path.with_name(f"{stem}.journal.jsonl")


@contextmanager
def _resumable(journal: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(
            f"{journal} says how far it came, and the same command goes on"
        ) from error


def _say(text: str) -> None:
    click.echo(text, err=True)


def _show_plan(
    plan: UploadPlan, tags: dict[str, str], server: str, journal: Path, *, as_json: bool
) -> None:
    parts = [
        {
            "file": plan.files[plan.file_of[i]],
            "elements": data.n_elements,
            "buildings": sum(bool(t) for t in data.way_tags) + len(data.relations),
            "bbox": [round(value, 7) for value in plan.bounds_deg(i)],
        }
        for i, data in enumerate(plan.parts)
    ]
    if as_json:
        values = {"server": server, "tags": tags, "changesets": parts, "journal": str(journal)}
        click.echo(json.dumps({"exit_code": 0, "dry_run": True, **values}))
        return
    click.echo(f"would send to {server}")
    for number, part in enumerate(parts[:SHOWN], start=1):
        place = ", ".join(f"{value:.5f}" for value in part["bbox"])  # type: ignore[attr-defined]
        click.echo(
            f"  changeset {number}: {part['buildings']:,} buildings, "
            f"{part['elements']:,} elements within {place} ({part['file']})"
        )
    if len(parts) > SHOWN:
        click.echo(f"  and {len(parts) - SHOWN} more changesets")
    for key, value in tags.items():
        click.echo(f"  {key}={value}")
    click.echo("nothing was sent: review the buildings, then add --yes")


def _show_uploaded(done: Uploaded, server: str, journal: Path, *, as_json: bool) -> None:
    if as_json:
        values = {
            "server": server,
            "changesets": list(done.changesets),
            "elements": done.n_elements,
            "sent_before": done.n_before,
            "journal": str(journal),
        }
        click.echo(json.dumps({"exit_code": 0, **values}))
        return
    n = len(done.changesets)
    before = f", {done.n_before} of them before" if done.n_before else ""
    changesets = "1 changeset" if n == 1 else f"{n} changesets"
    click.echo(f"sent {done.n_elements:,} elements in {changesets}{before}")
    click.echo(f"to take them back: geoseg osm revert {journal}")


def _show_reverted(done: Reverted, code: int, *, did: bool, as_json: bool) -> None:
    if as_json:
        values: dict[str, Any] = {
            "changesets": list(done.changesets),
            "deleted": done.n_deleted,
            "gone": done.n_gone,
            "left": [list(pair) for pair in done.left],
        }
        click.echo(json.dumps({"exit_code": code, "dry_run": not did, **values}))
        return
    verb = "took back" if did else "would take back"
    click.echo(f"{verb} {done.n_deleted:,} objects; {done.n_gone:,} were gone before")
    for name, reason in done.left[:SHOWN]:
        click.echo(f"  {name} stays: {reason}")
    if len(done.left) > SHOWN:
        click.echo(f"  and {len(done.left) - SHOWN} more stay")
    if not did:
        click.echo("nothing was changed: add --yes to do it")
