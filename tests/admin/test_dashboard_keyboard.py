"""Every control of the dashboard is used with the keyboard, and what came of it is asked of the server."""

import re
from typing import Any

import pytest

from tests.admin.browsing import AdminServer, browser, expect, server, visit

__all__ = ["browser", "server", "visit"]

# One event loop for all of the module, so that they share a browser.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.browser]


async def test_connections_are_found_and_disconnected_with_the_keyboard_alone(visit: Any, server: AdminServer) -> None:
    mine = await server.connect("/room/quiet")
    await server.connect("/room/loud")
    shown = await visit()
    page, keyboard = shown.page, shown.page.keyboard
    await keyboard.press("Tab")
    await expect(page.locator("#skip")).to_be_focused()
    await keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()
    await keyboard.press("Shift+Tab")
    await expect(page.get_by_role("link", name="System", exact=True)).to_be_focused()
    for name in ("Routes", "Schedules", "Console", "Groups", "Connections"):
        await keyboard.press("Shift+Tab")
        await expect(page.get_by_role("link", name=name, exact=True)).to_be_focused()
    await keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()
    await page.get_by_role("searchbox", name="Search").focus()
    await keyboard.type("quiet")
    rows = page.locator("#connections-list tbody tr")
    await expect(rows).to_have_count(1)
    await page.get_by_role("button", name=re.compile("^Disconnect the anonymous")).focus()
    await keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    await keyboard.press("Escape")
    await expect(page.locator("dialog")).to_be_hidden()
    await expect(rows).to_have_count(1)
    await keyboard.press("Enter")
    await shown.confirm("Disconnect")
    assert (await mine.closed()).code == 4409
    await expect(rows).to_have_count(0)
    await expect(page.get_by_text("No connection is like this.")).to_be_visible()
    await expect(page.locator("#connections-title")).to_be_focused()


async def test_all_connections_of_a_user_are_shown_and_closed(visit: Any, server: AdminServer) -> None:
    clients = [await server.connect(f"/hall/{hall}?name=ann") for hall in ("a", "b")]
    bob = await server.connect("/hall/a?name=bob")
    shown = await visit("connections")
    page, rows = shown.page, shown.page.locator("#connections-list tbody tr")
    await shown.press(page.get_by_role("combobox", name="Order"), "ArrowDown")
    await expect(rows).to_have_text([re.compile(start) for start in ("^ann", "^ann", "^bob", "^anonymous")])
    # A row stays what it is while its numbers change.
    group = rows.first.get_by_role("link", name="hall.a")
    await group.focus()
    sent = rows.first.locator("td[data-label=Sent]")
    before = await sent.text_content()
    await server.ask("POST", "/events", body={"group": "hall.a", "event": "news", "data": 1})
    await expect(sent).not_to_have_text(before or "")
    await expect(group).to_be_focused()
    # Each row that goes hands the focus on to the next.
    await shown.press(page.get_by_role("button", name=re.compile("^Disconnect ann, ")).first)
    await shown.confirm("Disconnect")
    assert (await clients[0].closed()).code == 4409
    await expect(rows).to_have_count(3)
    await expect(page.get_by_role("button", name=re.compile("^Disconnect ann, "))).to_be_focused()
    await shown.press(page.get_by_role("link", name="ann", exact=True))
    await expect(rows).to_have_count(1)
    await expect(page.locator("#connections-filter")).to_contain_text("Of the user ann")
    await shown.press_button("Disconnect all of ann")
    await shown.confirm("Disconnect all")
    assert (await clients[1].closed()).code == 4409
    await expect(rows).to_have_count(0)
    await expect(page.get_by_role("button", name="Disconnect all of ann")).to_be_focused()
    await shown.press(page.get_by_role("link", name="Show all connections"))
    await expect(page.locator("#connections-title")).to_be_focused()
    await expect(rows).to_have_text([re.compile("^bob"), re.compile("^anonymous")])
    # What was asked about may be gone before it is answered.
    await shown.press(page.get_by_role("button", name=re.compile("^Disconnect bob")))
    await expect(page.locator("dialog")).to_be_visible()
    await bob.close()
    await expect(rows).to_have_count(1)
    await page.keyboard.press("Escape")
    await expect(page.locator("#connections-title")).to_be_focused()


