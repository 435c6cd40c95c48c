import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_consumers.backlog import OVERFLOWS, UNCOUNTED, Backlog, Droppable, Full
from fastapi_consumers.messages import bytes_frame, text_frame


def event(group="a", key=None, gap=True):
    return Droppable(group, key, (lambda: text_frame(f"gap {group}")) if gap else None)


EVENT, QUIET = event(), event(gap=False)


def put(backlog, *texts, as_=QUIET):
    for text in texts:
        backlog.put(text_frame(str(text)), as_)


def put_reply(backlog, *texts):
    put(backlog, *texts, as_=None)


def texts_of(backlog):
    """All that waits; then nothing does."""
    found = []
    while (frame := backlog.next()) is not None:
        found.append(frame.payload.decode())
    assert len(backlog) == 0
    return found


def make(policy, max_messages=3, max_bytes=1000):
    return Backlog(policy, max_messages, max_bytes)


# -- what goes ---------------------------------------------------------------------------------------------------------


def test_what_has_room_leaves_in_its_order():
    for policy in OVERFLOWS:
        backlog = make(policy)
        put(backlog, 1)
        put_reply(backlog, 2)
        put(backlog, 3, as_=event(key="k"))
        assert len(backlog) == 3
        assert texts_of(backlog) == ["1", "2", "3"]
        assert (backlog.dropped, backlog.coalesced) == (0, 0)


def test_disconnect_refuses_one_too_many():
    backlog = make("disconnect")
    put(backlog, 1, 2, 3)
    with pytest.raises(Full):
        put(backlog, 4)
    assert (texts_of(backlog), backlog.dropped) == (["1", "2", "3"], 0)


def test_disconnect_does_not_coalesce():
    backlog = make("disconnect")
    put(backlog, 1, 2, as_=event(key="k"))
    assert texts_of(backlog) == ["1", "2"]


def test_drop_oldest():
    backlog = make("drop_oldest")
    put(backlog, 1, 2, 3, 4, 5)
    assert (texts_of(backlog), backlog.dropped) == (["3", "4", "5"], 2)


def test_drop_newest():
    backlog = make("drop_newest")
    put(backlog, 1, 2, 3, 4, 5)
    assert (texts_of(backlog), backlog.dropped) == (["1", "2", "3"], 2)


@pytest.mark.parametrize("policy", ["drop_oldest", "coalesce"])
def test_as_many_go_as_the_bytes_of_the_new_one_need(policy):
    backlog = make(policy, 100, 10)
    put(backlog, "aaa", "bbb", "ccc", "dddddd")
    assert (texts_of(backlog), backlog.dropped) == (["ccc", "dddddd"], 2)


def test_drop_newest_goes_by_bytes_too():
    backlog = make("drop_newest", 100, 10)
    put(backlog, "aaaa", "bbbbbbb", "cccccc", "d")
    assert (texts_of(backlog), backlog.dropped) == (["aaaa", "cccccc"], 2)


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "coalesce"])
def test_an_event_larger_than_all_that_may_wait_takes_no_other_with_it(policy):
    backlog = make(policy, 100, 10)
    put(backlog, "aaa", "x" * 11, "bbb")
    assert (texts_of(backlog), backlog.dropped) == (["aaa", "bbb"], 1)


def test_coalesce_replaces_the_one_of_the_same_group_and_key_at_the_end():
    backlog = make("coalesce", 10)
    put(backlog, "x1", as_=event(key="x"))
    put(backlog, "y1", as_=event(key="y"))
    put(backlog, "plain")
    put(backlog, "other x", as_=event("b", key="x"))
    put(backlog, "x2", as_=event(key="x"))
    put(backlog, "x3", as_=event(key="x"))
    assert (backlog.coalesced, backlog.dropped, len(backlog)) == (2, 0, 4)
    assert texts_of(backlog) == ["y1", "plain", "other x", "x3"]
    # What has left is not there to be replaced.
    put(backlog, "x4", as_=event(key="x"))
    assert (texts_of(backlog), backlog.coalesced) == (["x4"], 2)


def test_coalesce_drops_the_oldest_where_keys_do_not_help():
    backlog = make("coalesce")
    for number in range(5):
        put(backlog, number, as_=event(key=str(number), gap=False))
    put(backlog, "2 again", as_=event(key="2", gap=False))
    assert (backlog.dropped, backlog.coalesced) == (2, 1)
    # One that was dropped cannot be replaced.
    put(backlog, "0 again", as_=event(key="0", gap=False))
    assert (texts_of(backlog), backlog.coalesced) == (["4", "2 again", "0 again"], 1)


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "coalesce"])
def test_replies_push_out_events_and_are_never_dropped(policy):
    backlog = make(policy)
    put(backlog, 1)
    put_reply(backlog, "reply 1")
    put(backlog, 2)
    put_reply(backlog, "reply 2")
    assert backlog.dropped == 1
    put_reply(backlog, "reply 3")
    assert backlog.dropped == 2
    with pytest.raises(Full):
        put_reply(backlog, "reply 4")
    # Events are, where only replies wait.
    put(backlog, 3)
    assert (texts_of(backlog), backlog.dropped) == (["reply 1", "reply 2", "reply 3"], 3)


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "coalesce"])
def test_a_reply_that_cannot_have_room_takes_no_event_with_it(policy):
    backlog = make(policy, 100, 10)
    put(backlog, "aaa")
    with pytest.raises(Full):
        put_reply(backlog, "x" * 11)
    assert (texts_of(backlog), backlog.dropped) == (["aaa"], 0)


