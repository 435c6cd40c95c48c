"""Whatever is done to a store, in whatever order, it answers as a plain list would."""

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from fastapi_consumers.history import History, MemoryHistoryStore
from fastapi_consumers.history.base import REMEMBERED_FOR
from fastapi_consumers.history.sql import SQLHistoryStore
from tests.history.conftest import Clock

GROUPS = st.sampled_from(["a", "b"])
HISTORIES = st.builds(History, st.integers(1, 6), st.none() | st.sampled_from([5.0, 20.0]))
BOUNDS = st.none() | st.integers(-2, 30)


class Model:
    """One stream as a list of everything that was ever appended to it: (packet, at)."""

    def __init__(self, epoch, history):
        self.epoch = epoch
        self.history = history
        self.events = []
        self.keys = {}
        #: What was returned as gone once is gone, even if later settings would keep it.
        self.gone = 0

    def kept(self, now):
        """(offset, packet, at) of what a read may return: nothing that the settings drop."""
        size, seconds = self.history.size, self.history.seconds
        everything = [(offset, *event) for offset, event in enumerate(self.events, 1)]
        return [
            event
            for event in everything
            if event[0] > len(everything) - size and (seconds is None or event[2] >= now - seconds)
        ]


class Machine(RuleBasedStateMachine):
    kind = "memory"

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.runner = asyncio.Runner()
        self.folder = None
        if self.kind == "memory":
            self.store = MemoryHistoryStore(time=self.clock)
        else:
            self.folder = Path(tempfile.mkdtemp())
            self.store = SQLHistoryStore(f"sqlite:///{self.folder / 'history.db'}", time=self.clock, timeout=30)
        self.runner.run(self.store.open())
        self.models = {}
        self.epochs = set()
        self.count = 0

    def model(self, group, epoch, history):
        if group not in self.models:
            assert epoch not in self.epochs
            self.epochs.add(epoch)
            self.models[group] = Model(epoch, history)
        model = self.models[group]
        assert epoch == model.epoch
        model.history = history
        return model

    @rule(group=GROUPS, history=HISTORIES, key=st.none() | st.sampled_from(["k", "l"]), times=st.integers(1, 4))
    def append(self, group, history, key, times):
        async def run():
            appends = []
            for number in range(times):
                packet = b"%d.%d" % (self.count, number)
                appends.append(self.store.append(group, packet, history, idempotency_key=key))
            return await asyncio.gather(*appends)

        results = self.runner.run(run())
        now = self.clock.now
        for number, result in enumerate(results):
            known = self.models[group].keys.get(key) if key is not None and group in self.models else None
            if known is not None and known[1] >= now - REMEMBERED_FOR:
                assert result == ((self.models[group].epoch, known[0]), False)
                continue
            model = self.model(group, result.position.epoch, history)
            model.events.append((b"%d.%d" % (self.count, number), now))
            assert (result.position.offset, result.is_new) == (len(model.events), True)
            if key is not None:
                model.keys[key] = (len(model.events), now)
        self.count += 1

    @rule(group=GROUPS, history=HISTORIES)
    def position(self, group, history):
        position = self.runner.run(self.store.position(group, history))
        assert position.offset == len(self.model(group, position.epoch, history).events)

    @rule(group=GROUPS, after=BOUNDS, before=BOUNDS, limit=st.integers(1, 8), newest_first=st.booleans())
    def read(self, group, after, before, limit, newest_first):
        found = self.runner.run(
            self.store.read(group, after=after, before=before, limit=limit, newest_first=newest_first)
        )
        model = self.models.get(group)
        if model is None:
            assert found == ("", 0, [])
            return
        assert (found.epoch, found.top) == (model.epoch, len(model.events))
        low, high = -10 if after is None else after, 10**6 if before is None else before
        # What was dropped for earlier, narrower settings may be gone for good; nothing newer than that is.
        allowed = [event for event in model.kept(self.clock.now) if low < event[0] < high]
        sure = [event for event in allowed if event[0] > model.gone]
        allowed, sure = (events[::-1] if newest_first else events for events in (allowed, sure))
        entries = [tuple(entry) for entry in found.entries]
        if newest_first:
            assert entries == allowed[:limit][: len(entries)]
            assert len(entries) >= len(sure[:limit])
        else:
            start = len(allowed) - len(sure)
            assert any(entries == allowed[skipped:][:limit] for skipped in range(start + 1))

    @rule(group=GROUPS)
    def remove(self, group):
        self.runner.run(self.store.remove(group))
        self.models.pop(group, None)

    @rule(seconds=st.sampled_from([1.0, 4.0, 10.0, 301.0]))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule()
    def sweep(self):
        if self.kind != "memory":
            self.runner.run(self.store.sweep())

    @rule()
    def restart(self):
        self.runner.run(self.store.close())
        self.runner.run(self.store.open())
        if self.kind == "memory":
            self.models.clear()

    @invariant()
    def positions_agree(self):
        found = self.runner.run(self.store.positions(["a", "b"]))
        assert found == {group: (model.epoch, len(model.events)) for group, model in self.models.items()}
        for model in self.models.values():
            kept = model.kept(self.clock.now)
            model.gone = max(model.gone, kept[0][0] - 1 if kept else len(model.events))

    def teardown(self):
        self.runner.run(self.store.close())
        self.runner.close()
        if self.folder is not None:
            shutil.rmtree(self.folder)


class SQLiteMachine(Machine):
    kind = "sqlite"


@pytest.mark.parametrize(("machine", "examples"), [(Machine, 150), (SQLiteMachine, 25)])
def test_a_store_is_a_list(machine, examples):
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=30, deadline=None))
