"""A headless Chromium, driven over its DevTools protocol with the HTTP client that is there anyway."""

import asyncio
import base64
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_ALONE = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip
START_SECONDS = 60.0


class Tab:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.faults: list[str] = []
        """What the console complained about, exceptions and requests to elsewhere included."""
        self.requests: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def close(self) -> None:
        self._reading.cancel()
        await self._socket.close()

    async def _read(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            match said.get("method"):
                case "Runtime.exceptionThrown":
                    details = said["params"]["exceptionDetails"]
                    self.faults.append(str((details.get("exception") or {}).get("description") or details["text"]))
                case "Log.entryAdded":
                    self.faults.append(said["params"]["entry"]["text"])
                case "Network.requestWillBeSent":
                    self.requests.append(said["params"]["request"]["url"])
                case None:
                    self._answers.pop(said["id"]).set_result(said)

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        answer = self._answers[number]
        await self._socket.send_json({"id": number, "method": method, "params": params})
        said = await asyncio.wait_for(answer, START_SECONDS)
        if "error" in said:
            raise RuntimeError(f"{method}: {said['error']['message']}")
        result: dict[str, Any] = said["result"]
        return result

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def run(self, expression: str) -> Any:
        """The value of JavaScript."""
        said = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in said:
            raise RuntimeError(said["exceptionDetails"]["exception"].get("description", "exception"))
        return said["result"].get("value")

    async def until(self, expression: str, *, seconds: float = 20.0) -> Any:
        """Wait until the expression is true; its value."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not (value := await self.run(f"(() => {{ try {{ return {expression} }} catch {{ return false }} }})()")):
            if asyncio.get_running_loop().time() > deadline:
                text = await self.run("document.body?.innerText.slice(0, 800)")
                raise TimeoutError(f"{expression} did not come true; the page says: {text}\n{self.faults}")
            await asyncio.sleep(0.05)
        return value

    async def key(self, key: str) -> None:
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key if len(key) == 1 else "")
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def size(self, width: int, height: int) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def dark(self, on: bool) -> None:
        feature = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[feature])

    async def picture(self) -> bytes:
        """PNG."""
        data = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(data["data"])


class Browser:
    """Opens tabs."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._port = port

    @asynccontextmanager
    async def tab(self) -> AsyncIterator[Tab]:
        async with self._session.put(f"http://127.0.0.1:{self._port}/json/new?about:blank") as answer:
            target = await answer.json(content_type=None)
        tab = Tab(await self._session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0))
        try:
            for domain in ("Page", "Runtime", "Log", "Network"):
                await tab.call(f"{domain}.enable")
            yield tab
        finally:
            await tab.close()
            async with self._session.get(f"http://127.0.0.1:{self._port}/json/close/{target['id']}"):
                pass


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A browser of its own, gone afterwards."""
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            PROGRAM, *_ALONE, f"--user-data-dir={profile}", stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
        )  # fmt: skip
        assert process.stderr is not None
        try:
            async with asyncio.timeout(START_SECONDS):
                while b"DevTools listening on" not in (line := await process.stderr.readline()):
                    if not line:
                        raise RuntimeError("Chromium has ended")
            port = int(line.decode().split("127.0.0.1:")[1].split("/")[0])
            drain = asyncio.create_task(process.stderr.read())
            async with aiohttp.ClientSession(trust_env=False) as session:
                yield Browser(session, port)
            drain.cancel()
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
