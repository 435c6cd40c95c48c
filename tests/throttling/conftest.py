"""The Valkey servers of the transports' tests, and apps in pairs, as two processes would have them."""

import secrets

import pytest

from tests.consumers.conftest import make_app
from tests.transports.conftest import broker, cluster, make_broker, own_broker

__all__ = ["broker", "cluster", "make_app", "make_broker", "own_broker"]


@pytest.fixture
def url(broker) -> str:
    """Keys of the test's own on a server that others use too."""
    return f"{broker.url}?prefix={secrets.token_hex(6)}:"
