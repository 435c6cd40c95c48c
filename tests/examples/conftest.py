"""What the tests of several examples need."""

from collections.abc import Callable

import pytest
from fastapi import FastAPI

from fastapi_consumers.testing import Clock
from fastapi_consumers.throttling import TokenBuckets


@pytest.fixture
def stop_time() -> Callable[[FastAPI], Clock]:
    """Have the limits of an app go by a clock that the test turns: however slow the machine, nothing is given back."""

    def stop(app: FastAPI) -> Clock:
        clock = Clock()
        app.state.consumers.buckets = TokenBuckets(clock)
        return clock

    return stop
