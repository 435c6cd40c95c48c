"""The short form of ``benchmarks/rolling.py``."""

from tests.server.rolling import Run


async def test_a_rolling_restart_loses_nothing_and_closes_one_after_another(tmp_path):
    run = Run(tmp_path, clients=24, rooms=2, seconds=0.3, drain_timeout=3)
    await run.run()
    run.verify()
    # Everybody was told, by the code and by the notice.
    assert run.counts["closed"] == run.counts["closed with 1012"] == run.counts["told when to come again"]
    for server in run.servers:
        # 12 at the least, of which 10 are closed in a second.
        assert server.closes[-1] - server.closes[0] > 0.5, run.report()
