"""Lower-level limit: pure ASGI callable, orjson, one prebuilt send event per fan-out.

bench-title: ASGI by hand, orjson
bench-venv: base
bench-dialect: plain
bench-default: yes
bench-redis: no
"""

import orjson

groups: dict = {}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            m = await receive()
            await send({"type": m["type"] + ".complete"})
            if m["type"] == "lifespan.shutdown":
                return
    group = scope["path"][4:]
    await receive()
    await send({"type": "websocket.accept"})
    members = groups.setdefault(group, {})
    members[id(send)] = send
    try:
        while True:
            m = await receive()
            if m["type"] == "websocket.disconnect":
                return
            msg = orjson.loads(m["text"])
            if msg["action"] == "echo":
                reply = {"action": "echo", "request_id": msg["request_id"], "data": msg["data"]}
                await send({"type": "websocket.send", "text": orjson.dumps(reply).decode()})
            else:
                data = msg["data"]
                text = orjson.dumps({"action": "message", "data": {"text": data["text"]}}).decode()
                event = {"type": "websocket.send", "text": text}
                for s in list(groups.get(data["group"], {}).values()):
                    try:
                        await s(event)
                    except Exception:
                        pass
    finally:
        members.pop(id(send), None)
        if not members:
            groups.pop(group, None)
