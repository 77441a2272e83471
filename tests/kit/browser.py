"""A real browser without a window: Chromium, where it and its driver are installed."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

PHONE, DESKTOP = (360, 740), (1280, 900)
_SECONDS = 60
_PROGRAMS = ("chromium", "chromedriver")


def missing() -> str | None:
    """Return why there is no browser, or None if there is one."""
    gone = [name for name in _PROGRAMS if shutil.which(name) is None]
    return f"not on the PATH: {', '.join(gone)} (Debian: chromium, chromium-driver)" if gone else None


class Browser:
    """Opens files, and tells what came of it."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, path: Path, *, size: tuple[int, int], scheme: str) -> None:
        """Open a file in a viewport of a size, for somebody who likes it light or dark."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        preference = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [preference]})
        self.driver.get(path.as_uri())

    def value(self, expression: str) -> Any:
        """Evaluate an expression in the page."""
        return self.driver.execute_script(f"return {expression}")

    def complaints(self) -> list[Mapping[str, Any]]:
        """Give what the browser has written to its console since it was asked."""
        return self._log("browser")

    def requests(self) -> list[str]:
        """Give the URLs that the browser has asked for since it was asked, those aside that a policy forbade."""
        messages = [json.loads(one["message"])["message"] for one in self._log("performance")]
        told = [(one["method"], one["params"]) for one in messages]
        forbidden = {params["requestId"] for _, params in told if params.get("blockedReason") == "csp"}
        sent = [params for method, params in told if method == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent if params["requestId"] not in forbidden]

    def _log(self, name: str) -> list[Mapping[str, Any]]:
        return list(self.driver.get_log(name))  # type: ignore[no-untyped-call]


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """Start the browser, with a profile in a folder."""
    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", f"user-data-dir={folder / 'profile'}"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=ChromeService(str(shutil.which("chromedriver"))))
    try:
        driver.set_page_load_timeout(_SECONDS)
        driver.set_script_timeout(_SECONDS)
        yield Browser(driver)
    finally:
        driver.quit()
