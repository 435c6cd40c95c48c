"""By hand: who is in a group, told to all of its members; and a group's newest thousand events, for who comes back.

What a developer writes in an afternoon, in one process: each newcomer is told to each member by itself. Says and
understands what the storms of wsload do; nobody is ever away, and nothing expires.

bench-title: Starlette by hand
bench-venv: base
bench-dialect: plain
bench-only: presence recovery
"""

import collections
import json

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

groups: dict[str, dict[WebSocket, str]] = {}
events: dict[str, collections.deque[tuple[int, str]]] = {}


async def fan_out(group: str, text: str) -> None:
    for member in list(groups.get(group, ())):
        try:
            await member.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            pass


async def come(ws: WebSocket, group: str) -> None:
    """Tell the newcomer where it stands, and what it missed; and all of them that it is there."""
    kept = events.setdefault(group, collections.deque([(0, "")], maxlen=1000))
    offset = int(ws.query_params.get("recover", f"x:{kept[-1][0]}").partition(":")[2])
    await ws.send_text(json.dumps({"type": "joined", "epoch": "x", "offset": offset}))
    for number, text in list(kept):
        if number > offset:
            await ws.send_text(text)
    key = ws.query_params.get("key", "")
    groups.setdefault(group, {})[ws] = key
    if key:
        await fan_out(group, json.dumps({"type": "presence", "joins": [key]}))


async def endpoint(ws: WebSocket) -> None:
    group = ws.path_params["group"]
    await ws.accept()
    try:
        await come(ws, group)
        while True:
            message = json.loads(await ws.receive_text())
            if message["action"] == "presence":
                members = [key for key in groups[group].values() if key]
                await ws.send_text(json.dumps({"type": "reply", "request_id": message["request_id"], "data": members}))
            else:
                data = message["data"]
                kept = events[data["group"]]
                offset = kept[-1][0] + 1
                text = json.dumps({"type": "event", "offset": offset, "data": {"text": data["text"]}})
                kept.append((offset, text))
                await fan_out(data["group"], text)
    except (WebSocketDisconnect, RuntimeError):
        pass
    finally:
        groups.get(group, {}).pop(ws, None)


app = Starlette(routes=[WebSocketRoute("/ws/{group}", endpoint)])
