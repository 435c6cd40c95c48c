"""An agent that answers word by word, and can be stopped or asked something else meanwhile.

Run ``uvicorn examples.agent.app:app`` and open http://127.0.0.1:8000/. The model only looks up some notes, and
needs no network: put the client of yours in its place.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import StringConstraints
from starlette.requests import HTTPConnection

from examples.agent.model import Model
from fastapi_consumers import JSONConsumer, action, add_consumers, path

STATIC = Path(__file__).parent / "static"
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
}

Question = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]


def get_model(connection: HTTPConnection) -> Model:
    model: Model = connection.app.state.model
    return model


class Agent(JSONConsumer):
    # Of one client; more wait until one of these has ended.
    max_concurrent_actions = 3
    max_message_size = 4096

    @action(concurrent=True, timeout=120, throttle_classes=["20/minute"])
    async def ask(self, question: Question, model: Annotated[Model, Depends(get_model)]) -> AsyncIterator[str]:
        """The answer, word by word. The action ``cancel``, which every consumer has, ends it early. So does the end of
        the connection.
        """
        async with aclosing(model.answer(question)) as words:
            async for word in words:
                yield word


def make_app(model: Model | None = None) -> FastAPI:
    app = FastAPI(title="Agent")
    app.state.model = model or Model()
    add_consumers(app, [path("/ws", Agent, name="agent")])

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


app = make_app()
