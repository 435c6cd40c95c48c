"""``publish``: an event to the members of a group, to a user or to a connection."""

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

import click
from pydantic_core import from_json

from ..addressing import Addressed, event_for, event_for_group
from ..codecs import find_not_finite
from ..history.base import check_idempotency_key
from ..messages import Position
from ..publisher import Publisher
from .commands import history_url_option, json_option, timeout_option, url_option, usage


@click.command(short_help="Send an event to a group, a user or a connection.")
@click.argument("words", nargs=-1, required=True, metavar="[GROUP] EVENT [DATA]")
@url_option
@click.option("--user", help="Send to all connections of this user; then there is no GROUP.")
@click.option("--channel", help="Send to this one connection; then there is no GROUP.")
@click.option("--idempotency-key", help="In a group with history: send nothing if it had an event with this key.")
@history_url_option
@timeout_option
@json_option
def publish(
    words: Sequence[str],
    url: str,
    user: str | None,
    channel: str | None,
    idempotency_key: str | None,
    history_url: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Send an EVENT to the members of a GROUP.

    DATA is JSON, by default null; "-" reads it from the standard input. In a group with history the event's position
    is printed, its epoch and offset.

    \b
      fastapi-consumers publish chat.lobby said '{"text": "hi"}'
      echo '[1, 2]' | fastapi-consumers publish --user ann numbers -
    """
    if user is not None and channel is not None:
        raise click.UsageError("Name one receiver: --user or --channel.")
    group = None
    if user is None and channel is None:
        if len(words) < 2:
            raise click.UsageError("Expected GROUP EVENT [DATA], or --user or --channel with EVENT [DATA].")
        group, *words = words
    if len(words) > 2:
        raise click.UsageError(f"Expected one DATA after the event {words[0]!r}; found {len(words) - 1}. Quote it.")
    if idempotency_key is not None:
        if group is None:
            raise click.UsageError("Only groups have a history, which is where idempotency keys are kept.")
        usage(check_idempotency_key, idempotency_key)
    event, data = words[0], _data(words[1]) if len(words) == 2 else None
    if group is not None:
        addressed: Addressed | None = event_for_group(group, event, data)
    else:
        addressed = event_for(event, data, user=user, channel=channel)
    if addressed is None:
        raise click.UsageError(f"{channel!r} cannot be a channel: it is what a consumer has as its channel_name.")
    publishing = _publish(url, history_url, timeout, addressed, idempotency_key)
    position = usage(asyncio.run, publishing)
    receiver = {"group": group, "user": user, "channel": channel}
    [(kind, name)] = [item for item in receiver.items() if item[1] is not None]
    place = position._asdict() if position is not None else {}
    if as_json:
        click.echo(json.dumps({"event": event, kind: name, **place}))
    else:
        at = f" at {position.epoch}:{position.offset}" if position is not None else ""
        click.echo(f"published {event} to {kind} {name}{at}")


async def _publish(
    url: str, history_url: str | None, timeout: float, addressed: Addressed, idempotency_key: str | None
) -> Position | None:
    async with Publisher(url, history_url=history_url, broker_timeout=timeout) as publisher:
        return await publisher.publish(addressed, idempotency_key)


def _data(text: str) -> Any:
    try:
        data = from_json(sys.stdin.buffer.read() if text == "-" else text, allow_inf_nan=False)
        if find_not_finite(data) is not None:  # A literal such as 1e400.
            raise ValueError("a number is too large")
        return data
    except ValueError as error:
        raise click.UsageError(f"DATA is not JSON: {error}. Text stands in quotes of its own: '\"hi\"'.") from None
