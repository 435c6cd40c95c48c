"""What can go wrong, and what the client is told of it.

::

    Exception
    ├── ImproperlyConfigured             a class, a route or a setting is wrong: raised at startup
    ├── AcceptConnection                 raised in connect(): accept the socket
    ├── DenyConnection                   raised in connect(): refuse the socket
    ├── StopConsumer                     raised anywhere in a consumer: end it without an error
    └── ConsumerError                    "consumer_error"       1008
        ├── InvalidFrame                 "invalid_frame"        4400
        ├── InvalidData                  "invalid_data"         4400
        │   ├── InvalidCursor            "invalid_cursor"       4400
        │   └── InvalidPage              "invalid_page"         4400
        ├── InvalidGroup                 "invalid_group"        4400
        ├── ActionNotFound               "action_not_found"     4400
        ├── ActionDisabled               "action_disabled"      4403
        │   └── ActionDeprecated         "action_deprecated"    4403
        ├── ActionTimeout                "timeout"              4408
        ├── Cancelled                    "cancelled"            1000
        ├── NotAuthenticated             "not_authenticated"    4401
        ├── PermissionDenied             "permission_denied"    4403
        ├── NotFound                     "not_found"            1008
        ├── Throttled                    "throttled"            4429  retryable
        ├── GroupFull                    "group_full"           1013  retryable
        ├── TooManyGroups                "too_many_groups"      1008
        ├── BrokerUnavailable            "broker_unavailable"   1013  retryable
        │   └── HistoryUnavailable       "history_unavailable"  1013  retryable
        ├── MessageTooBig                "message_too_big"      1009
        ├── HTTPError                    "http_error"           1008  by its status
        └── InternalError                "internal_error"       1011

Every ``ConsumerError`` has a stable machine ``code`` that clients may branch on, a message for people, and the
close code used when it is raised with ``close=True``. Without it the socket stays open. Where one is ``retryable``
what is in the way passes by itself: the same request may succeed later.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, TypedDict, Unpack

from .texts import gettext_lazy as _
from .types import CloseCode, check_close_code

#: Seconds of a ``Retry-After``: for what is full, which has room when somebody leaves; and for a server that is away,
#: which is asked anew each second.
ROOM_AFTER, BACK_AFTER = 5.0, 1.0


class Problem(NamedTuple):
    """One mistake in a class, a route or a setting."""

    code: str
    where: str
    found: str
    expected: str
    fix: str


class ImproperlyConfigured(Exception):
    """A class, a route or a setting is wrong. Holds every mistake found, so that they are mended in one go.

    ``problems`` is a tuple of :class:`Problem`; their ``code`` is stable.
    """

    def __init__(self, subject: str, problems: Sequence[Problem]) -> None:
        self.subject = subject
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = [f"{subject} has {count} mistake{'s' if count != 1 else ''}:"]
        for number, problem in enumerate(self.problems, 1):
            lines += [
                "",
                f"{number}. [{problem.code}] {problem.where}",
                f"   found:    {problem.found}",
                f"   expected: {problem.expected}",
                f"   fix:      {problem.fix}",
            ]
        super().__init__("\n".join(lines))


class AcceptConnection(Exception):
    """Raise in ``connect()`` to accept the socket and go on."""


class DenyConnection(Exception):
    """Raise in ``connect()`` to refuse the socket (HTTP 403 before it was accepted, 4403 after)."""


class StopConsumer(Exception):
    """Raise in a consumer to end it: the socket closes with 1000 and teardown runs."""


class ErrorOptions(TypedDict, total=False):
    """The keywords that every error takes besides its message, and what each is where it is left out."""

    #: Stable machine code; the class's own.
    code: str | None
    #: Close the socket after the error has been sent; no.
    close: bool
    #: Close code to close with; the class's own. Giving one implies ``close``.
    close_code: int | None
    #: A list or dict that is sent along with the error; nothing.
    details: Any
    #: Whether the same request may succeed later; as the class says.
    retryable: bool | None


class ConsumerError(Exception):
    """An error that the client is told of.

    Args:
        code: stable machine code, for example ``"not_ready"``.
        message: text for people.
        close: close the socket after the error has been sent.
        close_code: close code to use with ``close=True``; the class's own by default.
        details: a list or dict that is sent along with the error.
        retryable: whether the same request may succeed later; the class's own by default.

    A subclass with a ``default_code`` of its own takes the message first: ``SoldOut("There are none left.")``.
    """

    default_code: ClassVar[str] = "consumer_error"
    default_message: ClassVar[str] = _("The request failed.")
    default_close_code: ClassVar[int] = CloseCode.POLICY_VIOLATION
    #: The HTTP status that a refused handshake, or an HTTP endpoint that lets the error pass, answers with.
    http_status: int = 400
    #: Seconds of the ``Retry-After`` of such an answer, for what passes by itself at a time that nobody knows.
    http_retry_after: float | None = None
    #: Whether what is in the way passes by itself, so that the same request, with the same credential, may succeed
    #: later: after ``retry_after`` seconds where an error says so, else with a growing delay. It does not mean that
    #: nothing was done: an action that failed half way has done the first half.
    retryable: bool = False

    def __init__(
        self,
        code: str | None = None,
        message: str | None = None,
        *,
        close: bool = False,
        close_code: int | None = None,
        details: Any = None,
        retryable: bool | None = None,
    ) -> None:
        if code is not None and message is None and self.default_code != ConsumerError.default_code:
            code, message = None, code
        self.code = code if code is not None else self.default_code
        self.message = message if message is not None else self.default_message
        self.close = close or close_code is not None
        self.close_code = check_close_code(close_code if close_code is not None else self.default_close_code)
        self.details = details
        if retryable is not None:
            self.retryable = retryable
        super().__init__(self.message)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(code={self.code!r}, message={self.message!r}, close={self.close})"

    def body(self) -> dict[str, Any]:
        """What the client is sent: ``code``, ``message``, ``details`` if there are any, ``retryable`` if it is."""
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details is not None:
            body["details"] = self.details
        if self.retryable:
            body["retryable"] = True
        return body

    def http_headers(self) -> dict[str, str]:
        """The headers of an HTTP answer that tells of this error, in lower case."""
        return {} if self.http_retry_after is None else {"retry-after": str(math.ceil(self.http_retry_after))}


class _CodedError(ConsumerError):
    """A ``ConsumerError`` whose class is its code, so that the message comes first."""

    def __init__(self, message: str | None = None, **options: Unpack[ErrorOptions]) -> None:
        # Said in full: a code without a message would be taken for the message.
        options["code"] = options.get("code") or self.default_code
        super().__init__(message=message if message is not None else self.default_message, **options)


class InvalidFrame(_CodedError):
    """The frame is not a request: not JSON, not an object, without an action."""

    default_code = "invalid_frame"
    default_message = _("The frame could not be read.")
    default_close_code = CloseCode.BAD_FRAMES


class InvalidData(_CodedError):
    """The payload does not fit the action. ``details`` lists ``loc``, ``type`` and ``message`` of each error."""

    default_code = "invalid_data"
    default_message = _("The data is not valid.")
    default_close_code = CloseCode.BAD_FRAMES
    http_status = 422


class InvalidCursor(InvalidData):
    """The cursor is no cursor, or one of another listing, of another order, or of an earlier life of a stream."""

    default_code = "invalid_cursor"
    default_message = _("The cursor is not valid. Begin with the first page.")


class InvalidPage(InvalidData):
    """There is no page of this number."""

    default_code = "invalid_page"
    default_message = _("There is no such page.")


class InvalidGroup(_CodedError):
    """A group's name is empty, too long, or has characters that no name may have."""

    default_code = "invalid_group"
    default_message = _("The group's name is not valid.")
    default_close_code = CloseCode.BAD_FRAMES


