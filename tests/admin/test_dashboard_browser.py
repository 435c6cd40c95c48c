"""The dashboard in a real browser: looked at, drawn, and checked by axe-core.

Nothing waits for a time, everything for what a person would see.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, WebSocketRoute

from tests.admin.browsing import SCREENS, AdminServer, browser, expect, server, visit

__all__ = ["browser", "server", "visit"]

# One event loop for all of the module, so that they share a browser.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.browser]

SECTIONS = ("overview", "connections", "groups", "console/room.a", "schedules", "routes", "system")
#: Of the points of a card's line.
HEIGHTS = """(name) => (document.querySelector(`#card-${name} .line`).getAttribute("d") ?? "")
    .match(/[\\d.]+(?=L|$)/g)?.map(Number) ?? []"""


@pytest.mark.parametrize(("screen", "scheme"), [("desk", "light"), ("phone", "dark")])
async def test_every_section_can_be_read_by_everybody(
    visit: Any, server: AdminServer, screen: str, scheme: str, tmp_path: Path
) -> None:
    for room in ("a", "a", "b"):
        await server.connect(f"/room/{room}")
    await server.ask("POST", "/events", body={"group": "room.a", "event": "news", "data": "x" * 300})
    shown = await visit(color_scheme=scheme, reduced_motion="reduce", **SCREENS[screen])
    for section in SECTIONS:
        await shown.show(section)
        if section == "overview":
            await expect(shown.page.locator("#largest li")).to_have_count(2)
        elif section == "connections":
            await expect(shown.page.locator("#connections-list tbody tr").nth(3)).to_be_visible()
        elif section.startswith("console"):
            await expect(shown.page.locator("#log-facts")).to_contain_text("2 connections")
            await shown.press_button("Send to all")
            await expect(shown.page.locator("#log li").first).to_contain_text("Hello")
        elif section == "system":
            await expect(shown.page.locator("#levels-list div").first).to_be_visible()
        await shown.page.screenshot(path=tmp_path / f"{section.partition('/')[0]}.png")
        await shown.look(section)
        if screen == "desk":
            assert await passed_over(shown.page) == [], section


async def passed_over(page: Page) -> list[str]:
    """Controls of the section that nobody comes to who goes through it with the tabulator key."""
    await page.evaluate(
        """() => {
            const what = 'a[href], button, input, select, textarea, summary, [tabindex="0"]';
            const all = [...document.querySelectorAll("main " + what.replaceAll(", ", ", main "))];
            window.missing = new Set(all.filter((each) => each.checkVisibility()));
            addEventListener("focusin", ({ target }) => window.missing.delete(target));
            document.querySelector("main").focus();
        }"""
    )
    for _ in range(100):
        await page.keyboard.press("Tab")
        if not await page.evaluate("() => document.querySelector('main').contains(document.activeElement)"):
            break
    missing: list[str] = await page.evaluate("() => [...window.missing].map((each) => each.outerHTML)")
    return missing


async def test_what_is_not_there_always_can_be_read_too(visit: Any, server: AdminServer) -> None:
    """A dialog, messages, errors, an alarm, schedules that had trouble: in both colours, wide and narrow."""
    await server.connect("/hall/z?name=zoe")
    when = {"every": "1h", "group": "hall.z", "event": "tea"}
    for name in ("tea", "biscuits"):
        await server.ask("POST", "/schedules", status=201, body={"name": name, **when})
    shown = await visit("system", reduced_motion="reduce")
    page = shown.page

    def trouble(message: str | bytes) -> str | bytes:
        text = message if isinstance(message, str) else message.decode()
        text = text.replace('"missed":0,"lost":0', '"missed":3,"lost":1').replace('"healthy":true', '"healthy":false')
        return text.replace('"runs":0,"errors":0', '"runs":1200,"errors":2')

    def route(socket: WebSocketRoute) -> None:
        below = socket.connect_to_server()
        below.on_message(lambda message: socket.send(trouble(message)))

    await page.route_web_socket("**/admin/socket", route)
    # A message stays until it is looked at, however long that takes.
    await page.add_init_script(
        "const set = setTimeout; window.setTimeout = (call, ms, ...rest) => set(call, ms === 6000 ? 1e9 : ms, ...rest);"
    )
    await page.reload()

    async def look(what: str) -> None:
        for screen, scheme in (("desk", "dark"), ("phone", "light")):
            await page.set_viewport_size(SCREENS[screen]["viewport"])
            await page.emulate_media(color_scheme=scheme)
            await shown.look(f"{what}, {screen}, {scheme}")

    await shown.show("overview")
    await expect(page.locator("#alarm")).to_have_text("A process has lost its broker.")
    await look("alarm")
    await shown.show("schedules")
    rows = page.locator("#schedules-list tbody tr")
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text("1,2002 failed1 lost3 missed")
    await shown.press_button("Pause biscuits")
    await expect(rows.first).to_contain_text("paused")
    await shown.press_button("Run now biscuits")
    await expect(page.locator("#toast")).to_have_text("biscuits is to run once.")
    await shown.schedule(Name="tea", Times="1h", Group="hall.z", Event="tea")
    await expect(page.locator("#schedule-error")).to_contain_text("a name of its own")
    await look("schedules, a message and an error")
    await shown.press_button("Delete tea")
    await expect(page.locator("dialog")).to_be_visible()
    await look("dialog")
    await shown.confirm("Delete")
    await expect(rows).to_have_count(1)
    await server.ask("DELETE", "/schedules/tea", status=404)
    await server.ask("DELETE", "/schedules/biscuits", status=204)
    await shown.show("console/hall.z")
    await shown.press_button("Show who is here")
    await expect(page.locator("#who-list")).to_have_text("zoe")
    await shown.write(page.get_by_label("Data, as JSON").first, "{")
    await shown.press_button("Send to all")
    await expect(page.locator("#send-error")).to_contain_text("This is not JSON")
    await look("an error in the console")
    await shown.show("console/" + "x" * 300)
    await expect(page.locator("#toast.bad")).to_be_visible()
    await look("a message of a failure")


async def test_the_plots_follow_the_load(visit: Any, server: AdminServer) -> None:
    page = (await visit()).page
    card, rate = page.locator("#card-connections"), page.locator("#card-rate")
    await expect(card.locator(".value")).to_have_text("1")
    for _ in range(6):
        await server.connect("/room/busy")
    await expect(card.locator(".value")).to_have_text("7")
    await expect(card.locator(".tick.high")).to_have_text("10")
    # Below is a greater y.
    heights = await page.evaluate(f"() => ({HEIGHTS})('connections')")
    assert any(height == pytest.approx(89.9, abs=0.2) for height in heights[:-1])
    assert heights[-1] == pytest.approx(32.3, abs=0.2)
    await expect(card.get_by_role("img")).to_have_attribute("aria-label", re.compile("^Connections: .* now, at most"))
    await expect(card.locator(".area")).to_have_attribute("d", re.compile("^M.*Z$"))
    # More than the page itself is sent, which is one or two a second.
    for number in range(500):
        await server.ask("POST", "/events", body={"group": "room.busy", "event": "news", "data": number})
        if float(await rate.locator(".tick.high").text_content() or 0) >= 10:
            break
    else:
        pytest.fail("messages are sent, and it is not drawn")
    assert min(await page.evaluate(f"() => ({HEIGHTS})('rate')")) < 55
    await rate.get_by_role("img").hover()
    await expect(rate.locator(".tip")).to_contain_text("/s, ")


async def test_it_comes_back_after_the_server_did_and_keeps_its_colours(visit: Any, server: AdminServer) -> None:
    shown = await visit("groups", color_scheme="light")
    page = shown.page
    await server.connect("/room/a")
    await expect(page.locator("#groups-list tbody tr")).to_have_count(1)
    for name in ("Light", "Dark"):
        await shown.press(page.locator("#theme"))
        await expect(page.locator("#theme-name")).to_have_text(name)
    background = "() => getComputedStyle(document.body).backgroundColor"
    assert await page.evaluate(background) == "rgb(14, 20, 26)"
    [mine] = (await server.get("/connections", consumer="Dashboard"))["results"]
    await server.ask("POST", "/disconnect", status=202, body={"channel": mine["channel"], "code": 1012})
    await expect(page.locator("#state")).to_have_text("Reconnecting…")
    await expect(page.locator("#state")).to_have_text("Live")
    await server.connect("/room/b")
    await expect(page.locator("#groups-list tbody tr")).to_have_count(2)
    await page.reload()
    await expect(page.locator("#theme-name")).to_have_text("Dark")
    assert await page.evaluate(background) == "rgb(14, 20, 26)"
