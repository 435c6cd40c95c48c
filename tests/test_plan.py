"""What is decided once per class and application."""

import pytest

from fastapi_consumers import Consumer, GroupConsumer, RelayConsumer
from fastapi_consumers.plan import Defaults, Plan


def plan(cls):
    return Plan(cls, Defaults(), {})


async def method(self, *args, **kwargs):
    """Overrides something."""


@pytest.mark.parametrize(
    ("base", "overrides", "reads_raw", "counts_frames"),
    [
        (GroupConsumer, (), False, False),
        (GroupConsumer, ("connect",), False, False),
        # What it reads may be another language; what it asks for is counted where an action is asked for.
        (GroupConsumer, ("decode_json",), True, False),
        (GroupConsumer, ("receive_json",), True, True),
        (GroupConsumer, ("receive",), True, True),
        (Consumer, ("receive",), True, True),
        (Consumer, (), True, True),
        (RelayConsumer, (), True, True),
    ],
)
def test_where_frames_go_and_who_counts_them(base, overrides, reads_raw, counts_frames):
    attributes = dict.fromkeys(overrides, method)
    if "decode_json" in attributes:
        attributes["decode_json"] = classmethod(method)
    made = plan(type(base)("Made", (base,), attributes))
    assert (made.reads_raw, made.counts_frames) == (reads_raw, counts_frames)