class ActionNotFound(_CodedError):
    """No action has this name."""

    default_code = "action_not_found"
    default_message = _("There is no such action.")
    default_close_code = CloseCode.BAD_FRAMES
    http_status = 404


class ActionDisabled(_CodedError):
    """The action exists and is switched off (``enabled=False``)."""

    default_code = "action_disabled"
    default_message = _("This action is disabled.")
    default_close_code = CloseCode.FORBIDDEN
    http_status = 403


class ActionDeprecated(ActionDisabled):
    """The action was deprecated and is now switched off."""

    default_code = "action_deprecated"
    default_message = _("This action is deprecated and no longer available.")


class ActionTimeout(_CodedError):
    """The action took longer than its ``timeout``."""

    default_code = "timeout"
    default_message = _("The action took too long.")
    default_close_code = CloseCode.TIMEOUT
    http_status = 504


class Cancelled(_CodedError):
    """The client asked for the request to be cancelled."""

    default_code = "cancelled"
    default_message = _("The request was cancelled.")
    default_close_code = CloseCode.NORMAL


class NotAuthenticated(_CodedError):
    """Who the client is must be known, and is not. ``challenge`` is the ``WWW-Authenticate`` of a refused handshake."""

    default_code = "not_authenticated"
    default_message = _("Authentication is required.")
    default_close_code = CloseCode.NOT_AUTHENTICATED
    http_status = 401

    def __init__(
        self, message: str | None = None, *, challenge: str | None = None, **options: Unpack[ErrorOptions]
    ) -> None:
        super().__init__(message, **options)
        self.challenge = challenge

    def http_headers(self) -> dict[str, str]:
        challenge = {} if self.challenge is None else {"www-authenticate": self.challenge}
        return {**super().http_headers(), **challenge}


