"""A fleet of devices that send readings in MessagePack, and a page on which people watch them in JSON.

Run ``uvicorn examples.iot.app:app``, then ``python examples/iot/simulator.py``, and open http://127.0.0.1:8000/.
``DEVICE_KEYS`` holds the devices and their keys, as JSON; without it there are three whose keys everybody knows.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import Field

from fastapi_consumers import ConsumerError, GroupConsumer, action, add_consumers, path
from fastapi_consumers.authentication import APIKeyAuthentication
from fastapi_consumers.permissions import BasePermission, IsAuthenticated
from fastapi_consumers.presence import Presence

from .fleet import DeviceView, Fleet, Reading

STATIC = Path(__file__).parent / "static"
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
}

DEMO_KEYS = {"greenhouse": "demo-greenhouse-key", "cellar": "demo-cellar-key", "roof": "demo-roof-key"}

#: The group in which it is told which devices are there, and the one of those who watch.
FLEET, WATCHERS = "fleet", "watchers"


def find_device(consumer: Any) -> str | None:
    """A device is there under its name. People see it, and are not seen."""
    return consumer.user.id if isinstance(consumer, Device) else None


def find_fleet(websocket: WebSocket) -> Fleet:
    fleet: Fleet = websocket.app.state.fleet
    return fleet


InFleet = Annotated[Fleet, Depends(find_fleet)]
Batch = Annotated[list[Reading], Field(min_length=1, max_length=100)]


class MessagePackOnly(BasePermission):
    """A device that speaks something else has an old firmware, and shall hear so at once."""

    async def has_permission(self, consumer: Any, action: Any = None) -> bool:
        if consumer.connection.subprotocol != "fc.v1.msgpack":
            raise ConsumerError("wrong_subprotocol", "Devices speak fc.v1.msgpack.", close_code=4403)
        return True


class Device(GroupConsumer):
    """One device, known by its key."""

    groups = [FLEET]
    permission_classes = [IsAuthenticated, MessagePackOnly]
    # Of each device, on whichever connection: a batch every two seconds, and some to catch up with.
    throttle_classes = ["10/20 seconds"]
    connection_throttle_classes = ["30/minute"]
    max_message_size = 16 * 1024

    @action
    async def ingest(self, readings: Batch, fleet: InFleet) -> int:
        """Take a batch of readings, the oldest first. Returns how many of them were new."""
        added = fleet.add(self.user.id, readings)
        if added:
            data = {"device": self.user.id, "readings": added}
            await self.broadcast("readings", data, group=WATCHERS, coalesce_key=self.user.id)
        return len(added)


class Watcher(GroupConsumer):
    """Somebody who looks at the page. They may ask who is there, and nothing else."""

    groups = [FLEET, WATCHERS]
    throttle_classes = ["20/10 seconds"]
    max_message_size = 1024
    # Who does not keep up needs the newest batch of each device, and is told that there was more.
    overflow = "coalesce"

    async def on_join(self, group: str) -> None:
        if group == WATCHERS:
            await self.send_event("welcome", {"devices": find_fleet(self.websocket).view()})

    @action
    async def look(self, fleet: InFleet) -> list[DeviceView]:
        """All there is, for whoever has missed something."""
        return fleet.view()


def make_app(keys: Mapping[str, str], grace: float = 5) -> FastAPI:
    """The app, with these devices and their keys. One that comes back within ``grace`` seconds was there all along."""
    app = FastAPI(title="Fleet")
    app.state.fleet = Fleet(keys)
    # Classes that share a group share its presence.
    presence = Presence(key=find_device, ttl=30, grace=grace)
    device = Device.as_asgi(presence=presence, authentication_classes=[APIKeyAuthentication(keys)])
    watcher = Watcher.as_asgi(presence=presence)
    add_consumers(app, [path("/ws/device", device, name="device"), path("/ws/watch", watcher, name="watch")])

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


app = make_app(json.loads(os.environ.get("DEVICE_KEYS") or "null") or DEMO_KEYS)
