"""Headless Chromium for the tests of the report, by its DevTools protocol: a page at a width, in a colour scheme."""

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from websocket import WebSocket, create_connection

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 600  # seconds after which it hangs


class Browser:
    """One Chromium with one page. ``errors`` has what its console complained of."""

    def __init__(self) -> None:
        self.profile = tempfile.TemporaryDirectory(prefix="chromium", ignore_cleanup_errors=True)
        assert CHROMIUM is not None
        quiet = ["--disable-background-networking", "--disable-sync", "--disable-component-update", "--no-first-run"]
        self.process = subprocess.Popen(
            [
                *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *quiet),
                *("--remote-debugging-port=0", f"--user-data-dir={self.profile.name}", "about:blank"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.errors: list[str] = []
        self.count = 0
        self.socket: WebSocket | None = None

    def __enter__(self) -> "Browser":
        try:
            self.socket = create_connection(self._address(), timeout=PATIENCE, suppress_origin=True)
            # a page of its own: among the targets that stand there may be the browser's own popups, in any order
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise
        return self

    def _address(self) -> str:
        port = Path(self.profile.name) / "DevToolsActivePort"
        end = time.monotonic() + PATIENCE
        while not port.exists() or len(port.read_text().split()) < 2:
            assert self.process.poll() is None, "chromium didn't start"
            assert time.monotonic() < end, "chromium doesn't answer"
            time.sleep(0.05)
        number, path = port.read_text().split()
        return f"ws://127.0.0.1:{number}{path}"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
        os.killpg(self.process.pid, signal.SIGKILL)  # its helpers write into the profile, too
        self.process.wait(PATIENCE)
        self.profile.cleanup()

    def call(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol, and its result; complaints that come before it are kept."""
        assert self.socket is not None
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if not method.startswith("Target."):
            message["sessionId"] = self.session
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        method, of = event.get("method"), event.get("params", {})
        if method in ("Runtime.exceptionThrown", "Log.entryAdded") or (
            method == "Runtime.consoleAPICalled" and of["type"] in ("error", "warning")
        ):
            self.errors.append(json.dumps(of))
        if method == "Network.requestWillBeSent" and not of["request"]["url"].startswith(("file:", "data:")):
            self.errors.append(f"asked the network for {of['request']['url']}")

    def open(self, page: Path, width: int, dark: bool = False, media: str = "screen") -> None:
        """Load a page at a width, in CSS pixels."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.call("Page.navigate", url=page.resolve().as_uri())
        end = time.monotonic() + PATIENCE
        while self.run("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < end, "the page doesn't load"
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self, path: Path, most: int = 16000) -> None:
        """The whole page, down to so many pixels, as PNG."""
        width, height = self.run("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, most), "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
