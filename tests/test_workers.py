"""What a command line says of a server's workers."""

import logging

import pytest
from fastapi import FastAPI

from fastapi_consumers import add_consumers
from fastapi_consumers.testing import lifespan
from fastapi_consumers.workers import several_workers


@pytest.mark.parametrize(
    ("command", "concurrency", "found"),
    [
        ("/usr/bin/uvicorn main:app --workers 2", "", 2),
        ("/lib/python3.11/site-packages/uvicorn/__main__.py main:app --workers=3", "", 3),
        ("gunicorn -k uvicorn.workers.UvicornWorker -w 4 main:app", "", 4),
        ("gunicorn -w4 main:app", "", 4),
        ("fastapi run --workers 2", "", 2),
        ("uvicorn main:app", "2", 2),
        ("uvicorn main:app --workers 1", "4", None),
        ("uvicorn main:app --workers", "", None),
        ("uvicorn main:app --ws-max-size 10 --reload", "", None),
        ("pytest -w 2", "2", None),
        ("", "2", None),
    ],
)
def test_how_many_workers_there_are_to_be(command: str, concurrency: str, found: int | None) -> None:
    assert several_workers(command.split(), {"WEB_CONCURRENCY": concurrency}) == found
    assert concurrency or several_workers(command.split(), {}) == found


async def test_workers_that_cannot_reach_each_other_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    add_consumers(app)
    with caplog.at_level(logging.WARNING, "fastapi_consumers"):
        async with lifespan(app):
            assert caplog.messages == []
        monkeypatch.setattr("sys.argv", ["/usr/bin/uvicorn", "main:app", "--workers", "2"])
        async with lifespan(app):
            [message] = caplog.messages
    assert message.startswith("this is one of 2 workers, and each of them broadcasts to its own sockets only")
