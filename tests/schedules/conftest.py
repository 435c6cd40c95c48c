"""Stores of schedules, each with a clock that the tests turn."""

import secrets
from typing import Any

import pytest

from fastapi_consumers.schedule_stores import MemoryScheduleStore, RedisScheduleStore
from fastapi_consumers.schedule_stores.sql import SQLScheduleStore
from fastapi_consumers.testing.clock import Clock
from tests.transports.conftest import broker, cluster, make_broker, own_broker

__all__ = ["broker", "cluster", "make_broker", "own_broker"]

#: A Saturday, 2026-11-21 12:00 UTC.
START = 1_795_262_400


@pytest.fixture
def clock():
    return Clock(START)


@pytest.fixture
def make_store(clock, request, tmp_path):
    """Makes stores of one kind that share what they keep."""
    prefix = f"t{secrets.token_hex(4)}"

    def make(kind: str) -> Any:
        if kind == "memory":
            return MemoryScheduleStore(clock)
        if kind == "sqlite":
            return SQLScheduleStore(f"sqlite:///{tmp_path / 'schedules.db'}", clock=clock)
        if kind == "postgres":
            return SQLScheduleStore(request.getfixturevalue("postgres_url"), table_prefix=f"{prefix}_", clock=clock)
        server = request.getfixturevalue("cluster" if kind == "cluster" else "broker")
        return RedisScheduleStore(f"{server.url}?prefix={prefix}:", clock=clock)

    return make
