"""The short form of ``benchmarks/chaos.py``."""

import pytest

from tests.server.chaos import Run

pytestmark = pytest.mark.chaos


async def test_whatever_goes_wrong_everybody_gets_everything_once_and_in_order_or_is_told(tmp_path, capsys):
    # It would prove nothing if nothing had happened.
    expected = ("recovered", "not recovered", "gaps told", "connections cut", "trims", "purges", "servers: heals")
    run = Run(tmp_path, seconds=6, clients=16, rooms=2, writers=2, faults=0.03, seed=1, expected=expected)
    await run.run()
    with capsys.disabled():
        print("\n" + run.report())
    run.verify()
    assert all(run.counts[name] for name in expected), run.report()
