"""The page of the fleet, with simulated devices that send to it."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.examples.serving import ROOT, served, windows

pytestmark = [pytest.mark.browser]

KEYS = json.dumps({"a-greenhouse-with-a-rather-long-name": "k-1", "cellar": "k-2"})


async def test_devices_come_measure_and_go(chromium: str, tmp_path: Path) -> None:
    with served("examples.iot.app", tmp_path, DEVICE_KEYS=KEYS) as port:
        async with windows(chromium, port) as house:
            desk = await house.open()
            phone = await house.open(screen="phone", scheme="dark")
            await expect(desk.page.locator("#online")).to_have_text("0 of 2 devices online")

            command = [sys.executable, str(ROOT / "examples/iot/simulator.py"), "--interval", "2"]
            simulator = await asyncio.create_subprocess_exec(
                *command,
                "--url",
                f"ws://127.0.0.1:{port}/ws/device",
                env={**os.environ, "DEVICE_KEYS": KEYS},
                stdout=asyncio.subprocess.DEVNULL,
            )
            try:
                for window in (desk, phone):
                    await expect(window.page.locator("#online")).to_have_text("2 of 2 devices online")
                    cellar = window.page.get_by_role("region", name="cellar")
                    await expect(cellar).to_contain_text("Online")
                    await expect(cellar.locator(".sensor")).to_have_count(2)
                    await expect(window.page.locator(".sensor svg")).to_have_count(3)
                    await window.look()
                assert simulator.returncode is None
            finally:
                simulator.terminate()
                await asyncio.wait_for(simulator.wait(), 20)
            for window in (desk, phone):
                await expect(window.page.locator("#online")).to_have_text("0 of 2 devices online")
                # What they measured stays, over a reload too.
                await window.page.reload()
                await expect(window.page.locator(".sensor")).to_have_count(3)
                await expect(window.page.get_by_role("region", name="cellar")).to_contain_text("Offline")
                await window.look()
