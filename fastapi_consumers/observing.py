"""The one seam for logs, metrics and traces: ``Observer``, what it is told, and who of them is told what.

Observers are given to ``add_consumers(observers=[…])``. Which hooks each of them has is looked up once, there: a hook
that nobody overrides is never called, and what nobody looks at is neither counted nor timed. Without observers the
classes of the hot path are the plain ones, so that no message pays anything; `observed` has those that count and tell.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from .redaction import without_input
from .types import RequestId

if TYPE_CHECKING:
    from .connection import Connection
    from .packets import Packet
    from .plan import Plan
    from .runtime import Consumers

logger = logging.getLogger(__name__)

#: The name of an action that the consumer does not have, whatever its client wrote.
UNKNOWN = "unknown"
#: The outcome of a call that went well, and of one that the end of its connection stopped.
OK, INTERRUPTED = "ok", "interrupted"


#: Takes an outcome, and how many seconds each of the calls took that ended so.
Record = Callable[[str, Sequence[float]], None]
#: Calls that went well, of one action, before they are handed over.
BATCH = 256


class Call:
    """One action, or one event method, from the moment that its turn came to the moment that its answer was sent.

    ``name`` is one that the class declares, or ``"unknown"``: never a client's own words. ``request_id`` is the
    client's, of any length and content.
    """

    __slots__ = (
        "connection",
        "duration",
        "failure",
        "kind",
        "name",
        "outcome",
        "request_id",
        "started",
        "state",
        "trace",
    )

    def __init__(
        self, connection: "Connection", name: str, request_id: RequestId | None, kind: Literal["action", "event"]
    ) -> None:
        self.connection = connection
        self.kind = kind
        self.name = name
        self.request_id = request_id
        #: For an event method: the ``traceparent`` that came with its message.
        self.trace: str | None = None
        #: ``"ok"``, the code of the error that was told, or ``"interrupted"``: its connection ended meanwhile.
        self.outcome = OK
        #: What was raised, if something was.
        self.failure: BaseException | None = None
        #: For what observers keep between two hooks, under keys of their own.
        self.state: dict[Any, Any] | None = None
        #: Seconds, once it has ended.
        self.duration = 0.0
        #: On the clock of ``time.perf_counter``.
        self.started = perf_counter()


class Publication:
    """One packet that this process publishes: an event, a channel layer message, or a close."""

    __slots__ = ("failure", "packet", "state", "topic")

    def __init__(self, topic: str, packet: "Packet") -> None:
        #: Such as ``group:chat.lobby`` or ``user:7``.
        self.topic = topic
        #: May be replaced by one with a ``trace``, before it is published.
        self.packet = packet
        self.failure: BaseException | None = None
        self.state: dict[Any, Any] | None = None


class Observer:
    """Sees what connections and their consumers do. Derive from it, and override the hooks that you need.

    Hooks are called in the event loop, in the middle of what they tell of: they must return at once and may not wait.
    What they raise is logged, and changes nothing. A hook that is not overridden costs nothing; those of calls and
    publications cost a function call for each message, so leave out what you do not need.

    Strings that a client chose (the path, ``request_id``, values of a token) may have any length and content.
    """

    #: Whether connections count messages and bytes for it; see :class:`~fastapi_consumers.facts.ConnectionFacts`.
    counts = False

    def attached(self, consumers: "Consumers") -> None:
        """It was given to this application. What this raises goes to the caller of ``add_consumers``."""

    def connection_opened(self, connection: "Connection") -> None:
        """The socket is accepted, and ``connect()`` has ended."""

    def connection_refused(self, connection: "Connection") -> None:
        """The handshake came to nothing: refused, closed in ``connect()``, or the client left. Teardown has ended."""

    def connection_closed(self, connection: "Connection") -> None:
        """A connection that was opened has ended, its teardown too. :func:`facts_of` tells how."""

    def call_started(self, call: Call) -> None:
        """The turn of an action or event method has come; nothing has been asked or run yet.

        Runs in the task and the context of the call: context variables that are set here are seen by the action.
        """

    def call_ended(self, call: Call) -> None:
        """It has ended: ``outcome`` and ``duration`` are known. In the task and context of ``call_started``."""

    def call_recorder(self, plan: "Plan", kind: Literal["action", "event"], name: str) -> Record:
        """A function that is given outcomes and durations of this action or event method, in place of ``call_ended``.

        It is asked for once for each class and name; ``plan.options.name`` is the name of the class. Calls that went
        well are given to it many at a time, and when ``consumers.observing.flush()`` is called: do so before you read
        what it has counted. So a message costs hardly more than the clock.
        """
        # Overriding it is what asks for it.
        raise NotImplementedError

    def error_told(self, connection: "Connection", code: str) -> None:
        """The client was told of an error: as the answer to a request, or without one."""

    def publishing(self, publication: Publication) -> None:
        """A packet is about to be handed to all processes. Runs in the task and the context of the publisher."""

    def published(self, publication: Publication) -> None:
        """It was, or could not be: then ``failure`` says why."""

    def delivered(self, topic: str, packet: "Packet", members: int) -> None:
        """A packet, of whichever process, was handed to that many members of this one."""

    def event_dropped(self, connection: "Connection", policy: str) -> None:
        """An event was dropped for a client that does not keep up; for ``"disconnect"``, its socket is closed."""

    def recovered(self, group: str, success: bool) -> None:
        """A client came back to a group with history: with or without all that it missed."""

    def gap(self, group: str) -> None:
        """The members of a group were told that events may have been missed."""

    def broker_lost(self) -> None:
        """The broker was lost: packets of other processes may be missed."""

    def broker_back(self, after: float) -> None:
        """It is back, after that many seconds."""


_HOOKS = tuple(name for name, value in vars(Observer).items() if not name.startswith("_") and callable(value))
#: What ends is told in the other direction, so that observers nest.
_BACKWARDS = {"call_ended", "published", "connection_closed", "connection_refused"}


class Observing:
    """The observers of one application, sorted by what they want to be told.

    Args:
        counts: count messages and bytes of connections, also if no observer asks for that.
    """

    def __init__(self, observers: Iterable[Observer] = (), *, counts: bool = False) -> None:
        self.observers = tuple(observers)
        self._hooks: dict[str, tuple[Any, ...]] = {}
        for name in _HOOKS:
            plain = getattr(Observer, name)
            found = [getattr(each, name) for each in self.observers if getattr(type(each), name) is not plain]
            self._hooks[name] = tuple(reversed(found) if name in _BACKWARDS else found)
        #: Whether messages and bytes are counted.
        self.counts = counts or any(each.counts for each in self.observers)
        #: Whether calls, or errors, are looked at; and publications and deliveries.
        self.calls = self.wants("call_started", "call_ended", "call_recorder", "error_told")
        self.packets = self.wants("publishing", "published", "delivered")
        self._recorders: dict[Plan, Recorders] = {}

    def wants(self, *names: str) -> bool:
        """Whether somebody has one of these hooks."""
        return any(self._hooks[name] for name in names)

    def flush(self) -> None:
        """Hand over to recorders what has been gathered for them."""
        for recorders in tuple(self._recorders.values()):
            for recorder in tuple(recorders.values()):
                recorder.flush()

    def recorders(self, plan: "Plan") -> "Recorders":
        """Those of a class, the same for all of its connections."""
        found = self._recorders.get(plan)
        if found is None:
            found = self._recorders[plan] = Recorders(plan, self._hooks["call_recorder"])
        return found

    def tell(self, name: str, *arguments: Any) -> None:
        """Call one hook of all that have it. Raises nothing."""
        for hook in self._hooks[name]:
            try:
                hook(*arguments)
            except Exception as error:
                self.failed(hook, error)

    @contextmanager
    def publication(self, topic: str, packet: "Packet") -> Iterator[Publication]:
        """Around publishing this packet, or what observers make of it."""
        publication = Publication(topic, packet)
        self.tell("publishing", publication)
        try:
            yield publication
        except BaseException as error:
            publication.failure = error
            raise
        finally:
            self.tell("published", publication)

    @staticmethod
    def failed(hook: Any, error: Exception) -> None:
        """Log what a hook or a recorder raised."""
        name = getattr(hook, "__qualname__", repr(hook))
        logger.error("the observer's %s failed", name, exc_info=without_input(error))


class Recorder(list[float]):
    """How long the calls of one action took, in seconds: those that went well, gathered for those who record them.

    Gathered, since a function call for each message would cost more than all else of observing. They are handed over
    :data:`BATCH` at a time, and whenever somebody asks for what there is; the others at once.
    """

    __slots__ = ("_records",)

    def __init__(self, records: Iterable[Record]) -> None:
        super().__init__()
        self._records = tuple(records)

    def add(self, outcome: str, duration: float) -> None:
        """One more call."""
        if outcome != OK:
            self._hand_over(outcome, [duration])
            return
        self.append(duration)
        if len(self) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Hand over what there is."""
        if self:
            durations = list(self)
            self.clear()
            self._hand_over(OK, durations)

    def _hand_over(self, outcome: str, durations: list[float]) -> None:
        for record in self._records:
            try:
                record(outcome, durations)
            except Exception as error:
                Observing.failed(record, error)


class Recorders(dict[Any, Recorder]):
    """Action, or ``("event", name)`` for an event method, to its recorder; made when it is first called."""

    def __init__(self, plan: "Plan", hooks: Iterable[Callable[..., Record]]) -> None:
        super().__init__()
        self._plan = plan
        self._hooks = tuple(hooks)

    def __missing__(self, key: Any) -> Recorder:
        kind, name = ("action", key) if isinstance(key, str) else key
        found = self[key] = Recorder(hook(self._plan, kind, name) for hook in self._hooks)
        return found