async def test_lists_have_pages_and_a_search(visit: Any, server: AdminServer) -> None:
    clients = [await server.connect(f"/room/{number:02}") for number in range(51)]
    await server.connect("/room/50")
    shown = await visit("connections")
    page = shown.page
    for section, first, second in (("connections", "50 of 53", "3 of 53"), ("groups", "50 of 51", "1 of 51")):
        await shown.show(section)
        foot = page.locator(f"#{section}-list footer")
        await expect(foot).to_contain_text(first)
        await expect(foot.get_by_role("button", name="First page")).to_be_disabled()
        following = foot.get_by_role("button", name="Next page")
        await shown.press(following)
        await expect(foot).to_contain_text(second)
        await expect(following).to_be_disabled()
        await expect(following).to_be_focused()
        await page.keyboard.press("Enter")  # There is no other page.
        await shown.press(foot.get_by_role("button", name="First page"), "Space")
        await expect(foot).to_contain_text(first)
        await expect(foot.get_by_role("button", name="First page")).to_be_focused()
    rows = page.locator("#groups-list tbody tr")
    await shown.press(page.get_by_role("combobox", name="Order"), "ArrowDown")
    await expect(rows.first).to_contain_text("room.50")
    await shown.write(page.get_by_role("searchbox", name="Search"), "m.5")
    await expect(rows).to_have_count(1)
    await shown.press(page.get_by_role("link", name="Connections in room.50"))
    await expect(page.locator("#connections-filter")).to_contain_text("In the group room.50")
    await expect(page.locator("#connections-list tbody tr")).to_have_count(2)
    await shown.show("groups")
    await shown.press_button("Disconnect all of room.50")
    await shown.confirm("Disconnect all")
    assert (await clients[50].closed()).code == 4409
    await expect(page.get_by_text("No group is like this.")).to_be_visible()
    await expect(page.locator("#groups-title")).to_be_focused()
    await shown.write(page.get_by_role("searchbox", name="Search"), "room.07")
    await shown.press(page.get_by_role("link", name="room.07", exact=True))
    await expect(page.locator("#log-facts")).to_have_text("1 connection")


async def test_a_group_is_watched_and_spoken_to(visit: Any, server: AdminServer) -> None:
    member = await server.connect("/room/talk")
    shown = await visit("console")
    page, log = shown.page, shown.page.locator("#log li")
    await shown.write(page.get_by_role("combobox", name="Group"), "room.talk")
    await shown.press_button("Watch")
    await expect(page.locator("#log-facts")).to_have_text("1 connection")
    await expect(page.get_by_role("button", name="history")).to_have_count(0)
    data = page.get_by_role("textbox", name="Data, as JSON")
    await shown.write(data, "{")
    await shown.press_button("Send to all")
    await expect(page.locator("#send-error")).to_contain_text("This is not JSON")
    await expect(data).to_be_focused()
    await shown.write(page.get_by_role("textbox", name="Event"), "news")
    await shown.write(data, '{"<b>bold</b>": 1}')
    await shown.press_button("Send to all")
    assert (await member.receive_json())["data"] == {"<b>bold</b>": 1}
    await expect(log).to_contain_text('news{"<b>bold</b>":1}')
    await shown.press_button("Pause")
    await member.send_json(action="say", data={"text": "unseen"})
    await expect(page.locator("#log-facts")).to_contain_text("paused, 1 came since")
    await shown.press_button("Go on")
    await expect(log).to_have_count(1)
    await shown.press_button("Clear")
    await expect(log).to_have_count(0)


