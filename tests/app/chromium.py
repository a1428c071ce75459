"""A page in a real headless Chromium, looked at and clicked by its DevTools protocol."""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

REPOSITORY = Path(__file__).parents[2]
LISTENING = re.compile(r"DevTools listening on ws://([^/]+)/")


class Page:
    """``problems``: what scripts have thrown, logged or been refused, and dialogs that were opened."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.problems: list[str] = []
        self.answers: list[str] = []  # to dialogs, such as the one for the key
        self._reader = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            told = message.json()
            if waiting := self._waiting.pop(told.get("id", 0), None):
                waiting.set_result(told)
            match told.get("method"):
                case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled":
                    self.problems.append(str(told["params"]))
                case "Log.entryAdded" if told["params"]["entry"]["source"] != "network":
                    self.problems.append(str(told["params"]))
                case "Page.javascriptDialogOpening":
                    if told["params"]["type"] == "prompt" and self.answers:
                        dialog = {"accept": True, "promptText": self.answers.pop(0)}
                    else:
                        self.problems.append(str(told["params"]))
                        dialog = {"accept": False}
                    await self._socket.send_json(
                        {"id": next(self._numbers), "method": "Page.handleJavaScriptDialog", "params": dialog}
                    )

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        told = await self._waiting[number]
        assert "error" not in told, told
        found: dict[str, Any] = told["result"]
        return found

    async def open(self, url: str) -> None:
        await self.send("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def run(self, script: str) -> Any:
        """The value of an expression."""
        told = await self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, script: str) -> None:
        """Pytest's time limit ends a wait for what never comes. An element has no value here, so it is made one."""
        while not await self.run(f"!!({script})"):  # noqa: ASYNC110 -- what a page does has no event
            await asyncio.sleep(0.05)

    async def width(self, pixels: int) -> None:
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=pixels, height=800, deviceScaleFactor=1, mobile=pixels < 600
        )

    async def scheme(self, name: str) -> None:
        """Light or dark."""
        await self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    async def close(self) -> None:
        self._reader.cancel()
        await self._socket.close()


def program() -> Path:
    script = REPOSITORY / "tools" / "chromium.sh"
    return Path(subprocess.run([script], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()) / "run"


@asynccontextmanager
async def browser(profile: Path, arguments: Sequence[str] = ()) -> AsyncIterator[str]:
    """HOST:PORT of its DevTools."""
    process = await asyncio.create_subprocess_exec(
        program(), "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", f"--user-data-dir={profile}",
        *arguments, "about:blank", stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stderr
    said = ""
    try:
        while not (found := LISTENING.search(said)):
            line = (await process.stderr.readline()).decode()
            assert line, said
            said += line
        reader = asyncio.ensure_future(process.stderr.read())
        yield found[1]
        reader.cancel()
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def page(at: str) -> AsyncIterator[Page]:
    """A new tab that has nothing yet."""
    async with aiohttp.ClientSession() as session:
        async with session.put(f"http://{at}/json/new?about:blank") as answer:
            target = await answer.json(content_type=None)
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            made = Page(socket)
            for domain in ("Page", "Runtime", "Log"):
                await made.send(f"{domain}.enable")
            yield made
            await made.close()
