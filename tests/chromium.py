"""A real headless Chromium without any network, that clicks and reads a page and says what it asked for."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

REQUIRE = "ATTNBENCH_REQUIRE_BROWSER"
PACKAGES = "Debian: apt-get install --no-install-recommends chromium chromium-driver; Python: pip install '.[test]'"
ARGUMENTS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,1000"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--no-first-run"),
)


def missing() -> str:
    """What the tests of the page lack here; empty if they can run."""
    programs = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    try:
        import selenium  # noqa: F401
    except ImportError:
        programs.append("selenium")
    return f"Tests of the page need {', '.join(programs)} ({PACKAGES})." if programs else ""


class Browser:
    """Opens files, and keeps what the browser complained of and asked for."""

    def __init__(self) -> None:
        from selenium import webdriver
        from selenium.common.exceptions import SessionNotCreatedException
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for argument in ARGUMENTS:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        program = str(shutil.which("chromedriver"))
        try:
            self.driver = webdriver.Chrome(options=options, service=Service(program))
        except SessionNotCreatedException:  # a machine under load can be too slow for the driver's patience, once
            self.driver = webdriver.Chrome(options=options, service=Service(program))

    def open(self, file: Path, *, width: int = 1400, height: int = 1000) -> "Browser":
        """Loads a file; raises if its scripts do not come to their end."""
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(file.as_uri())
        assert self.driver.execute_script("return document.body.dataset.ready") == "yes", self.complaints()
        return self

    def complaints(self) -> list[str]:
        """All that the browser logged: errors of scripts, and what the page's policy forbade."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that were asked for since the page was opened."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [one["params"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent]

    def js(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(script, *given)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def click(self, selector: str) -> None:
        element = self.one(selector)
        self.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        element.click()

    def hover(self, element: Any) -> None:
        from selenium.webdriver import ActionChains

        self.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        ActionChains(self.driver, duration=20).move_to_element(element).perform()

    def hint(self, element: Any, *, patience_s: float = 5) -> str:
        """What the page says of what the pointer is on. A busy machine loses moves, so the pointer comes again."""
        from selenium.webdriver import ActionChains

        end = time.monotonic() + patience_s
        self.hover(element)
        while not (text := self.one("#hint").text) and time.monotonic() < end:
            ActionChains(self.driver, duration=20).move_by_offset(0, 60).perform()
            self.hover(element)
        return text

    def allow_copying(self, *, allowed: bool) -> None:
        setting = "granted" if allowed else "denied"
        for name in ("clipboard-read", "clipboard-write"):
            given = {"permission": {"name": name, "allowWithoutSanitization": False}, "setting": setting}
            self.driver.execute_cdp_cmd("Browser.setPermission", given)

    def copied(self) -> str:
        """What a page copied last."""
        script = "const done = arguments[0]; navigator.clipboard.readText().then(done, (why) => done(String(why)))"
        return self.driver.execute_async_script(script)


def browser() -> Browser:
    """A browser, or a skip with its reason; a failure where the environment says that there has to be one."""
    if reason := missing():
        if os.environ.get(REQUIRE):
            pytest.fail(f"{REQUIRE} is set. {reason}")
        pytest.skip(reason)
    return Browser()
