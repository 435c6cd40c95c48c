"""``history``: what was said in a group."""

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable

import click

from ..backends import history_backend
from ..exceptions import ImproperlyConfigured, Problem
from ..groups import check_group
from ..history import GroupHistory, History, HistorySlice, HistoryStore
from ..history.view import MAX_READ
from ..transports.urls import seconds_of, transport_of
from .commands import history_url_option, json_option, timeout_option, url_option


@click.command(short_help="Print the newest events of a group with history.")
@click.argument("group")
@url_option
@history_url_option
@click.option("--limit", type=click.IntRange(1, MAX_READ), default=20, show_default=True, help="How many at most.")
@timeout_option
@json_option
def history(group: str, url: str, history_url: str | None, limit: int, timeout: float, as_json: bool) -> None:
    """Print the newest events of a GROUP with history, the newest last.

    Each with its offset, its time, its name and its data.
    """
    found = asyncio.run(_read_history(check_group(group), url, history_url, limit, timeout))
    events = [{**dataclasses.asdict(event), "at": event.at.isoformat()} for event in reversed(found.events)]
    if as_json:
        click.echo(json.dumps({"epoch": found.epoch or None, "top": found.top, "results": events}))
        return
    for event in events:
        click.echo(f"{event['offset']}  {event['at']}  {event['event']}  {json.dumps(event['data'])}")
    if not events:
        click.echo(f"There are no events of the group {group!r}.", err=True)


async def _read_history(group: str, url: str, history_url: str | None, limit: int, timeout: float) -> HistorySlice:
    store = history_backend(
        transport_of(url, broker_timeout=timeout, reaches_others=True),
        None if history_url == url else history_url,
        timeout=seconds_of(timeout),
    ).store
    if store is None or not store.is_distributed:
        found, fix = "a broker that keeps no history", "name where the application keeps it: --history-url"
        problem = Problem("no-history-store", "--url", found, "a place where the application keeps its history", fix)
        raise ImproperlyConfigured("The history", [problem])
    try:
        await store.open()
        # How much is kept does not matter to who reads.
        return await GroupHistory(group, History(), _ready(store)).read(limit=limit, newest_first=True)
    finally:
        await store.close()


def _ready(store: HistoryStore) -> Callable[[], Awaitable[HistoryStore]]:
    async def ready() -> HistoryStore:
        return store

    return ready
