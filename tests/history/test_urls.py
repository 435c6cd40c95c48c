"""Which store a URL means, and what is said of one that means none."""

import subprocess
import sys

import pytest

from fastapi_consumers.exceptions import ImproperlyConfigured
from fastapi_consumers.history import MemoryHistoryStore, RedisHistoryStore, store_of
from fastapi_consumers.history.sql import SQLHistoryStore
from fastapi_consumers.redis_client import RedisClient


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("memory://", MemoryHistoryStore),
        ("redis://localhost", RedisHistoryStore),
        ("rediss://u:p@localhost/1", RedisHistoryStore),
        ("valkey://localhost", RedisHistoryStore),
        ("unix:///run/valkey.sock", RedisHistoryStore),
        ("sqlite:///chat.db", SQLHistoryStore),
        ("sqlite+aiosqlite:////var/lib/chat.db", SQLHistoryStore),
        ("postgresql://u:p@localhost/chat", SQLHistoryStore),
        ("postgresql+asyncpg://localhost/chat", SQLHistoryStore),
        ("postgres://localhost/chat", SQLHistoryStore),
    ],
)
def test_every_kind_of_url_has_its_store(url, kind):
    for store in (store_of(url), store_of(url, timeout=2.5)):
        assert type(store) is kind


def test_the_store_shares_a_client():
    client = RedisClient("redis://localhost")
    assert store_of(client).client is client


def test_the_timeout_is_the_one_that_is_asked_for():
    assert store_of("redis://localhost", timeout=2.5).client.timeout == 2.5
    assert store_of("sqlite:///chat.db", timeout=2.5)._database.timeout == 2.5


@pytest.mark.parametrize(
    "url",
    [
        "",
        "chat.db",
        "mysql://u:secret@localhost/chat",
        "kafka://u:secret@localhost",
        "postgresql+psycopg://u:secret@localhost/chat",
        "sqlite+pysqlite:///chat.db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite+aiosqlite:///file::memory:?cache=shared",
        "postgresql://u:secret@localhost:port/chat",
        "postgresql://[u:secret@localhost",
        "redis://u:secret@localhost:port",
        b"sqlite:///chat.db",
        None,
    ],
)
def test_other_urls_are_refused_without_their_password(url):
    with pytest.raises(ImproperlyConfigured) as caught:
        store_of(url)
    assert [problem.code for problem in caught.value.problems] == ["bad-url"]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "url", "extra"),
    [
        ("sqlalchemy", "sqlite:///chat.db", "sql"),
        ("aiosqlite", "sqlite:///chat.db", "sql"),
        ("sqlalchemy", "postgresql://u:secret@localhost/chat", "sql"),
        ("asyncpg", "postgresql://u:secret@localhost/chat", "postgres"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(module, url, extra):
    program = f"""
import sys
sys.modules[{module!r}] = None
from fastapi_consumers.exceptions import ImproperlyConfigured
from fastapi_consumers.history import store_of
try:
    store_of({url!r})
except ImproperlyConfigured as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert f"[missing-extra] {url.replace('u:secret', '***')}" in done.stdout
    assert f"pip install 'fastapi-consumers[{extra}]'" in done.stdout
    assert module in done.stdout
