"""Asking all processes of an application a question, and gathering what they answer.

Every process receives the topic ``control:``, whether it has a use for it or not: a subscription, and nothing per
message. A question is a packet on it, an answer one or several on the topic of the process that asks:

- ``ask``: the packet's name is the question's, its data the JSON ``{"id", "process", "arguments"}``. Without ``id``
  nobody answers: ``hello`` and ``bye`` say that a process is there, or goes.
- ``answer``: the JSON ``{"id", "process", "part", "parts", "status"}``, a line feed, and a slice of the answer's JSON:
  there are as many parts as the broker's size of a message makes necessary. ``status`` is ``ok``, or the code of the
  error that the process answers with.

A process that does not know a question says so (``unknown_question``); keys that one does not know it passes over.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeGuard

from pydantic_core import from_json

from .addressing import CONTROL, PROCESS
from .codecs import encode_json
from .exceptions import BrokerUnavailable, ConsumerError, MessageTooBig
from .hub import Hub
from .packets import Packet

logger = logging.getLogger(__name__)

#: Called with a question's arguments, in the process that is asked. What it returns is made JSON of.
Answerer = Callable[[Mapping[str, Any]], Awaitable[Any]]

#: Largest answer of one process, and largest part of one, in bytes of JSON.
MAX_ANSWER, MAX_PART = 1 << 20, 64 * 1024
#: What a packet holds besides the part, in bytes at most.
ENVELOPE = 400
#: Questions of others that a process works on at a time, and that may wait; as many again are answered with ``busy``,
#: and more not at all.
MAX_WORKING, MAX_WAITING = 4, 64
#: Seconds for which a process is counted as one that should answer after it was last heard of, and how many are known.
REMEMBERED_FOR, MAX_KNOWN = 60.0, 1000
#: Characters of a process's name, and of what it calls a question: ours have 12 and 16.
MAX_NAME = 64


class Gathered(NamedTuple):
    """What became of a question.

    ``answers`` and ``errors`` are by process; an error is its code. ``missing`` did not answer in time. ``silent`` is
    how many did not, as far as that is known: some of them may be nameless, as nothing was ever heard of them.
    """

    answers: dict[str, Any]
    errors: dict[str, str]
    missing: list[str]
    silent: int


class _Round:
    """A question that waits for answers."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.errors: dict[str, str] = {}
        #: What has come of answers that are not whole.
        self.parts: dict[str, dict[int, bytes]] = {}
        self.changed = asyncio.Event()

    @property
    def heard(self) -> set[str]:
        return {*self.answers, *self.errors}


