"""The sandbox's page in a real browser, on the real service and real containers."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import SANDBOX, Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BROWSER = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
PATIENCE = 20_000
"""Milliseconds that something on the page may take to appear."""

if BROWSER is None:
    pytest.skip(
        "the page needs a browser: run `.ci/setup browser` (Debian: apt-get install chromium)", allow_module_level=True
    )
if not (SANDBOX / "page/node_modules/uplot").exists():
    pytest.skip("the page needs its libraries: run `.ci/setup page`", allow_module_level=True)
playwright = pytest.importorskip(
    "playwright.sync_api", reason="the page's browser is driven by Playwright: pip install playwright"
)


class Page:
    """The page as somebody sees it."""

    def __init__(self, tab: Any) -> None:
        self.tab = tab
        self.problems: list[str] = []
        tab.set_default_timeout(PATIENCE)
        tab.on("pageerror", lambda error: self.problems.append(str(error)))
        tab.on("console", lambda message: message.type == "error" and self.problems.append(message.text))
        tab.on("request", self.asked)

    def asked(self, request: Any) -> None:
        """Nothing is loaded from anywhere else."""
        if re.match(r"(http|ws)://127\.0\.0\.1:|data:", request.url) is None:
            self.problems.append(f"asked for {request.url}")

    def open(self, sandbox: Sandbox) -> None:
        self.tab.goto(f"{sandbox.url}/#token={sandbox.token}")
        self.sees("#link", "live")

    def sees(self, place: str, words: str | re.Pattern[str]) -> None:
        """Wait until it is there to be read."""
        playwright.expect(self.tab.locator(place)).to_contain_text(words, timeout=PATIENCE)

    def run(self, program: str) -> None:
        self.tab.fill("#program", program)
        self.tab.click("#new button[type=submit]")

    def type(self, words: str) -> None:
        """Into the terminal."""
        self.tab.locator("#terminal textarea").press_sequentially(words)

    def terminal_size(self) -> tuple[int, int]:
        """What the shell says of it."""
        lines = re.compile(r"size (\d+) (\d+)\.")
        before = len(lines.findall(self.tab.inner_text(".xterm-rows")))
        self.type("echo size $(stty size).\n")
        while len(found := lines.findall(self.tab.inner_text(".xterm-rows"))) == before:
            self.tab.wait_for_timeout(50)
        return int(found[-1][0]), int(found[-1][1])


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A tab of a fresh browser. Whatever it does, it has no errors and asks nobody but the service."""
    # Chromium has a socket in it, whose path must be short.
    with tempfile.TemporaryDirectory(prefix="browser-", dir="/tmp") as home, monkeypatch.context() as environment:
        for name in ("HOME", "TMPDIR", "XDG_RUNTIME_DIR"):
            environment.setenv(name, home)
        with playwright.sync_playwright() as driver:
            yield from opened(driver)


def opened(driver: Any) -> Iterator[Page]:
    """One tab."""
    browser = driver.chromium.launch(executable_path=BROWSER, args=FLAGS)
    page = Page(browser.new_page(viewport={"width": 1200, "height": 800}))
    yield page
    browser.close()
    assert page.problems == []


def colored(page: Page, place: str) -> int:
    """How many pixels of a plot are neither empty nor grey."""
    found = page.tab.evaluate(
        """place => {
            const canvas = document.querySelector(place + " canvas");
            if (!canvas) return 0;
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let colored = 0;
            for (let i = 0; i < data.length; i += 4) {
                const [r, g, b, a] = data.slice(i, i + 4);
                if (a > 200 && Math.max(r, g, b) - Math.min(r, g, b) > 60) colored++;
            }
            return colored;
        }""",
        place,
    )
    return int(found)