# -- gaps --------------------------------------------------------------------------------------------------------------


def test_a_notice_stands_where_the_oldest_were():
    backlog = make("drop_oldest")
    put(backlog, 1, 2, 3, 4, 5, as_=EVENT)
    # It comes on top of what may wait.
    assert len(backlog) == 4
    assert texts_of(backlog) == ["gap a", "3", "4", "5"]


def test_a_notice_does_not_overtake_what_was_before_the_event():
    backlog = make("drop_oldest")
    put_reply(backlog, "reply")
    put(backlog, 1, 2, 3, as_=EVENT)
    assert texts_of(backlog) == ["reply", "gap a", "2", "3"]


def test_a_notice_stands_where_the_newest_were():
    backlog = make("drop_newest")
    put(backlog, 1, 2, 3, 4, 5, as_=EVENT)
    assert backlog.next().payload == b"1"
    put(backlog, 6, 7, as_=EVENT)
    assert texts_of(backlog) == ["2", "3", "gap a", "6", "gap a"]


def test_once_a_notice_has_left_the_next_drop_is_told_again():
    backlog = make("drop_newest", 1)
    put(backlog, 1, 2, as_=EVENT)
    assert (backlog.next().payload, backlog.next().payload) == (b"1", b"gap a")
    put(backlog, 3, 4, as_=EVENT)
    assert texts_of(backlog) == ["3", "gap a"]


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "coalesce"])
def test_each_group_is_told_of_its_own_once(policy):
    backlog = make(policy, 1)
    for number in range(1000):
        put(backlog, number, as_=event("ab"[number % 2]))
    # Nothing grows with the number of what was dropped.
    assert len(backlog) <= 3
    found = texts_of(backlog)
    assert sorted(text for text in found if text.startswith("gap")) == ["gap a", "gap b"]


def test_notices_that_meet_become_one():
    backlog = make("drop_newest")
    put(backlog, 1, 2, 3, 4, as_=EVENT)
    assert backlog.next().payload == b"1"
    put(backlog, 5, 6, as_=EVENT)
    # 2, 3, gap, 5, gap: replies push out what is between.
    put_reply(backlog, "r1", "r2")
    assert len(backlog) == 5
    put_reply(backlog, "r3")
    put(backlog, 7, as_=EVENT)
    assert texts_of(backlog) == ["gap a", "r1", "r2", "r3"]


def test_one_notice_is_enough_where_no_event_of_the_group_is_left():
    backlog = make("drop_newest", 1)
    put(backlog, 1, as_=EVENT)
    put_reply(backlog, "reply")
    put(backlog, 2, as_=EVENT)
    assert (texts_of(backlog), backlog.dropped) == (["gap a", "reply"], 2)


def test_an_event_without_notice_leaves_none():
    backlog = make("drop_oldest")
    put(backlog, 1, 2, as_=QUIET)
    put(backlog, 3, 4, 5, as_=event("b"))
    assert texts_of(backlog) == ["3", "4", "5"]


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "coalesce"])
def test_a_notice_that_cannot_be_encoded_is_logged_and_whoever_publishes_goes_on(policy, caplog):
    def broken():
        raise ValueError("an encoding of one's own")

    backlog = make(policy, 1)
    put(backlog, 1, 2, as_=Droppable("a", None, broken))
    assert (len(texts_of(backlog)), backlog.dropped) == (1, 1)
    assert "could not be encoded" in caplog.text
    put(backlog, 3, 4, as_=EVENT)
    assert "gap a" in texts_of(backlog)


def test_what_is_not_counted_needs_no_room_and_is_never_dropped():
    for policy in OVERFLOWS:
        backlog = make(policy)
        put(backlog, "r1", "r2", as_=UNCOUNTED)
        put(backlog, 1, 2, 3)
        put(backlog, "r3", as_=UNCOUNTED)
        assert (len(backlog), backlog.dropped) == (6, 0)
        assert texts_of(backlog) == ["r1", "r2", "1", "2", "3", "r3"]


def test_replaced_events_are_no_gap():
    backlog = make("coalesce")
    put(backlog, *range(10), as_=event(key="k"))
    assert texts_of(backlog) == ["9"]


# -- marks -------------------------------------------------------------------------------------------------------------