async def test_history_and_presence_of_a_group(visit: Any, server: AdminServer) -> None:
    for name in ("ann", "ann", "bob"):
        await server.connect(f"/hall/past?name={name}")
    for number in range(21):
        await server.ask("POST", "/events", body={"group": "hall.past", "event": "old", "data": number})
    shown = await visit("console/hall.past")
    page, past = shown.page, shown.page.locator("#log li.past")
    await expect(page.locator("#log-facts")).to_have_text("3 connections")
    older = page.get_by_role("button", name="Load history")
    for count, first in ((20, "old #2"), (21, "old #1")):
        await shown.press(older)
        await expect(past).to_have_count(count)
        await expect(past.first).to_contain_text(first)
    await expect(older).to_be_disabled()
    await expect(older).to_be_focused()
    await shown.press(page.get_by_role("log"), "Home")
    await shown.press_button("Show who is here")
    await expect(page.locator("#who-count")).to_have_text("2 are here:")
    await expect(page.locator("#who-list li")).to_have_text(["ann 2 connections", "bob"])
    await expect(page.get_by_role("button", name="Look again")).to_be_focused()
    await shown.press_button("Forget history")
    await shown.confirm("Forget it")
    await expect(past).to_have_count(0)
    await expect(page.get_by_role("button", name="Forget history")).to_be_focused()
    assert (await server.get("/history/hall.past"))["results"] == []


