"""From an exception to what the client is told of it."""

import logging
from typing import Any

from starlette.exceptions import WebSocketException

from .connection import Connection
from .dependencies import error_from_dependency
from .exceptions import ConsumerError, InternalError
from .facts import log_extra
from .redaction import without_input
from .stepping import settled
from .texts import gettext_lazy as _

logger = logging.getLogger(__name__)


def log_failure(
    log: logging.Logger, failure: BaseException, connection: Connection, text: str, *arguments: Any
) -> None:
    """Log an exception that nobody expected, with its traceback and whose connection it was; not what a client sent."""
    log.error(text, *arguments, exc_info=without_input(failure), extra=log_extra(connection))


async def explain(failure: Exception, where: str, consumer: Any, connection: Connection) -> ConsumerError:
    """The error for an exception. Never raises; what nobody expected is logged with its traceback.

    Asked in this order: the class's ``exception_handlers``, the application's, FastAPI's handlers for a
    ``ConsumerError``. One that answers ``None`` leaves it to the next. Then the exception's own meaning counts.

    Args:
        where: what failed, for the log.
    """
    try:
        error = await _ask_handlers(failure, consumer, connection)
    except ConsumerError as raised:
        return raised
    except Exception as broken:
        kind = type(failure).__qualname__
        log_failure(logger, broken, connection, "an exception handler failed on %s", kind)
        return InternalError()
    if error is not None:
        return error
    if isinstance(failure, ConsumerError):
        return failure
    if isinstance(failure, WebSocketException):
        try:
            error = ConsumerError("closed", failure.reason or _("The socket was closed."), close_code=failure.code)
        except ValueError:
            log_failure(logger, failure, connection, "%s raised a WebSocketException that cannot be sent", where)
            return InternalError(close=True)
        error.http_status = 403  # As Starlette answers it before accept.
        return error
    if (known := error_from_dependency(failure)) is not None:
        return known
    log_failure(logger, failure, connection, "%s of %s failed", where, connection.plan.options.name)
    return InternalError()


async def is_handled(failure: Exception, consumer: Any, connection: Connection) -> bool:
    """Whether a handler answered for an exception of which no client can be told any more. Never raises."""
    try:
        return consumer is not None and await _ask_handlers(failure, consumer, connection) is not None
    except ConsumerError:
        return True
    except Exception as broken:
        log_failure(logger, broken, connection, "an exception handler failed on %s", type(failure).__qualname__)
        return False


async def _ask_handlers(failure: Exception, consumer: Any, connection: Connection) -> ConsumerError | None:
    for handlers in connection.plan.exception_handlers:
        handler = next((handlers[kind] for kind in type(failure).__mro__ if kind in handlers), None)
        if handler is not None:
            error = await settled(handler(consumer, failure))
            if error is not None:
                return _checked(error, handler)
    if isinstance(failure, ConsumerError):
        handler = _fastapi_handler(failure, connection)
        if handler is not None:
            error = await settled(handler(connection.websocket, failure))
            return error if isinstance(error, ConsumerError) else None
    return None


def _fastapi_handler(failure: ConsumerError, connection: Connection) -> Any:
    """The user's own ``app.exception_handler`` for this error, or for a base of it up to ``ConsumerError``."""
    handlers = getattr(connection.scope.get("app"), "exception_handlers", None) or {}
    for kind in type(failure).__mro__:
        handler = handlers.get(kind)
        if handler is not None and not getattr(handler, "is_default", False):
            return handler
        if kind is ConsumerError:
            break
    return None


def _checked(error: Any, handler: Any) -> ConsumerError:
    if not isinstance(error, ConsumerError):
        raise TypeError(f"{handler!r} returned {error!r}, where a ConsumerError or None is expected")
    return error
