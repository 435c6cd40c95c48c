"""``connect`` in a terminal: a line to type in, with completion and memory, below what comes."""

import asyncio
import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.patch_stdout import patch_stdout

from ...types import CloseCode
from .catalog import COMMANDS, Catalog
from .handshake import CLOSE_TIMEOUT
from .lines import SYNTAX, LineError, frame_of
from .session import Session
from .text import Piece, styled, visible

#: Lines that may hold a secret are not written to the file of what was typed.
_SECRET = re.compile("authenticate|token|password|secret", re.IGNORECASE)


def default_history_file() -> Path:
    """Where what was typed is kept (XDG Base Directory Specification, 0.8)."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "fastapi-consumers" / "connect_history"


class _CarefulHistory(FileHistory):
    """Keeps what was typed in a file that only its owner can read, but for lines that may hold a secret."""

    def store_string(self, string: str) -> None:
        if not _SECRET.search(string):
            with contextlib.suppress(OSError):
                super().store_string(string)


def _history(file: Path | None) -> History:
    if file is None:
        return InMemoryHistory()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        click.echo(f"What you type is not kept: {error.strerror}: {file}", err=True)
        return InMemoryHistory()
    return _CarefulHistory(str(file))


class _Completer(Completer):
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        for suggestion in self._catalog.suggest(document.text_before_cursor):
            yield Completion(suggestion.text, -suggestion.replaces, display_meta=visible(suggestion.meaning))


class Terminal:
    """Asks for lines until the conversation ends or whoever types leaves."""

    def __init__(
        self, session: Session, catalog: Catalog, *, history_file: Path | None, raw: bool, color: bool
    ) -> None:
        self._session = session
        self._catalog = catalog
        self._raw = raw
        self._color = color
        self._prompt: PromptSession[str] = PromptSession(
            history=_history(history_file),
            completer=_Completer(catalog),
            complete_while_typing=False,
            bottom_toolbar=self._state,
        )
        self._request_id = 0

    def _state(self) -> str:
        session = self._session
        state = "connected" if session.is_open.is_set() else "not connected"
        waiting = f" · {len(session.requests)} waiting" if len(session.requests) else ""
        return f" {visible(session.target.shown)} · {state}{waiting} · /help"

    def show(self, pieces: Sequence[Piece]) -> None:
        """A line above the one that is typed."""
        click.echo(styled(pieces, self._color), color=self._color)
        self._prompt.app.invalidate()

    async def run(self) -> int:
        """Returns the exit code. Raises ``HandshakeFailed``."""
        with patch_stdout(raw=True):
            running = asyncio.create_task(self._session.run(), name="session")
            typing = asyncio.create_task(self._type(), name="prompt")
            try:
                await asyncio.wait({running, typing}, return_when=asyncio.FIRST_COMPLETED)
                if typing.done():
                    typing.result()
                    await self._session.stop()
                    # It says how it ended, unless it is on its way to another socket.
                    await asyncio.wait({running}, timeout=CLOSE_TIMEOUT)
                    return 0
                end = running.result()
                return 0 if end.code == CloseCode.NORMAL else 1
            finally:
                typing.cancel()
                running.cancel()
                await asyncio.gather(typing, running, return_exceptions=True)

    async def _type(self) -> None:
        await self._session.is_open.wait()
        self.show([("dim", "Type an action, Tab completes it; /help tells more, Ctrl-D leaves.")])
        while True:
            try:
                line = (await self._prompt.prompt_async("> ")).strip()
            except KeyboardInterrupt:  # As in a shell: the line is given up, not the program.
                continue
            except EOFError:
                return
            if line == "/quit":
                return
            if line.startswith("/") and not (self._raw and line not in COMMANDS):
                await self._command(line)
            elif line:
                await self._send(line)

    async def _command(self, line: str) -> None:
        if line == "/help":
            for text in ("" if self._raw else SYNTAX).splitlines():
                self.show([("", text)])
            for name, meaning in COMMANDS.items():
                self.show([("", f"  {name:<28}{meaning}")])
        elif line == "/actions":
            actions = self._catalog.all()
            for action in actions:
                self.show([("", f"  {visible(str(action))}")])
            if not actions:
                self.show([("dim", "None is known yet: --app MODULE:APP tells, and so do the server's answers.")])
        elif line == "/reconnect":
            await self._session.drop()
        else:
            self.show([("error", f"There is no {visible(line)}; there are {', '.join(COMMANDS)}.")])

    async def _send(self, line: str) -> None:
        try:
            frame = line if self._raw else frame_of(line, self._request_id + 1)
        except LineError as error:
            self.show([("error", visible(str(error)))])
            return
        self._request_id += 1
        if await self._session.send(frame):
            self.show([("sent", f"-> {visible(frame)}")])
        else:
            self.show([("error", "Not connected: this was not sent.")])
