"""The tables of history in a database. Times are seconds since 1970, durations are seconds.

A row of the events that is still there may be beyond its stream's size or older than its ttl: rows are deleted in
numbers, and reads leave out what is not kept. An event's offset is called ``seq``, since OFFSET is a word of SQL.
"""

import re
from typing import Protocol

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, MetaData, String, Table

DEFAULT_PREFIX = "fc_"
_PREFIX = re.compile(r"[a-z_][a-z0-9_]{0,31}")


class HasTables(Protocol):
    """Tables that a database can be asked to create."""

    metadata: MetaData


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
            # What the other tables name it by.
            Column("id", number, primary_key=True, autoincrement=True),
            Column("group_name", String(255), nullable=False, unique=True),
            Column("epoch", String(32), nullable=False),
            Column("top", BigInteger, nullable=False),
            # Events up to this one have been deleted for the stream's size.
            Column("bottom", BigInteger, nullable=False),
            # When the newest event was appended; no event is older than the second, null if there is none.
            Column("at", Double, nullable=False),
            Column("oldest_at", Double),
            # When it was appended to, or, to the day, asked for its position.
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
