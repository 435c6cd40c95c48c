"""``connect`` in a pipe: lines come from a file, answers and events go to another."""

import asyncio
import math
import os
import threading
from collections.abc import Callable, Iterator

import click

from ...types import CloseCode
from .lines import LineError
from .session import Session

#: Lines that wait between the file and the socket.
_MAX_LINES = 64

#: The exit code if a request was answered with an error.
ANSWERED_WITH_ERROR = 3

#: What a line means as a frame, given the id of its request. Raises ``LineError``.
ToFrame = Callable[[str, int], str]


def read_lines(descriptor: int) -> Iterator[str]:
    """The lines of a file, without their ends, as they come. Bytes that are no UTF-8 are replaced."""
    rest = b""
    # Not through a file object: one that a thread still reads cannot be closed when the program ends.
    while block := os.read(descriptor, 64 * 1024):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


class _Lines:
    """Reads in a thread, since a file cannot be awaited; it waits while the socket is behind."""

    def __init__(self, descriptor: int) -> None:
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._room = threading.Semaphore(_MAX_LINES)
        self._loop = asyncio.get_running_loop()
        # The thread's own: whoever closes theirs does not take it away, or have another file read.
        own = os.dup(descriptor)
        threading.Thread(target=self._read, args=(own,), name="standard input", daemon=True).start()

    def _read(self, descriptor: int) -> None:
        try:
            for line in read_lines(descriptor):
                self._room.acquire()
                self._loop.call_soon_threadsafe(self._queue.put_nowait, line)
            self._loop.call_soon_threadsafe(self._queue.put_nowait, None)
        except RuntimeError:
            pass  # The loop is closed: nobody reads any more.
        finally:
            os.close(descriptor)

    async def get(self) -> str | None:
        """The next line; ``None`` at the end."""
        line = await self._queue.get()
        self._room.release()
        return line


async def converse(session: Session, descriptor: int, to_frame: ToFrame, *, wait: float, timeout: float) -> int:
    """Send each line, wait for the answers and then for ``wait`` seconds, and close. Returns the exit code.

    Args:
        timeout: seconds to wait for answers after the last line.

    Raises ``HandshakeFailed``.
    """
    running = asyncio.create_task(session.run(), name="session")
    talking = asyncio.create_task(_talk(session, descriptor, to_frame, wait, timeout), name="lines")
    try:
        await asyncio.wait({running, talking}, return_when=asyncio.FIRST_COMPLETED)
        code = 0
        if talking.done():
            code = talking.result()
            await session.stop()
        end = await running
    finally:
        talking.cancel()
        running.cancel()
        await asyncio.gather(talking, running, return_exceptions=True)
    if code:
        return code
    if end.code != CloseCode.NORMAL or session.unanswered:
        return 1
    return ANSWERED_WITH_ERROR if session.errors else 0


async def _talk(session: Session, descriptor: int, to_frame: ToFrame, wait: float, timeout: float) -> int:
    await session.is_open.wait()
    lines = _Lines(descriptor)
    number = request_id = 0
    while (line := await lines.get()) is not None:
        number += 1
        if not line.strip():
            continue
        request_id += 1
        try:
            frame = to_frame(line, request_id)
        except LineError as error:
            click.echo(f"Error: line {number}: {error}", err=True)
            return 2
        # Where it is to reconnect, a line waits for the next socket. One that was cut off may have arrived.
        await session.is_open.wait()
        await session.send(frame)
    try:
        # Not wait_for, which on Python 3.11 may lose a cancellation.
        async with asyncio.timeout(timeout):
            await session.all_answered.wait()
    except TimeoutError:
        count = len(session.requests)
        text = f"{count} request{'s have' if count > 1 else ' has'} not been answered within {timeout:g} s."
        click.echo(f"Error: {text}", err=True)
        return 1
    await asyncio.sleep(wait if math.isfinite(wait) else threading.TIMEOUT_MAX)
    return 0
