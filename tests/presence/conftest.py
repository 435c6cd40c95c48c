"""The Valkey servers of the transports' tests."""

from tests.transports.conftest import broker, make_broker, own_broker

__all__ = ["broker", "make_broker", "own_broker"]
