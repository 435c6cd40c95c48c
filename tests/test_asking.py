"""Questions to all processes: who answers, who is waited for, what does not get through."""

import asyncio

import pytest

from fastapi_consumers import asking
from fastapi_consumers.addressing import CONTROL, PROCESS
from fastapi_consumers.asking import Asking
from fastapi_consumers.exceptions import BrokerUnavailable, MessageTooBig, NotFound
from fastapi_consumers.hub import Hub
from fastapi_consumers.packets import Packet
from fastapi_consumers.testing import Clock
from fastapi_consumers.transports import MemoryTransport, Transport

#: Seconds that nobody waits for unless something is wrong.
LONG = 30.0


class Bus:
    """What several processes are connected to."""

    def __init__(self, max_packet=None, counts=True):
        self.members = []
        self.max_packet = max_packet
        self.counts = counts
        self.is_down = False
        self.packets = []

    def transport(self):
        return BusTransport(self)


class BusTransport(Transport):
    is_distributed = True

    def __init__(self, bus):
        self.bus, self.topics = bus, set()
        self.max_packet, self.counts_subscribers = bus.max_packet, bus.counts

    async def open(self, deliver):
        self.deliver = deliver
        self.bus.members.append(self)

    async def close(self):
        if self in self.bus.members:
            self.bus.members.remove(self)

    async def publish(self, topic, packet):
        if self.bus.is_down:
            raise BrokerUnavailable
        if self.max_packet is not None and len(packet) > self.max_packet:
            raise MessageTooBig
        self.bus.packets.append((topic, packet))
        for member in list(self.bus.members):
            if topic in member.topics:
                asyncio.get_running_loop().call_soon(asyncio.ensure_future, member.deliver(topic, packet))

    async def subscribe(self, topic):
        self.topics.add(topic)

    async def unsubscribe(self, topic):
        self.topics.discard(topic)

    async def count_subscribers(self, topic):
        return sum(topic in member.topics for member in self.bus.members) if self.bus.counts else None


async def name_of(arguments):
    return {"asked": arguments}


@pytest.fixture
async def start():
    """Starts processes, which end with the test."""
    started = []

    async def start(bus=None, **answers):
        hub = Hub(bus.transport() if bus is not None else MemoryTransport())
        await hub.open()
        process = Asking(hub)
        for question, answerer in answers.items():
            process.answer(question, answerer)
        await process.open()
        started.append((hub, process))
        return process

    yield start
    for hub, process in started:
        await process.close()
        await hub.close()


@pytest.fixture
def ask_in_vain(monkeypatch):
    """Asks, and turns the loop's clock to the end of the time once nobody has more to say."""
    turned = 0.0

    async def ask(process, *arguments):
        nonlocal turned
        loop = asyncio.get_running_loop()
        if not turned:
            time = loop.time
            monkeypatch.setattr(loop, "time", lambda: time() + turned)
        asked = asyncio.create_task(process.ask(*arguments, timeout=LONG))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not asked.done()
        turned += LONG
        return await asked

    return ask


async def test_one_process_answers_itself(start):
    process = await start(name=name_of)
    found = await process.ask("name", {"a": 1}, timeout=LONG)
    assert found == ({process.process: {"asked": {"a": 1}}}, {}, [], 0)


@pytest.mark.parametrize("counts", [True, False])
async def test_all_answer_and_nobody_waits_longer_than_that(start, ask_in_vain, counts):
    bus = Bus(counts=counts)
    processes = [await start(bus, name=name_of) for _ in range(3)]
    if not counts:  # Who came before this one is learnt with the first question, which takes all its time.
        await ask_in_vain(processes[2], "name")
    found = await processes[2].ask("name", timeout=LONG)
    assert set(found.answers) == {each.process for each in processes}
    assert (found.errors, found.missing, found.silent) == ({}, [], 0)


@pytest.mark.parametrize("counts", [True, False])
async def test_who_does_not_answer_in_time_is_named(start, ask_in_vain, counts):
    bus = Bus(counts=counts)
    never = asyncio.Event()

    async def wait(arguments):
        if arguments:
            await never.wait()

    one, two = await start(bus, name=wait), await start(bus, name=wait)
    await (one.ask("name", timeout=LONG) if counts else ask_in_vain(one, "name"))
    one.answer("name", name_of)
    found = await ask_in_vain(one, "name", {"a": 1})
    assert (list(found.answers), found.missing, found.silent) == ([one.process], [two.process], 1)


async def test_who_was_never_heard_of_is_counted_at_least(start, ask_in_vain):
    bus = Bus()
    process = await start(bus, name=name_of)
    stranger = bus.transport()
    await stranger.open(lambda topic, packet: asyncio.sleep(0))
    await stranger.subscribe(CONTROL)
    found = await ask_in_vain(process, "name")
    assert (list(found.answers), found.missing, found.silent) == ([process.process], [], 1)


async def test_who_said_goodbye_is_not_waited_for(start, ask_in_vain):
    bus = Bus(counts=False)
    one, two = await start(bus, name=name_of), await start(bus, name=name_of)
    await ask_in_vain(one, "name")
    await two.close()
    await two._hub.close()
    found = await one.ask("name", timeout=LONG)
    assert (list(found.answers), found.missing) == ([one.process], [])


