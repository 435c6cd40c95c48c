"""Raw FastAPI: `@app.websocket`, receive_json/send_json, the ConnectionManager of FastAPI's own docs.

bench-title: FastAPI by hand
bench-venv: base
bench-dialect: plain
bench-redis: no
"""

import json

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()


class ConnectionManager:
    def __init__(self):
        self.groups: dict[str, list[WebSocket]] = {}

    async def connect(self, group: str, websocket: WebSocket):
        await websocket.accept()
        self.groups.setdefault(group, []).append(websocket)

    def disconnect(self, group: str, websocket: WebSocket):
        self.groups[group].remove(websocket)

    async def broadcast(self, group: str, message: str):
        for connection in list(self.groups.get(group, ())):
            await connection.send_text(message)


manager = ConnectionManager()


@app.websocket("/ws/{group}")
async def endpoint(websocket: WebSocket, group: str):
    await manager.connect(group, websocket)
    try:
        while True:
            msg = await websocket.receive_json()
            if msg["action"] == "echo":
                await websocket.send_json({"action": "echo", "request_id": msg["request_id"], "data": msg["data"]})
            else:
                data = msg["data"]
                await manager.broadcast(
                    data["group"], json.dumps({"action": "message", "data": {"text": data["text"]}})
                )
    except WebSocketDisconnect:
        manager.disconnect(group, websocket)