async def test_a_schedule_is_made_paused_run_and_deleted(visit: Any, server: AdminServer) -> None:
    member = await server.connect("/room/kitchen")
    shown = await visit("schedules")
    page, form = shown.page, shown.page.locator("#schedule-form")
    error, zone = page.locator("#schedule-error"), form.get_by_label("Time zone")
    await shown.schedule(Name="tea", Times="soon", Group="room.kitchen", Event="tea", Data="[")
    await expect(error).to_contain_text("This is not JSON")
    await expect(form.get_by_label("Data")).to_be_focused()
    await shown.schedule(Data="7")
    await expect(error).to_contain_text("expected")
    await expect(form.get_by_label("Times")).to_be_focused()
    await expect(zone).to_be_hidden()
    await shown.press(form.get_by_label("When"), "ArrowDown")
    await shown.schedule(Times="0 9 * * 1-5", Time_zone="Europe/Nowhere")
    await expect(error).to_contain_text("the name of a time zone")
    await expect(zone).to_be_focused()
    await expect(page.locator("#time-zones option[value='Europe/Berlin']")).to_have_count(1)
    await shown.schedule(Time_zone="Europe/Berlin")
    row = page.locator("#schedules-list tbody tr")
    await expect(row).to_contain_text("tea to room.kitchen")
    await expect(row).to_contain_text("cron '0 9 * * 1-5' in Europe/Berlin")
    await expect(zone).to_be_hidden()

    async def is_paused() -> bool:
        paused: bool = (await server.get("/schedules/tea"))["paused"]
        return paused

    # The button that was pressed, or what it has become, keeps the focus.
    await shown.press_button("Pause tea")
    await expect(row).to_contain_text("paused")
    assert await is_paused()
    await expect(page.get_by_role("button", name="Resume tea")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(row).not_to_contain_text("paused")
    assert not await is_paused()
    await expect(page.get_by_role("button", name="Pause tea")).to_be_focused()
    await shown.press_button("Run now tea")
    while (frame := await member.receive_json()).get("event") != "tea":
        pass
    assert frame["data"] == 7
    await expect(page.get_by_role("button", name="Run now tea")).to_be_focused()
    await shown.press_button("Delete tea")
    await shown.confirm("Delete")
    await expect(row).to_have_count(0)
    await expect(page.locator("#schedules-title")).to_be_focused()
    await server.ask("GET", "/schedules/tea", status=404)


async def test_however_many_schedules_there_are_each_can_be_reached(visit: Any, server: AdminServer) -> None:
    shown = await visit("schedules")
    page, rows = shown.page, shown.page.locator("#schedules-list tbody tr")
    names = [f"job {number:02}" for number in range(51)]
    made = await page.evaluate(
        """(names) => Promise.all(names.map(async (name) => {
            const told = { name, every: "1h", group: "room.a", event: "job" };
            const headers = { "content-type": "application/json" };
            return (await fetch("/admin/schedules", { method: "POST", headers, body: JSON.stringify(told) })).status;
        }))""",
        names,
    )
    assert made == [201] * 51
    await shown.show("schedules/again")
    foot = page.locator("#schedules-list footer")
    await expect(foot).to_contain_text("50 of 51")
    await shown.press(foot.get_by_role("button", name="Next page"))
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("job 50")
    await shown.press(foot.get_by_role("button", name="First page"))
    await expect(rows).to_have_count(50)
    await shown.write(page.get_by_role("searchbox", name="Search"), "B 4")
    await expect(rows).to_have_count(10)
    # Of several rows it is the next one that comes into the place of one that is deleted.
    await shown.press_button("Delete job 44")
    await shown.confirm("Delete")
    await expect(rows).to_have_count(9)
    await expect(page.get_by_role("button", name="Delete job 45")).to_be_focused()
    await shown.write(page.get_by_role("searchbox", name="Search"), "nothing")
    await expect(page.get_by_text("No schedule is like this.")).to_be_visible()
    names.remove("job 44")
    await page.evaluate(
        "(names) => Promise.all(names.map((name) => fetch(`/admin/schedules/${name}`, { method: 'DELETE' })))", names
    )
    assert (await server.get("/schedules"))["total"] == 0


async def test_levels_of_logs_are_shown_and_set_and_limits_are_reset(visit: Any, server: AdminServer) -> None:
    async def say() -> str | None:
        client = await server.connect("/room/limited")
        await client.send_json(action="say", request_id=1, data={"text": "x"})
        while (frame := await client.receive_json()).get("request_id") != 1:
            pass
        code: str | None = frame.get("error", {}).get("code")
        return code

    shown = await visit("routes")
    page = shown.page
    summary = page.locator("#routes-list summary").first
    await shown.press(summary)
    await expect(page.locator("#routes-list details").first).to_have_attribute("open", "")
    # After a loss they are asked for again; what was open is, and has the focus.
    await page.evaluate("() => { window.before = document.activeElement; }")
    [mine] = (await server.get("/connections", consumer="Dashboard"))["results"]
    await server.ask("POST", "/disconnect", status=202, body={"channel": mine["channel"], "code": 1012})
    await page.wait_for_function("() => !window.before.isConnected")
    await expect(summary).to_be_focused()
    await expect(page.locator("#routes-list details").first).to_have_attribute("open", "")
    await shown.show("system")
    levels = page.locator("#levels-list div")
    await expect(levels).to_have_text(["fastapi_consumersWARNING"])
    form = page.locator("#level-form")
    await shown.write(form.get_by_label("Logger"), "fastapi_consumers.hub")
    await shown.press(form.get_by_label("Level"), "ArrowDown")
    await shown.press(form.get_by_role("button", name="Set"))
    await expect(page.locator("#levels")).to_have_text("Set in 1 process.")
    await expect(levels).to_have_text(["fastapi_consumersWARNING", "fastapi_consumers.hubWARNING"])
    [found] = (await server.get("/log-level"))["levels"].values()
    assert found["fastapi_consumers.hub"] == "WARNING"
    await shown.press(form.get_by_label("Level"), "End")
    await shown.press(form.get_by_role("button", name="Set"), "Space")
    await expect(levels).to_have_text(["fastapi_consumersWARNING"])
    await shown.write(form.get_by_label("Logger"), "uvicorn")
    await page.keyboard.press("Enter")
    await expect(page.locator("#levels")).not_to_contain_text("Set in")

    await server.ask("POST", "/throttles/reset", body={"address": "127.0.0.1"})
    assert [await say(), await say()] == [None, "throttled"]
    form = page.locator("#throttle-form")
    await shown.press(form.get_by_label("Of a"), "ArrowDown")
    await shown.write(form.get_by_label("Who"), "127.0.0.1")
    await shown.press(form.get_by_role("button", name="Reset"))
    await expect(page.locator("#reset")).to_have_text("1 forgotten.")
    assert await say() is None
