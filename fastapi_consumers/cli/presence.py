"""``presence``: who is in a group."""

import asyncio
import json
from typing import Any

import click
from pydantic_core import from_json

from ..backends import presence_store
from ..exceptions import ImproperlyConfigured, Problem
from ..groups import check_group
from ..presence import Roster
from ..transports.urls import seconds_of, transport_of
from .commands import json_option, timeout_option, url_option


@click.command(short_help="Print who is in a group with presence.")
@click.argument("group")
@url_option
@click.option(
    "--presence-url",
    envvar="FASTAPI_CONSUMERS_PRESENCE_URL",
    show_envvar=True,
    help="Where the application keeps who is there, if that is not the broker.",
)
@click.option("--count", "count_only", is_flag=True, help="Print only how many there are.")
@timeout_option
@json_option
def presence(group: str, url: str, presence_url: str | None, count_only: bool, timeout: float, as_json: bool) -> None:
    """Print who is in a GROUP with presence.

    One line for each connection: who it belongs to, and what the application tells of it. Somebody with three tabs has
    three lines, and counts once.

    \b
      fastapi-consumers presence chat.lobby
      fastapi-consumers presence chat.lobby --count
    """
    roster = asyncio.run(_read(check_group(group), url, presence_url, count_only, timeout))
    members: dict[str, Any] = {}
    for ref, key, info in sorted(roster.members, key=lambda present: (present.key, present.ref)):
        members.setdefault(key, {"metas": []})["metas"].append({**from_json(info), "ref": ref})
    if as_json:
        click.echo(json.dumps({"count": roster.size} if count_only else {"count": roster.size, "members": members}))
    elif count_only:
        click.echo(str(roster.size))
    else:
        for key, entry in members.items():
            for meta in entry["metas"]:
                click.echo(f"{_shown(key)}  {json.dumps(meta)}")
        if not members:
            click.echo(f"Nobody is in the group {group!r}, as far as its presence tells.", err=True)


async def _read(group: str, url: str, presence_url: str | None, count_only: bool, timeout: float) -> Roster:
    transport = transport_of(url, broker_timeout=timeout, reaches_others=True)
    store = presence_store(transport, None if presence_url == url else presence_url, timeout=seconds_of(timeout))
    if store is None or not store.is_distributed:
        found, fix = "a broker that does not keep who is there", "name where the application keeps it: --presence-url"
        problem = Problem("no-presence-store", "--url", found, "a place where the application keeps presence", fix)
        raise ImproperlyConfigured("The presence", [problem])
    try:
        await store.open()
        return await store.read(group, count_only=count_only)
    finally:
        await store.close()


def _shown(key: str) -> str:
    """What cannot be seen is written out: keys are names that clients chose."""
    return key if key.isprintable() else json.dumps(key)