async def test_who_was_not_heard_of_for_a_minute_is_forgotten(start, ask_in_vain):
    bus, clock = Bus(counts=False), Clock()
    one, two = await start(bus, name=name_of), await start(bus, name=name_of)
    one._clock = clock
    one._known[two.process] = clock()
    await ask_in_vain(one, "name")
    two._hub.transport.topics.clear()
    assert (await ask_in_vain(one, "name")).missing == [two.process]
    clock.advance(61)
    assert (await one.ask("name", timeout=LONG)).missing == []


async def test_errors_are_answers_too(start, caplog):
    async def missing(arguments):
        raise NotFound

    async def broken(arguments):
        raise ZeroDivisionError

    async def big(arguments):
        return "x" * asking.MAX_ANSWER

    bus = Bus()
    one, two = await start(bus), await start(bus, missing=missing, broken=broken, big=big)
    for question, code in (("missing", "not_found"), ("broken", "internal_error"), ("big", "message_too_big")):
        found = await one.ask(question, timeout=LONG)
        assert found.errors == {one.process: "unknown_question", two.process: code}
        assert (found.answers, found.silent) == ({}, 0)
    assert [record.message for record in caplog.records] == ["the question 'broken' could not be answered"]


async def test_a_long_answer_comes_in_as_many_packets_as_the_broker_makes_necessary(start):
    async def numbers(arguments):
        return list(range(5000))

    bus = Bus(max_packet=5997)
    one, two = await start(bus, numbers=numbers), await start(bus, numbers=numbers)
    found = await one.ask("numbers", timeout=LONG)
    assert found.answers[two.process] == found.answers[one.process] == list(range(5000))
    answers = [packet for topic, packet in bus.packets if topic == PROCESS + one.process]
    assert len(answers) > 4
    assert max(map(len, answers)) <= 5997


async def test_the_same_question_of_the_same_moment_is_asked_once(start):
    bus = Bus()
    one, _ = await start(bus, name=name_of), await start(bus, name=name_of)
    found = await asyncio.gather(*[one.ask("name", timeout=LONG) for _ in range(10)])
    assert all(each == found[0] for each in found)
    assert sum(topic == CONTROL for topic, _ in bus.packets) == 1
    await one.ask("name", timeout=LONG)
    assert sum(topic == CONTROL for topic, _ in bus.packets) == 2


async def test_too_many_questions_are_answered_with_busy(start):
    gate = asyncio.Event()

    async def wait(arguments):
        await gate.wait()

    bus = Bus()
    one, two = await start(bus), await start(bus, name=wait)
    asked = [asyncio.ensure_future(one.ask("name", {"n": n}, timeout=LONG)) for n in range(asking.MAX_WAITING + 3)]
    done, _ = await asyncio.wait(asked, timeout=LONG, return_when=asyncio.FIRST_COMPLETED)
    assert {task.result().errors[two.process] for task in done} == {"busy"}
    gate.set()
    codes = [found.errors.get(two.process, "ok") for found in await asyncio.gather(*asked)]
    assert codes.count("ok") == asking.MAX_WAITING


async def test_without_the_broker_a_process_still_answers_itself(start):
    bus = Bus()
    one, two = await start(bus, name=name_of), await start(bus, name=name_of)
    await one.ask("name", timeout=LONG)
    bus.is_down = True
    found = await one.ask("name", timeout=LONG)
    assert (list(found.answers), found.missing, found.silent) == ([one.process], [two.process], 1)


@pytest.mark.parametrize(
    "packet",
    [
        Packet("ask", b"", "name"),
        Packet("ask", b"[1]", "name"),
        Packet("ask", b'{"process": 1}', "name"),
        Packet("ask", b'{"process": "x", "id": 1, "arguments": {}}', "name"),
        Packet("ask", b'{"process": "x", "id": "1", "arguments": []}', "name"),
        Packet("answer", b"{}\n1", "name"),
        Packet("answer", b'{"process": "x", "part": 5, "parts": 1, "id": "%b"}\n1', "name"),
        Packet("answer", b'{"process": "x", "part": 0, "parts": 1, "id": "%b", "status": "ok"}\n{', "name"),
        Packet("answer", b'{"process": "x", "part": 0, "parts": 9, "id": "%b", "status": "ok"}\n{', "name"),
        Packet("ask", b'{"process": "%b", "id": "1", "arguments": {}}'.replace(b"%b", b"x" * 10_000), "name"),
        Packet("event", b"1", "name"),
    ],
    ids=lambda packet: packet.data[:80].decode() or "nothing",
)
async def test_packets_of_another_shape_harm_nobody(start, packet):
    bus, process = Bus(), None

    async def ask_back(arguments):
        if arguments:
            return 1
        ident = next(iter(process._rounds)).encode()
        for topic in (CONTROL, PROCESS + process.process):
            await process._hub.publish(topic, packet._replace(data=packet.data.replace(b"%b", ident)))
        return 1

    process = await start(bus, name=ask_back)
    found = await process.ask("name", timeout=LONG)
    assert found.answers == {process.process: 1}
    assert max(map(len, process._known), default=0) <= 64
    other = await start(bus, name=name_of)
    assert other.process in (await process.ask("name", {"again": 1}, timeout=LONG)).answers


async def test_closing_gives_up_what_is_asked(start):
    never = asyncio.Event()

    async def wait(arguments):
        await never.wait()

    process = await start(name=wait)
    asked = asyncio.ensure_future(process.ask("name", timeout=LONG))
    await asyncio.sleep(0)
    await process.close()
    with pytest.raises(asyncio.CancelledError):
        await asked