def test_a_program_its_output_its_plots_and_its_end(page: Page, sandbox: Sandbox, runtime_name: str) -> None:
    page.open(sandbox)
    assert sandbox.token not in page.tab.url
    page.run("echo first; echo oops >&2; while [ ! -e /tmp/go ]; do :; done; echo second; sleep 60")
    page.sees("#output .stdout", "first")
    page.sees("#output .stderr", "oops")
    page.sees("#state", "running")
    page.sees("#active", "1")
    page.sees("#runs li.running .title", "echo first; echo oops")
    if runtime_name == "crun":
        page.sees("#notice", "this runtime has no statistics")
    else:
        page.sees("#cpu-now", re.compile(r"[1-9]\d* % of 50 %"))
        page.sees("#memory-now", "of 64 MiB")
        for plot in ("#cpu-plot", "#memory-plot", "#runs .spark"):
            while colored(page, plot) < 20:
                page.tab.wait_for_timeout(50)
    page.tab.click("[data-tab=terminal]")
    page.sees(".xterm-rows", "$")
    page.type("touch /tmp/go\n")
    page.tab.click("[data-tab=output]")
    page.sees("#output", "second")  # as it comes
    page.tab.click("[data-tab=source]")
    page.sees("#source", "while [ ! -e /tmp/go ]")
    page.tab.click("#kill")
    page.sees("#state", "killed")
    page.sees("#active", "0")
    playwright.expect(page.tab.locator("#kill")).to_be_hidden()


def test_a_terminal_that_is_typed_into_and_follows_the_window(page: Page, sandbox: Sandbox) -> None:
    page.open(sandbox)
    page.tab.click("#shell")
    page.sees(".xterm-rows", "$")
    rows, columns = page.terminal_size()
    assert rows == page.tab.locator(".xterm-rows > div").count()
    assert columns > 60
    page.tab.set_viewport_size({"width": 1000, "height": 700})
    while (now := page.terminal_size()) == (rows, columns):
        pass
    assert now[0] < rows
    assert now[1] < columns
    assert now[0] == page.tab.locator(".xterm-rows > div").count()
    page.type("sh -c 'id -u; exec sleep 50'\n")
    page.sees(".xterm-rows", "65534")
    page.tab.keyboard.press("Control+c")
    page.type("printf 'h\u00e4tte %s\\n' $((6 * 7))\n")
    page.sees(".xterm-rows", "h\u00e4tte 42")
    page.tab.click("#kill")
    page.sees(".xterm-rows", "[the terminal is closed]")
    page.sees("#state", "killed")


def test_who_has_no_token_is_asked_for_it(page: Page, sandbox: Sandbox) -> None:
    page.tab.goto(sandbox.url)
    for token in ("wrong", sandbox.token):
        page.tab.fill("#token", token)
        page.tab.click("#login button")
    page.sees("#link", "live")
    page.tab.reload()
    page.sees("#link", "live")  # it is remembered in this tab
    assert all("401" in problem for problem in page.problems)
    page.problems.clear()


def test_what_a_program_prints_is_text(page: Page, sandbox: Sandbox) -> None:
    page.open(sandbox)
    page.run("#<img src=x onerror=alert(1)>\necho '<img src=x onerror=alert(2)><script>alert(3)</script>'")
    page.sees("#output", "<script>alert(3)</script>")
    page.sees("#title", "#<img src=x onerror=alert(1)>")
    page.sees("#runs li:first-child .title", "#<img src=x onerror=alert(1)>")
    assert page.tab.locator("main img, main script").count() == 0


def test_a_refusal_is_shown(page: Page, new_sandbox: Callable[..., Any]) -> None:
    with new_sandbox("--running", 1) as sandbox:
        page.open(sandbox)
        page.run("sleep 60")
        page.sees("#state", "running")
        page.run("echo too many")
        page.sees("#refusal", "1 runs at once are the most")
        page.tab.click("#kill")
        page.sees("#state", "killed")
        page.run("echo there is room")
        page.sees("#output", "there is room")
        page.sees("#state", "exit 0")
    assert all("429" in problem for problem in page.problems)
    page.problems.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_window_and_the_scheme(page: Page, sandbox: Sandbox, scheme: str) -> None:
    page.tab.emulate_media(color_scheme=scheme)
    page.open(sandbox)
    page.run(f"echo {'long' * 100}; sleep 60")
    page.sees("#state", "running")
    page.tab.click("[data-tab=terminal]")
    for width in (340, 700, 1200, 1900):
        page.tab.set_viewport_size({"width": width, "height": 700})
        page.tab.locator("#terminal").scroll_into_view_if_needed()  # xterm.js draws what can be seen
        page.sees(".xterm-rows", "$")
        assert page.tab.evaluate("document.documentElement.scrollWidth") <= width
        if folder := os.environ.get("RUNC_ASYNC_SCREENSHOTS"):
            page.tab.screenshot(path=f"{folder}/{scheme}-{width}.png", full_page=True)
    ground = page.tab.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", ground)[:3]))
    assert brightness > 700 if scheme == "light" else brightness < 100
    page.tab.click("#kill")
    page.sees("#state", "killed")
