"""The Valkey servers of the transports' tests."""

from tests.transports.conftest import broker, cluster, make_broker, own_broker

__all__ = ["broker", "cluster", "make_broker", "own_broker"]
