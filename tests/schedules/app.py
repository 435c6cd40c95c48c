"""An application that two processes serve over one Valkey, with leases that are short.

Run as a script with the file descriptor of a listening socket and uvicorn's options as JSON; ``BROKER_URL`` names the
server, ``RUNS`` a file to which each run adds a line.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from fastapi_consumers import Consumers, GroupConsumer, add_consumers, every, path, scheduled_runs, scheduler
from fastapi_consumers.schedules import ScheduledRun, ScheduleStatus

#: Seconds within which what a process ran that died can be run by another.
LEASE = 3.0


async def write(what: str, run: ScheduledRun) -> None:
    line = f"{what} {run.group or '-'} {run.at.timestamp():.0f} {run.attempt} {os.getpid()}"
    # Not into the server: it may be away.
    await asyncio.to_thread(append, line + "\n")


def append(line: str) -> None:
    with Path(os.environ["RUNS"]).open("a") as file:
        file.write(line)


class Room(GroupConsumer):
    groups = ["room.{room}"]

    @every("1s")
    @classmethod
    async def tick(cls, group: str, consumers: Consumers, run: ScheduledRun) -> None:
        await write("tick", run)
        await consumers.broadcast(group, "tick", run.at.timestamp())


app = FastAPI()
url = os.environ.get("BROKER_URL", "memory://")
consumers = add_consumers(app, [path("/room/{room}", Room)], url=url, broker_timeout=20, allowed_origins=["*"])


@consumers.schedule(every("1s", name="beat"))
async def beat(run: ScheduledRun) -> None:
    await write("beat", run)


@consumers.schedule(every("5s", name="slow"))
async def slow(run: ScheduledRun) -> None:
    await write("slow", run)
    await asyncio.sleep(60)


@app.get("/state")
async def state() -> dict[str, Any]:
    return {"pid": os.getpid()}


@app.get("/schedules")
async def schedules() -> list[ScheduleStatus]:
    return await consumers.schedules.list()


if __name__ == "__main__":
    # Not where a test only wants to see the app: others run schedules in the same process.
    scheduled_runs.LEASE = scheduler.LEASE = LEASE
    scheduler.SLACK = 0.5
    scheduled_runs.STOP_TIMEOUT = 0.2
    # At the end of the path, so that an installed wheel of the package comes before its source.
    sys.path.append(str(Path(__file__).resolve().parent.parent.parent))
    from tests.server import app as other

    other.app = app
    other.main()
