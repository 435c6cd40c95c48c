"""The access log: a line for each connection when it has ended, and one for each action if that is asked for."""

import logging

from .connection import Connection
from .facts import facts_of, log_extra
from .observing import Call, Observer
from .printable import MAX_SHOWN, printable, word

#: Its lines are of level INFO, which is not shown unless logging is told to.
logger = logging.getLogger("fastapi_consumers.access")


class AccessLog(Observer):
    """One line per connection. Installed by ``add_consumers`` unless it is told ``access_log=False``.

    Address, user, path without its query, consumer, close code and who closed, seconds, messages and bytes in and out
    (``-`` where they are not counted). All of it stands in the record's attributes too, for a formatter of JSON.
    """

    def connection_closed(self, connection: Connection) -> None:
        if logger.isEnabledFor(logging.INFO):
            self._log(connection, "closed")

    def connection_refused(self, connection: Connection) -> None:
        if logger.isEnabledFor(logging.INFO):
            self._log(connection, "refused")

    def _log(self, connection: Connection, what: str) -> None:
        facts = facts_of(connection)
        logger.info(
            '%s %s "%s" %s %s %s by %s %s %.3fs in %s/%s out %s/%s',
            word(facts["address"]),
            word(facts["user"]),
            word(facts["path"], len(facts["path"])),
            facts["consumer"],
            what,
            facts["close_code"] if facts["close_code"] is not None else "-",
            facts["closed_by"] or "-",
            word(facts["close_reason"]),
            facts["duration"],
            *(word(facts[name]) for name in ("messages_in", "bytes_in", "messages_out", "bytes_out")),
            extra={**facts, "outcome": what},
        )


class ActionLog(AccessLog):
    """One line per action or event method too: ``add_consumers(access_log="actions")``.

    WARNING for what failed with an error that nobody expected, INFO for all else, refusals too.
    """

    def call_ended(self, call: Call) -> None:
        level = logging.WARNING if call.outcome == "internal_error" else logging.INFO
        if not logger.isEnabledFor(level):
            return
        extra = log_extra(
            call.connection,
            request_id=call.request_id,
            consumer=call.connection.plan.options.name,
            action=printable(call.name),
            kind=call.kind,
            outcome=call.outcome,
            duration=call.duration,
        )
        logger.log(
            level,
            "%s %s %s.%s %s %.6fs %s",
            word(extra["address"]),
            word(extra["user"]),
            extra["consumer"],
            word(call.name),
            word(call.outcome),
            call.duration,
            word(extra.get("request_id"), 2 * MAX_SHOWN),
            extra=extra,
        )
