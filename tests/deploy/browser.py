"""A headless Chromium, driven by its DevTools protocol over pipes: nothing has to be installed."""

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_browser():
    """Path of a browser of this kind; None if there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One page of a browser of its own.

    Parameters
    ----------
    program : str
    folder : Path
        For its profile.
    size : (int, int)
        Width and height of the window.
    """

    def __init__(self, program, folder, size=(1280, 900)):
        theirs, self._to = os.pipe()
        self._from, mine = os.pipe()
        arguments = (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--remote-debugging-pipe",
            f"--user-data-dir={folder}", f"--window-size={size[0]},{size[1]}", "about:blank",
        )  # fmt: skip
        # The protocol's ends are the file descriptors 3 and 4 of the browser. Through 8 and 9, since
        # ours may be 3 and 4 themselves.
        code = f'exec 8<&{theirs} 9>&{mine}; exec "$@" 3<&8 4>&9 8<&- 9>&-'
        with open(Path(folder) / "browser.log", "wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", code, "browser", program, *arguments],
                pass_fds=(theirs, mine), stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        os.close(theirs)
        os.close(mine)
        self._left, self._count, self._session = b"", 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Call a method of the protocol, and wait for its answer."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                assert "error" not in answer, f"{method}: {answer}"
                return answer["result"]

    def _read(self):
        while b"\0" not in self._left:
            part = os.read(self._from, 1 << 20)
            assert part, "the browser has ended"
            self._left += part
        text, _, self._left = self._left.partition(b"\0")
        return json.loads(text)

    def open(self, address):
        """Open a page."""
        self.call("Page.navigate", url=address)

    def ask(self, code):
        """Run JavaScript in the page, and return its value."""
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, code, seconds=30):
        """Run JavaScript until its value is true, and return that."""
        end = time.monotonic() + seconds
        while not (value := self.ask(code)):
            assert time.monotonic() < end, f"still not: {code}"
            time.sleep(0.1)
        return value

    def choose(self, selector, *paths):
        """Choose files in a field, as a user does in the dialogue."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def drop(self, x, y, *paths):
        """Drag files from elsewhere onto a point of the page, and drop them."""
        dragged = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=dragged)

    def screenshot(self, path):
        """Write what is seen, as PNG."""
        Path(path).write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self):
        """End the browser and its children."""
        self._session = None
        try:
            self.call("Browser.close")
            self._process.wait(10)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._to)
        os.close(self._from)
