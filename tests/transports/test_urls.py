"""Which transport a URL means, and what is said of one that means none."""

import sys
from datetime import timedelta

import pytest

from fastapi_consumers import ImproperlyConfigured
from fastapi_consumers.redis_client import SCHEMES
from fastapi_consumers.transports import MemoryTransport, RedisTransport
from fastapi_consumers.transports.broadcaster import BroadcasterTransport
from fastapi_consumers.transports.urls import transport_of


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("memory://", MemoryTransport),
        ("unix:///run/valkey.sock", RedisTransport),
        ("postgresql://user:secret@localhost/db", BroadcasterTransport),
        ("postgres://user:secret@localhost/db", BroadcasterTransport),
    ],
)
def test_the_scheme_decides(url, kind):
    transport = transport_of(url)
    assert type(transport) is kind
    assert "secret" not in repr(transport)


@pytest.mark.parametrize("mode", ["", "+sentinel", "+cluster"])
@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
def test_every_scheme_of_redis_is_known(scheme, mode):
    assert f"{scheme}{mode}" in SCHEMES
    assert type(transport_of(f"{scheme}{mode}://one{'?service=a' * ('sentinel' in mode)}")) is RedisTransport


@pytest.mark.parametrize(
    "url",
    ["", "localhost", "carrier-pigeon://:secret@a", "redis://:12/secret@one", "http://[secret", None, b"memory://"],
)
def test_what_means_none_is_refused_without_its_secrets(url):
    with pytest.raises(ImproperlyConfigured) as caught:
        transport_of(url)
    assert [problem.code for problem in caught.value.problems] == ["bad-url"]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("timeout", [2, 2.0, timedelta(seconds=2)])
def test_the_timeout_reaches_the_transport_in_seconds(timeout):
    transport = transport_of("redis://localhost", broker_timeout=timeout)
    assert isinstance(transport, RedisTransport)
    assert transport.client.timeout == 2.0


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "1", None, True, timedelta()])
def test_a_timeout_that_is_none_is_refused(timeout):
    with pytest.raises(ImproperlyConfigured) as caught:
        transport_of("memory://", broker_timeout=timeout)
    assert [problem.code for problem in caught.value.problems] == ["bad-broker-timeout"]


@pytest.mark.parametrize(
    ("url", "module", "backend", "extra"),
    [
        ("postgresql://:secret@localhost/db", "asyncpg", "postgres", "postgres"),
        ("kafka://localhost:9092", "aiokafka", "kafka", "kafka"),
    ],
)
def test_a_backend_whose_package_is_not_installed_names_the_extra(monkeypatch, url, module, backend, extra):
    monkeypatch.delitem(sys.modules, f"broadcaster._backends.{backend}", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImproperlyConfigured) as caught:
        transport_of(url)
    [problem] = caught.value.problems
    assert problem.code == "missing-extra"
    assert module in problem.found
    assert problem.fix == f"pip install 'fastapi-consumers[{extra}]'"
    assert "secret" not in str(caught.value)
