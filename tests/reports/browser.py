"""A real browser for tests and benchmarks: Chromium without a window, driven through its own WebDriver."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

NAMES = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_SECONDS = 60


def programs() -> tuple[str, str] | None:
    """Browser and driver, or None where one of them is not installed."""
    browser = next((found for name in NAMES if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    return None if browser is None or driver is None else (browser, driver)


class Browser:
    """A window, and what tests ask of it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, page: Path, place: str = "") -> None:
        """Open a file, and wait until its scripts have done their work."""
        self.driver.get("about:blank")
        self.driver.get(page.resolve().as_uri() + place)
        self.wait(
            "return [...document.querySelectorAll('.viewer, table.interactive')].every((e) => e.dataset.ready !== undefined)"
        )

    def wait(self, script: str, *arguments: object) -> object:
        """What a script returns, as soon as that is true."""
        end = time.monotonic() + TIMEOUT_SECONDS
        while not (found := self.run(script, *arguments)):
            if time.monotonic() > end:
                raise TimeoutError(f"{script}: not within {TIMEOUT_SECONDS} s; the console says {self.errors()}")
            time.sleep(0.02)
        return found

    def run(self, script: str, *arguments: object) -> object:
        """Run a script in the page, and in a later frame than what happened before."""
        return self.driver.execute_script(script, *arguments)  # type: ignore[no-untyped-call]

    def errors(self) -> list[str]:
        """What the console says, other than information; each message once."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]  # type: ignore[no-untyped-call]

    def find(self, selector: str) -> WebElement:
        """The first element."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def click(self, text: str) -> None:
        """Press the button of this text."""
        self.driver.find_element(By.XPATH, f"//button[normalize-space()={text!r}]").click()

    def actions(self) -> ActionChains:
        """Mouse and keys."""
        return ActionChains(self.driver, duration=20)

    def wheel(self, element: WebElement, steps: int) -> None:
        """Turn the wheel over an element; one after the other, as a hand does."""
        for _ in range(abs(steps)):
            self.actions().scroll_from_origin(
                ScrollOrigin.from_element(element), 0, 100 if steps > 0 else -100
            ).perform()

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.driver.execute_async_script(  # type: ignore[no-untyped-call]
            "const done = arguments[0]; setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 60)"
        )

    def pixels(self, pane: str) -> list[int]:
        """Red of all pixels of what is on the screen in a pane, row by row."""
        self.settle()
        found = self.run(
            "const c = document.querySelector(`[data-pane='${arguments[0]}'] canvas`);"
            "const copy = Object.assign(document.createElement('canvas'), {width: c.width, height: c.height});"
            "const context = copy.getContext('2d', {willReadFrequently: true});"
            "context.drawImage(c, 0, 0);"
            "const d = context.getImageData(0, 0, c.width, c.height).data;"
            "return Array.from({length: c.width * c.height}, (_, i) => d[4 * i])",
            pane,
        )
        assert isinstance(found, list)
        return found

    def picture(self, path: Path) -> None:
        """Save what is seen."""
        self.settle()
        self.driver.save_screenshot(str(path))

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """The size of the window, and the colours that the reader prefers."""
        self.driver.set_window_size(width, height)
        value = "dark" if dark else "light"
        media = {"features": [{"name": "prefers-color-scheme", "value": value}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)  # type: ignore[no-untyped-call]


@contextmanager
def browser(found: tuple[str, str], profile: Path) -> Iterator[Browser]:
    """Start a browser, without the network, and end it.

    Raises
    ------
    RuntimeError
        It cannot be started here.
    """
    options = Options()
    options.binary_location = found[0]
    arguments = [
        *("--headless=new", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage", "--window-size=1280,900"),
        *(
            f"--user-data-dir={profile}",
            "--force-device-scale-factor=1",
            "--proxy-server=127.0.0.1:9",
            "--no-first-run",
        ),
    ]
    for argument in [*arguments, *(["--no-sandbox"] if os.geteuid() == 0 else [])]:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        driver = webdriver.Chrome(options=options, service=Service(found[1]))
    except WebDriverException as error:
        raise RuntimeError(str(error).splitlines()[0]) from error
    try:
        yield Browser(driver)
    finally:
        driver.quit()
