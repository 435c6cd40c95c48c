"""The tables of history in a database. Times are seconds since 1970, durations are seconds.

``fc_streams``: a row for each group that has a stream.

=============  ========================================================================================
``id``         what the other tables name it by
``group_name`` unique
``epoch``      this life of the stream
``top``        the newest event's number, 0 if there was none yet
``bottom``     events up to this number have been deleted for the stream's size
``at``         when the newest event was appended
``oldest_at``  no event is older than this; null if there is none
``used_at``    when it was appended to, or asked for its position, last; the latter to the day
``size``       how many events are kept
``ttl``        for how long an event is kept, null for no limit
=============  ========================================================================================

``fc_events``: ``stream_id``, ``seq`` (the event's number, which clients know as its offset), ``at``, ``packet`` (what
is published, see :mod:`fastapi_consumers.packets`). Its primary key, ``(stream_id, seq)``, is what reads use.

``fc_keys``: ``stream_id``, ``key`` (an idempotency key), ``seq``, ``at``.

``fc_templates``: ``template``, ``size``, ``ttl``.

A row that is still there may be beyond its stream's size or older than its ttl: rows are deleted in numbers. Who reads
the tables by other means adds ``seq > top - size`` and ``at >= now - ttl``.
"""

import re

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, MetaData, String, Table

DEFAULT_PREFIX = "fc_"
_PREFIX = re.compile(r"[a-z_][a-z0-9_]{0,31}")


class Tables:
    """The tables, with names that begin with ``prefix``, on a ``MetaData`` of their own.

    ``Tables().metadata`` is what a migration tool such as Alembic compares with. Raises ``ValueError`` for a prefix
    that is not 1 to 32 small ASCII letters, digits and underscores.
    """

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ValueError(f"{prefix!r} cannot begin a table's name; expected small letters, digits and underscores.")
        self.metadata = MetaData()
        # Only an INTEGER numbers itself in SQLite.
        number = BigInteger().with_variant(Integer, "sqlite")
        self.streams = Table(
            f"{prefix}streams",
            self.metadata,
            Column("id", number, primary_key=True, autoincrement=True),
            Column("group_name", String(255), nullable=False, unique=True),
            Column("epoch", String(32), nullable=False),
            Column("top", BigInteger, nullable=False),
            Column("bottom", BigInteger, nullable=False),
            Column("at", Double, nullable=False),
            Column("oldest_at", Double),
            Column("used_at", Double, nullable=False),
            Column("size", Integer, nullable=False),
            Column("ttl", Double),
        )
        self.events = Table(
            f"{prefix}events",
            self.metadata,
            Column("stream_id", BigInteger, primary_key=True, autoincrement=False),
            Column("seq", BigInteger, primary_key=True, autoincrement=False),
            Column("at", Double, nullable=False),
            Column("packet", LargeBinary, nullable=False),
            # One tree, in the order of reading, in place of a table and an index.
            sqlite_with_rowid=False,
        )
        self.keys = Table(
            f"{prefix}keys",
            self.metadata,
            Column("stream_id", BigInteger, primary_key=True, autoincrement=False),
            Column("key", String(255), primary_key=True),
            Column("seq", BigInteger, nullable=False),
            Column("at", Double, nullable=False),
            Index(f"{prefix}keys_at", "at"),
            sqlite_with_rowid=False,
        )
        self.templates = Table(
            f"{prefix}templates",
            self.metadata,
            Column("template", String(255), primary_key=True),
            Column("size", Integer, nullable=False),
            Column("ttl", Double),
        )
