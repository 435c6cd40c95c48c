"""A history in a database, and events that travel another way: nothing joins the two, so the hub orders and heals."""

import asyncio
import secrets

from fastapi import FastAPI

from fastapi_consumers import GroupConsumer, add_consumers, path
from fastapi_consumers.history import History
from fastapi_consumers.testing import FaultyTransport, WebsocketCommunicator, lifespan
from fastapi_consumers.transports import MemoryTransport, RedisTransport

FAULTS = {"drop": 0.2, "duplicate": 0.1, "reorder": 0.2}


class Room(GroupConsumer):
    groups = ["room"]
    history = History(size=100)


def make_app(transport, database):
    app = FastAPI()
    add_consumers(app, [path("/", Room)], transport=transport, history_url=f"sqlite+aiosqlite:///{database}")
    return app


async def check(apps, transports):
    """All members have all events in the order of their offsets, whatever was lost, doubled or late."""
    hubs = [app.state.consumers.hub for app in apps]
    clients = [WebsocketCommunicator(app, "/") for app in apps]
    try:
        for client in clients:
            assert (await client.connect(timeout=20))[0]
            joined = await client.receive_json_from(timeout=20)
            assert (joined["type"], joined["offset"]) == ("joined", 0)
        broadcasts = [
            apps[number % len(apps)].state.consumers.broadcast("room", "said", number) for number in range(60)
        ]
        positions = await asyncio.gather(*broadcasts)
        assert sorted(position.offset for position in positions) == list(range(1, 61))
        for transport, hub in zip(transports, hubs, strict=True):
            transport.calm()
            await transport.release()
            hub.streams.heal_all(["room"])
        said = {position.offset: number for number, position in enumerate(positions)}
        for client in clients:
            events = [await client.receive_json_from(timeout=20) for _ in range(60)]
            assert [(event["offset"], event["data"]) for event in events] == sorted(said.items())
        assert all(hub.streams.heals and not hub.streams.gaps for hub in hubs)
    finally:
        for client in clients:
            await client.disconnect()


async def test_over_redis_two_processes_order_and_heal(broker, tmp_path):
    url = f"{broker.url}?prefix={secrets.token_hex(6)}:"
    transports = [FaultyTransport(RedisTransport(url), seed=seed, **FAULTS) for seed in range(2)]
    apps = [make_app(transport, tmp_path / "chat.db") for transport in transports]
    async with lifespan(apps[0]), lifespan(apps[1]):
        await check(apps, transports)


async def test_in_memory_one_process_orders_and_heals(tmp_path):
    transport = FaultyTransport(MemoryTransport(), seed=3, **FAULTS)
    app = make_app(transport, tmp_path / "chat.db")
    async with lifespan(app):
        await check([app], [transport])
