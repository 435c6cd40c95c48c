"""The page's files, as they are shipped: no build step, and nothing from anywhere else."""

import hashlib
import html
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from fastapi import Request, Response

from ..exceptions import NotFound

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
#: What the page may do: only what is its own, and in no other page's frame.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "cache-control": "private, no-cache",
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class File(NamedTuple):
    content: bytes
    media_type: str
    etag: str


@cache
def _files() -> dict[str, File]:
    found = {}
    for each in files(__package__).joinpath("static").iterdir():
        kind = _TYPES.get(each.name.rpartition(".")[2])
        if kind is not None:
            content = each.read_bytes()
            found[each.name] = File(content, kind, f'"{hashlib.sha256(content).hexdigest()[:20]}"')
    return found


@cache
def _template() -> str:
    return files(__package__).joinpath("static", "index.html").read_text("utf-8")


async def page(request: Request) -> Response:
    """The page. What it loads is named relative to the last part of its own path, so that no proxy has to be known."""
    here = html.escape(request.url.path.rstrip("/").rpartition("/")[2])
    base = f"{here}/" if not request.url.path.endswith("/") else "./"
    return Response(_template().replace("{{base}}", base), headers=_HEADERS, media_type="text/html")


async def file(name: str, request: Request) -> Response:
    """One of its files."""
    found = _files().get(name)
    if found is None:
        raise NotFound
    headers = {**_HEADERS, "etag": found.etag}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, headers=headers, media_type=found.media_type)
