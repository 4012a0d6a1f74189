"""A headless Chromium for tests, spoken to over its debugging pipe: no driver, no port."""

import json
import os
import select
import shutil
import subprocess
import time
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.system.processes import START_TIMEOUT

PROGRAM = "chromium"


class Browser:
    """One tab of a browser with a profile of its own.

    Args:
        folder: for its profile.

    Attributes:
        console: what the page has logged, warnings, errors and violated policies included.
    """

    def __init__(self, folder: Path) -> None:
        (theirs, self._to), (self._from, ours) = os.pipe(), os.pipe()
        options = [
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            f"--user-data-dir={folder}",
            "about:blank",
        ]
        # It reads its commands from descriptor 3, and answers at 4.
        shell = f'exec "$@" 3<&{theirs} 4>&{ours}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "-", shutil.which(PROGRAM) or PROGRAM, *options],
            pass_fds=(theirs, ours),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(ours)
        self.console: list[str] = []
        self._session = ""
        self._read = b""
        self._number = 0
        (tab,) = (
            each
            for each in self.command("Target.getTargets")["targetInfos"]
            if each["type"] == "page"
        )
        attach = {"targetId": tab["targetId"], "flatten": True}
        self._session = self.command("Target.attachToTarget", **attach)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Have a command carried out; return its result."""
        self._number += 1
        call = {"id": self._number, "method": method, "params": params}
        if self._session:
            call["sessionId"] = self._session
        os.write(self._to, json.dumps(call).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._number:
                assert "error" not in told, told["error"]
                result: dict[str, Any] = told["result"]
                return result
            self._note(told)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._from], [], [], 60)
            chunk = os.read(self._from, 1 << 20) if ready else b""
            assert chunk, "the browser says nothing"
            self._read += chunk
        line, _, self._read = self._read.partition(b"\0")
        told: dict[str, Any] = json.loads(line)
        return told

    def _note(self, told: dict[str, Any]) -> None:
        params = told.get("params", {})
        match told.get("method"):
            case "Log.entryAdded":
                self.console.append(params["entry"]["text"])
            case "Runtime.consoleAPICalled":
                self.console.append(str([each.get("value") for each in params["args"]]))
            case "Runtime.exceptionThrown":
                self.console.append(json.dumps(params["exceptionDetails"]))

    def open(self, url: str) -> None:
        """Go to a page."""
        self.command("Page.navigate", url=url)

    def size(self, width: int, height: int) -> None:
        """Be a window, or a phone, of so many pixels."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )

    def prefer(self, **features: str) -> None:
        """Prefer something, as an operating system says it: `prefers_color_scheme="dark"`."""
        told = [
            {"name": name.replace("_", "-"), "value": value} for name, value in features.items()
        ]
        self.command("Emulation.setEmulatedMedia", features=told)

    def eval(self, expression: str) -> Any:
        """Return what an expression is, awaited if it is a promise."""
        told = self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Return what an expression is, as soon as it is true."""
        end = time.monotonic() + START_TIMEOUT
        while not (value := self.eval(expression)):
            if time.monotonic() > end:
                seen = self.eval("document.body.innerText")
                raise AssertionError(f"not in time: {expression}; what is seen:\n{seen}")
            time.sleep(0.05)
        return value

    def press(self, key: str, number: int, **more: Any) -> None:
        """Press a key, by its name and Windows's number, and let it go."""
        told = {"key": key, "code": key, "windowsVirtualKeyCode": number}
        self.command("Input.dispatchKeyEvent", type="keyDown", **told, **more)
        self.command("Input.dispatchKeyEvent", type="keyUp", **told)

    def press_return(self) -> None:
        self.press("Enter", 13, text="\r")

    def screenshot(self, path: Path) -> None:
        """Save what is seen."""
        path.write_bytes(b64decode(self.command("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        """End it. A signal would leave its files in the folder for temporary ones."""
        self._session = ""
        with suppress(AssertionError, OSError):  # It may have ended by itself.
            self.command("Browser.close")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)