class PermissionDenied(_CodedError):
    """The client may not do this."""

    default_code = "permission_denied"
    default_message = _("You do not have permission to do this.")
    default_close_code = CloseCode.FORBIDDEN
    http_status = 403


class NotFound(_CodedError):
    """What the request is about does not exist."""

    default_code = "not_found"
    default_message = _("Not found.")
    http_status = 404


class Throttled(_CodedError):
    """Too many requests. ``retry_after`` is the time in seconds after which the next one is allowed."""

    default_code = "throttled"
    default_message = _("Too many requests.")
    default_close_code = CloseCode.TOO_MANY_REQUESTS
    http_status = 429
    retryable = True

    def __init__(
        self, retry_after: float | None = None, message: str | None = None, **options: Unpack[ErrorOptions]
    ) -> None:
        super().__init__(message, **options)
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        body = super().body()
        if self.retry_after is not None:
            body["retry_after"] = round(self.retry_after, 3)
        return body

    def http_headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"retry-after": str(math.ceil(self.retry_after))}


class GroupFull(_CodedError):
    """The group has as many connections as ``max_connections`` allows."""

    default_code = "group_full"
    default_message = _("This group is full.")
    default_close_code = CloseCode.TRY_AGAIN_LATER
    http_status = 503
    http_retry_after = ROOM_AFTER
    retryable = True


class TooManyGroups(_CodedError):
    """The connection is in as many groups as it may be."""

    default_code = "too_many_groups"
    default_message = _("This connection is in too many groups.")


class BrokerUnavailable(_CodedError):
    """The broker between the processes does not answer: the message was not published."""

    default_code = "broker_unavailable"
    default_message = _("The message broker is not available.")
    default_close_code = CloseCode.TRY_AGAIN_LATER
    http_status = 503
    http_retry_after = BACK_AFTER
    retryable = True


class HistoryUnavailable(BrokerUnavailable):
    """The store of the groups' history does not answer."""

    default_code = "history_unavailable"
    default_message = _("The message history is not available.")


class MessageTooBig(_CodedError):
    """The broker between the processes does not carry messages of this size: it was not published."""

    default_code = "message_too_big"
    default_message = _("The message is too big for the broker.")
    default_close_code = CloseCode.MESSAGE_TOO_BIG
    http_status = 413


#: Statuses of what passes by itself (RFC 9110: Request Timeout, Service Unavailable; RFC 8470: Too Early).
_PASSING = frozenset({408, 425, 503})


class HTTPError(_CodedError):
    """A dependency raised an ``HTTPException`` with a status that has no error of its own. ``status`` holds it.

    ``retryable`` for 408, 425 and 503.
    """

    default_code = "http_error"
    default_message = _("The request failed.")

    def __init__(self, status: int, message: str | None = None, **options: Unpack[ErrorOptions]) -> None:
        super().__init__(message, **options)
        self.status = self.http_status = status
        if options.get("retryable") is None:
            self.retryable = status in _PASSING

    def body(self) -> dict[str, Any]:
        return {**super().body(), "status": self.status}


class InternalError(_CodedError):
    """Something failed that the client can do nothing about. It is told nothing more; the log has the traceback."""

    default_code = "internal_error"
    default_message = _("An internal error occurred.")
    default_close_code = CloseCode.INTERNAL_ERROR
    http_status = 500
