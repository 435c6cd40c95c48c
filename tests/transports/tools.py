"""What the tests of transports share."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import pytest
import websockets

from fastapi_consumers.exceptions import BrokerUnavailable


class Received:
    """Takes what a transport delivers; ``await received.next()`` waits for it."""

    def __init__(self):
        self._queue = asyncio.Queue()
        #: Whether each delivery raises, after it has been noted.
        self.deliver_raises = False

    async def deliver(self, topic, packet):
        self._queue.put_nowait((topic, packet))
        if self.deliver_raises:
            raise LookupError("in deliver")

    async def next(self):
        return await asyncio.wait_for(self._queue.get(), 20)

    @property
    def is_empty(self):
        return self._queue.empty()


def ends(transport):
    """Topics on each connection that packets come over."""
    client = getattr(transport, "client", None)
    if client is None or not client.is_sharded:
        return ["end"]
    by_node = {client.node_of(transport._channel(f"end{number}")): f"end{number}" for number in range(64)}
    return list(by_node.values())


async def subscribe_ends(transport):
    for end in ends(transport):
        await transport.subscribe(end)


async def until_end(transport, received):
    """All that is delivered up to a last packet, which no other over the same connection can overtake."""
    waiting, found = set(ends(transport)), []
    for end in waiting:
        await transport.publish(end, b"")
    while waiting:
        topic, packet = await received.next()
        if topic in waiting:
            waiting.remove(topic)
        else:
            found.append((topic, packet))
    return found


async def until(holds, timeout=30.0):
    """Wait until it holds; returns how long that took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < timeout, "it never came to this"
        await asyncio.sleep(0.005)
    return time.monotonic() - began


@asynccontextmanager
async def opened(*transports):
    """The transports, open, each with what it received."""
    async with AsyncExitStack() as stack:
        found = []
        for each in transports:
            found.append(Received())
            stack.push_async_callback(each.close)
            await each.open(found[-1].deliver)
        yield found


@contextmanager
def hurried(waiting, seconds=0.3):
    """Who asks this transport, publisher, client or store meanwhile waits no longer than that.

    Before and after it all has its time: a busy machine stalls for seconds.
    """
    changed = []
    for each in (waiting, getattr(waiting, "client", None), getattr(waiting, "_database", None)):
        for name in ("timeout", "_timeout"):
            if hasattr(each, name):
                changed.append((each, name, getattr(each, name)))
                setattr(each, name, seconds)
    assert changed
    try:
        yield
    finally:
        for each, name, usual in changed:
            setattr(each, name, usual)


def own_tasks():
    return {task for task in asyncio.all_tasks() if "fastapi_consumers" in task.get_name()}


async def fails_to_open(transport, kind):
    with pytest.raises(kind) as caught:
        await transport.open(Received().deliver)
    await transport.close()
    assert not own_tasks()
    return "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


async def works(transport):
    async with opened(transport) as [received]:
        await transport.subscribe("t")
        await transport.publish("t", bytes(range(256)))
        assert await received.next() == ("t", bytes(range(256)))


APP = """
import os
from fastapi import FastAPI
from fastapi_consumers import GroupConsumer, action, add_consumers, path

class Room(GroupConsumer):
    groups = ["room"]

    @action
    async def say(self, text: str) -> int:
        await self.broadcast("said", text)
        return os.getpid()

app = FastAPI()
add_consumers(app, [path("/room", Room)], url=os.environ["BROKER"], broker_timeout=20)
"""


async def two_server_processes_share_a_room(url, folder):
    """What is said to one server is heard at the other, and the other way round. `folder` is for the app's module."""
    (folder / "two_processes.py").write_text(APP)
    processes, ports = [], []

    def start(command, fd, environment):
        return subprocess.Popen(command, cwd=folder, pass_fds=[fd], env=environment)

    try:
        for _ in range(2):
            with socket.socket() as listening:
                listening.bind(("127.0.0.1", 0))
                listening.listen()
                ports.append(listening.getsockname()[1])
                fd = listening.fileno()
                command = [sys.executable, "-m", "uvicorn", "two_processes:app", "--fd", str(fd)]
                environment = {**os.environ, "BROKER": url}
                processes.append(await asyncio.to_thread(start, command, fd, environment))
        urls = [f"ws://127.0.0.1:{port}/room" for port in ports]
        async with asyncio.timeout(60):
            # They answer once the processes have started.
            alice, bob = (websockets.connect(url, open_timeout=None) for url in urls)
            async with alice as alice, bob as bob:
                for number, (speaker, other) in enumerate(((alice, bob), (bob, alice))):
                    await speaker.send(f'{{"action":"say","request_id":1,"data":{{"text":"{number}"}}}}')
                    event = f'{{"type":"event","event":"said","group":"room","data":"{number}"}}'
                    assert event in [await speaker.recv(), await speaker.recv()]
                    assert await other.recv() == event
    finally:
        for process in processes:
            process.terminate()
        codes = [await asyncio.to_thread(process.wait, 40) for process in processes]
    assert all(code in (0, -signal.SIGTERM) for code in codes), codes


async def refuses_in_time(transport):
    """What cannot be handed on is refused when the time for it is over."""
    began = time.monotonic()
    with hurried(transport):
        with pytest.raises(BrokerUnavailable):
            await transport.publish("t", b"lost")
        with pytest.raises(BrokerUnavailable):
            await transport.subscribe("u")
    assert time.monotonic() - began < 20