class Asking:
    """Questions and answers of one process. For one event loop, between :meth:`open` and :meth:`close`."""

    def __init__(self, hub: Hub, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._hub = hub
        self._clock = clock
        #: When it was opened, in seconds since 1970; 0 before.
        self.opened_at = 0.0
        self._answerers: dict[str, Answerer] = {}
        self._rounds: dict[str, _Round] = {}
        #: Others, and when they were last heard of.
        self._known: dict[str, float] = {}
        #: Whether everybody who should be known had the time to be heard of.
        self._has_gathered = False
        #: The same questions of the same moment are asked once.
        self._shared: dict[tuple[str, bytes], asyncio.Task[Gathered]] = {}
        self._working = asyncio.Semaphore(MAX_WORKING)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def process(self) -> str:
        """What this process is called."""
        return self._hub.process

    def answer(self, question: str, answerer: Answerer) -> None:
        """Have a question answered in this process. An error of ours that it raises is the answer."""
        self._answerers[question] = answerer

    async def open(self) -> None:
        """Receive questions. Raises what subscribing raises."""
        transport = self._hub.transport
        self.opened_at = time.time()
        self._hub.listen(CONTROL, self._asked)
        self._hub.listen(PROCESS + self.process, self._answered)
        if transport.is_distributed:
            await transport.subscribe(CONTROL)
            await self._announce("hello")

    async def close(self) -> None:
        """Answer nothing more, and give up what was asked."""
        tasks = [*self._tasks, *self._shared.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=0.1)
        if self._hub.transport.is_distributed and self._hub.transport.is_healthy:
            await self._announce("bye")

    async def _announce(self, word: str) -> None:
        """Where it cannot be counted who is there, processes say so."""
        if self._hub.transport.counts_subscribers:
            return
        try:
            await self._hub.publish(CONTROL, Packet("ask", encode_json({"process": self.process}), word))
        except BrokerUnavailable as error:
            logger.debug("could not say %s: %r", word, error)

    # -- asking ----------------------------------------------------------------------------------------------------

    async def ask(self, question: str, arguments: Mapping[str, Any] | None = None, *, timeout: float = 2.0) -> Gathered:
        """Ask all processes, this one included, and wait until all have answered, or for ``timeout`` seconds.

        How many there are is asked of the broker where it can tell (Redis, Valkey). Elsewhere those are waited for that
        were heard of in the last minute; the first question of a process takes all the time that it is given.

        What other processes answer is from there: check it. While the broker is lost only this process answers, and
        ``silent`` counts those that are known. Raises ``MessageTooBig`` for arguments that the broker does not carry.
        """
        key = question, encode_json(dict(arguments or {}))
        task = self._shared.get(key)
        if task is None or task.done():
            task = asyncio.create_task(self._ask(question, arguments or {}, timeout))
            self._shared[key] = task
            task.add_done_callback(lambda done: self._shared.pop(key, None) if self._shared.get(key) is done else None)
        return await asyncio.shield(task)

    async def _ask(self, question: str, arguments: Mapping[str, Any], timeout: float) -> Gathered:
        ident, found = secrets.token_hex(8), _Round()
        self._rounds[ident] = found
        is_distributed = self._hub.transport.is_distributed
        count = None if is_distributed else 1
        try:
            async with asyncio.timeout(timeout):
                if is_distributed:
                    told = {"id": ident, "process": self.process, "arguments": dict(arguments)}
                    await self._hub.publish(CONTROL, Packet("ask", encode_json(told), question))
                    count = await self._count()
                await self._answer_here(question, arguments, found)
                while not self._is_complete(found, count):
                    found.changed.clear()
                    await found.changed.wait()
        except (TimeoutError, BrokerUnavailable) as error:
            logger.debug("the question %r was not answered by all: %r", question, error)
            if self.process not in found.heard:
                await self._answer_here(question, arguments, found)
        finally:
            del self._rounds[ident]
        return self._outcome(found, count)

    async def _count(self) -> int | None:
        try:
            return await self._hub.transport.count_subscribers(CONTROL)
        except BrokerUnavailable:
            return None

    async def _answer_here(self, question: str, arguments: Mapping[str, Any], found: _Round) -> None:
        status, answer = await self._work(question, arguments)
        self._take(found, self.process, status, answer)

    def _is_complete(self, found: _Round, count: int | None) -> bool:
        heard = found.heard
        if count is not None:
            return len(heard) >= count
        return self._has_gathered and self._expected() <= heard

    def _expected(self) -> set[str]:
        oldest = self._clock() - REMEMBERED_FOR
        self._known = {process: at for process, at in self._known.items() if at > oldest}
        return set(self._known)

    def _outcome(self, found: _Round, count: int | None) -> Gathered:
        heard = found.heard
        self._has_gathered = True
        if count is not None and len(heard) >= count:
            # All that there are: others have gone.
            self._known = {process: at for process, at in self._known.items() if process in heard}
        missing = sorted(self._expected() - heard)
        silent = len(missing) if count is None else max(count - len(heard), 0)
        return Gathered(found.answers, found.errors, missing if silent else [], silent)

    def _answered(self, packet: Packet) -> None:
        if packet.kind != "answer":
            return
        head, _, part = packet.data.partition(b"\n")
        fields = _object(head)
        process, number, parts = fields.get("process"), fields.get("part"), fields.get("parts")
        if not (_is_name(process) and isinstance(number, int) and isinstance(parts, int)):
            logger.warning("dropped an answer to %r that cannot be read", packet.name)
            return
        self._note(process)
        found = self._rounds.get(str(fields.get("id")))
        if found is None or process in found.heard or not 0 <= number < parts <= MAX_ANSWER:
            return  # It comes late.
        have = found.parts.setdefault(process, {})
        have[number] = part
        if sum(map(len, have.values())) > MAX_ANSWER + MAX_PART:
            self._take(found, process, "message_too_big", b"")
        elif len(have) == parts:
            self._take(found, process, str(fields.get("status")), b"".join(have[each] for each in sorted(have)))

    def _take(self, found: _Round, process: str, status: str, answer: bytes) -> None:
        found.parts.pop(process, None)
        try:
            value = from_json(answer) if status == "ok" else None
        except ValueError:
            status = "unreadable"
        if status == "ok":
            found.answers[process] = value
        else:
            found.errors[process] = status[:64]
        found.changed.set()

    # -- answering -------------------------------------------------------------------------------------------------

    def _asked(self, packet: Packet) -> None:
        fields = _object(packet.data)
        process, ident, arguments = fields.get("process"), fields.get("id"), fields.get("arguments")
        if packet.kind != "ask" or not _is_name(process) or process == self.process:
            return
        if packet.name == "bye":
            self._known.pop(process, None)
            for found in self._rounds.values():
                found.changed.set()
            return
        self._note(process)
        waiting = len(self._tasks)
        if _is_name(ident) and isinstance(arguments, dict) and waiting < 2 * MAX_WAITING:
            asked = None if waiting >= MAX_WAITING else arguments
            task = asyncio.get_running_loop().create_task(self._reply(packet.name, asked, process, ident))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _reply(self, question: str, arguments: Mapping[str, Any] | None, process: str, ident: str) -> None:
        """Work on a question, or with ``None`` for its arguments say that there are too many."""
        if arguments is None:
            status, answer = "busy", b""
        else:
            async with self._working:
                status, answer = await self._work(question, arguments)
        size = self._part_size()
        parts = max(1, -(-len(answer) // size))
        for number in range(parts):
            head = {"id": ident, "process": self.process, "part": number, "parts": parts, "status": status}
            data = encode_json(head) + b"\n" + answer[number * size : (number + 1) * size]
            try:
                await self._hub.publish(PROCESS + process, Packet("answer", data, question))
            except (BrokerUnavailable, MessageTooBig) as error:
                logger.debug("an answer to %r could not be sent: %r", question, error)
                return

    def _part_size(self) -> int:
        largest = self._hub.transport.max_packet
        return MAX_PART if largest is None else max(256, min(MAX_PART, largest - ENVELOPE))

    async def _work(self, question: str, arguments: Mapping[str, Any]) -> tuple[str, bytes]:
        """The status and the JSON of this process's answer."""
        answerer = self._answerers.get(question)
        if answerer is None:
            return "unknown_question", b""
        try:
            answer = encode_json(await answerer(arguments))
        except ConsumerError as error:
            return error.code, b""
        except Exception:
            logger.exception("the question %r could not be answered", question)
            return "internal_error", b""
        return ("ok", answer) if len(answer) <= MAX_ANSWER else ("message_too_big", b"")

    def _note(self, process: str) -> None:
        if process != self.process and (process in self._known or len(self._known) < MAX_KNOWN):
            self._known[process] = self._clock()


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) <= MAX_NAME


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = from_json(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