async def test_a_mark_is_reached_when_all_before_it_has_left():
    backlog = make("drop_oldest")
    loop = asyncio.get_running_loop()
    first, last = loop.create_future(), loop.create_future()
    backlog.mark(first)
    put(backlog, 1, as_=EVENT)
    backlog.mark(last)
    put(backlog, 2, 3, 4, as_=EVENT)
    assert (backlog.next().payload, first.done(), last.done()) == (b"gap a", True, False)
    assert (backlog.next().payload, last.done()) == (b"2", True)
    assert texts_of(backlog) == ["3", "4"]


async def test_marks_of_those_who_wait_no_more_do_not_matter():
    backlog = make("drop_oldest")
    for _ in range(3):
        mark = asyncio.get_running_loop().create_future()
        backlog.mark(mark)
        mark.cancel()
    put(backlog, 1)
    assert texts_of(backlog) == ["1"]
    backlog.mark(mark)
    assert backlog.clear() == 0


async def test_to_clear_is_to_reach_all_marks():
    backlog = make("coalesce")
    mark = asyncio.get_running_loop().create_future()
    put(backlog, 1, 2, 3, 4, as_=event(key=None))
    put(backlog, "k1", as_=event(key="k"))
    backlog.mark(mark)
    assert (backlog.clear(), mark.done(), len(backlog)) == (4, True, 0)
    # As good as new.
    put(backlog, "k2", 5, 6, as_=event(key="k"))
    assert texts_of(backlog) == ["6"]


# -- any sequence ------------------------------------------------------------------------------------------------------

PUT = st.tuples(
    st.just("put"),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from([None, None, "k", "l"]),
    st.booleans(),
    st.integers(1, 12),
)
REPLY = st.tuples(st.just("reply"), st.integers(1, 12))
STEPS = st.lists(st.one_of(PUT, PUT, PUT, REPLY, st.just(("next",))), max_size=60)


@given(st.sampled_from(OVERFLOWS), st.integers(1, 5), st.integers(5, 30), STEPS)
def test_whatever_happens(policy, max_messages, max_bytes, steps):
    backlog = Backlog(policy, max_messages, max_bytes)
    numbers = itertools.count()
    #: What was taken, as (number, group or None for a reply, size); and those of it that leave, with their notices.
    taken, left, accepted_replies, puts, gaps = [], [], [], 0, 0

    def gap_of(group):
        def make_gap():
            nonlocal gaps
            gaps += 1
            return bytes_frame(b"gap " + group.encode())

        return make_gap

    def bounded():
        waiting = [item.frame.size for item in backlog._items.values() if hasattr(item, "droppable")]
        notices = len(backlog) - len(waiting)
        assert len(waiting) <= max_messages
        assert sum(waiting) <= max_bytes
        assert notices <= max_messages + 3
        assert (backlog._frames, backlog._bytes) == (len(waiting), sum(waiting))

    def take():
        frame = backlog.next()
        if frame is not None:
            left.append(frame.payload.rstrip(b".").decode())
        return frame

    for step in steps:
        if step[0] == "next":
            take()
            continue
        number = next(numbers)
        if step[0] == "reply":
            payload = f"{number} ".encode().ljust(step[1], b".")
            try:
                backlog.put(bytes_frame(payload), None)
            except Full:
                continue
            accepted_replies.append(str(number))
        else:
            _, group, key, tells, size = step
            payload = f"{number} {group}".encode().ljust(size, b".")
            droppable = Droppable(group, key, gap_of(group) if tells else None)
            try:
                backlog.put(bytes_frame(payload), droppable)
            except Full:
                assert policy == "disconnect"
                continue
            taken.append((number, group, tells))
        puts += 1
        bounded()
    while take() is not None:
        pass
    assert (backlog._frames, backlog._bytes, backlog._kept, backlog._kept_bytes, backlog._gaps) == (0, 0, 0, 0, 0)
    assert not backlog._events
    assert not backlog._last_gaps
    assert not backlog._keyed

    frames = [text.split() for text in left if not text.startswith("gap")]
    came = [int(frame[0]) for frame in frames]
    # In order, each once, all replies.
    assert came == sorted(set(came))
    assert [frame[0] for frame in frames if len(frame) == 1] == accepted_replies
    # The counters account for everything.
    assert puts == len(frames) + backlog.dropped + backlog.coalesced
    if policy in ("disconnect", "drop_oldest", "drop_newest"):
        assert backlog.coalesced == 0
    if policy == "disconnect":
        assert backlog.dropped == 0

    # Each group's notices: none between events that follow each other, one where some are missing that tell of it.
    for group in "abc":
        mine = [number for number, of, _ in taken if of == group]
        tells = {number for number, of, told in taken if of == group and told}
        seen = -1
        noticed = 0
        for text in [*left, "end"]:
            if text == f"gap {group}":
                noticed += 1
            elif text == "end" or text.endswith(f" {group}"):
                current = float("inf") if text == "end" else int(text.split()[0])
                missing = {number for number in mine if seen < number < current}
                assert not (noticed and not missing & tells), "a notice of nothing"
                if policy != "coalesce":
                    assert noticed or not missing & tells, "dropped, and nobody is told"
                seen, noticed = current, 0
