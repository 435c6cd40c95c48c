"""The lists that a page shows: sent whole once, then what changes in them."""

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from . import models
from .gathering import Gathering

Row = dict[str, Any]


class View(BaseModel):
    """What a page wants to see in one place of it, which ``id`` names."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1, max_length=32)
    kind: Literal["connections", "groups", "processes"]
    order: str = Field(default="", max_length=16)
    limit: int = Field(default=50, ge=1, le=100)
    cursor: str | None = Field(default=None, max_length=2048)
    search: str | None = Field(default=None, max_length=255)
    group: str | None = Field(default=None, max_length=255)
    user: str | None = Field(default=None, max_length=255)


class Page(NamedTuple):
    """Rows by key, in their order, and what is said of all of them."""

    rows: dict[str, Row]
    facts: dict[str, Any]


async def read(gathering: Gathering, view: View) -> Page:
    """Raises ``InvalidCursor``."""
    found: models.ConnectionPage | models.GroupPage | models.ProcessList
    if view.kind == "connections":
        order: Any = view.order if view.order in CONNECTION_ORDERS else "newest"
        found = await gathering.connections(
            order=order, limit=view.limit, cursor=view.cursor, search=view.search, group=view.group, user=view.user
        )
        rows = {item.channel: _row(item) for item in found.results}
    elif view.kind == "groups":
        by: Any = view.order if view.order in GROUP_ORDERS else "name"
        found = await gathering.groups(order=by, limit=view.limit, cursor=view.cursor, search=view.search)
        rows = {item.name: _row(item) for item in found.results}
    else:
        found = await gathering.processes()
        rows = {item.process: _row(item) for item in found.results}
    return Page(rows, found.model_dump(mode="json", exclude={"results"}))


def whole(page: Page) -> dict[str, Any]:
    """A page as it is sent first."""
    return {"rows": list(page.rows.values()), "keys": list(page.rows), **page.facts}


def delta(before: Page, after: Page) -> dict[str, Any]:
    """What to send to who has ``before``: changed fields of rows, the order if that is another, facts. May be empty."""
    changes: dict[str, Any] = {}
    for key, row in after.rows.items():
        old = before.rows.get(key)
        if old is None:
            changes[key] = row
        elif old != row:
            changes[key] = {name: row.get(name) for name in {*old, *row} if old.get(name) != row.get(name)}
    found: dict[str, Any] = {"rows": changes} if changes else {}
    if list(before.rows) != list(after.rows):
        found["keys"] = list(after.rows)
    found |= {name: value for name, value in after.facts.items() if before.facts.get(name) != value}
    return found


def _row(item: BaseModel) -> Row:
    row = item.model_dump(mode="json", exclude_none=True, exclude={"uptime"})
    if "health" in row:  # Of which most changes all the time, and nothing else is shown.
        row["health"] = {name: row["health"].get(name) for name in ("healthy", "connections", "groups")}
    return row


CONNECTION_ORDERS = ("newest", "oldest", "queued", "sent", "dropped")
GROUP_ORDERS = ("name", "size")
