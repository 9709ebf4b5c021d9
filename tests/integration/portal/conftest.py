"""A browser in a host's network, what its pages log, what axe-core finds in them, and pictures of them.

Chromium is this machine's own, in the network namespace of a lab's container. Playwright's driver speaks with it over a
pipe, so the driver stays outside and the container needs nothing.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Error, Page, Playwright, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
# What the browser sends on its own would be in the captures of a client's packets, and has nowhere to go in the lab.
# Playwright passes further flags (no background networking, component updates, sync, first run), yet with all of them
# Chromium asks for names at Google. So it finds no name, only addresses: they end in a digit, or have colons.
# But for one, which evil.test has made lead to the portal.
NAMES = ", ".join(
    ["MAP evil.test 10.31.33.7", "MAP * ~NOTFOUND", *(f"EXCLUDE *{digit}" for digit in range(10)), "EXCLUDE *:*"]
)
FLAGS = [
    "--dns-prefetch-disable", "--disable-domain-reliability", "--no-pings", "--no-proxy-server",
    f"--host-resolver-rules={NAMES}",
]  # fmt: skip
VIEWPORTS = {
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
    "desktop": {"viewport": {"width": 1280, "height": 900}},
}
# Rules of axe-core that are neither experimental nor deprecated: the target size of WCAG 2.2 AA, and what AAA adds.
OFF_BY_DEFAULT = [
    "color-contrast-enhanced", "identical-links-same-purpose", "meta-refresh-no-exceptions", "target-size",
]  # fmt: skip


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """Playwright's driver."""
    if not CHROMIUM.exists():
        pytest.exit("no Chromium on this machine: lab/bootstrap tests installs it", 2)
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="session")
def browser_of(
    fleet, playwright: Playwright, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Browser]]:
    """A function: the browser of a host, the same one for the whole session unless the host was restarted."""
    directory = tmp_path_factory.mktemp("browsers")
    browsers: dict[str, Browser] = {}
    with ExitStack() as stack:

        def browser_of(name: str) -> Browser:
            pid = fleet.engine.pid(fleet.container(name))
            assert pid != "0", f"{name} does not run"
            if pid not in browsers:
                # The tests' interrupt is pytest's to handle: it ends what is open here.
                browsers[pid] = playwright.chromium.launch(
                    executable_path=_wrapper(directory, name, pid), args=FLAGS, handle_sigint=False
                )
                stack.callback(browsers[pid].close)
            return browsers[pid]

        yield browser_of


def _wrapper(directory: Path, name: str, pid: str) -> Path:
    """Write a program that starts Chromium in the network namespace of a process."""
    file = directory / f"chromium-{name}-{pid}"
    home = shlex.quote(str(directory))
    file.write_text(
        f"#!/bin/sh\nunset XDG_CACHE_HOME XDG_CONFIG_HOME\nexport HOME={home}\n"
        f'exec nsenter --net=/proc/{pid}/ns/net -- {CHROMIUM} "$@"\n'
    )
    file.chmod(0o700)
    return file


@pytest.fixture
def opened(browser_of: Callable[[str], Browser]) -> Callable[..., AbstractContextManager[Page]]:
    """A context manager: an empty page in the browser of a host, without cookies or a cache of others.

    At its end the test fails when a page logged a console error, which a violation of its Content-Security-Policy is
    too, or when a script of it failed. When some are `expected`, a regular expression, then all of them have to match,
    and one has to be there.
    """

    @contextmanager
    def opened(
        name: str, viewport: str = "desktop", javascript: bool = True, scheme: str = "light", expected: str = ""
    ) -> Iterator[Page]:
        context = browser_of(name).new_context(
            java_script_enabled=javascript, color_scheme=scheme, **VIEWPORTS[viewport]
        )
        logged: list[str] = []
        context.on("console", lambda m: logged.append(f"{m.text} ({m.location['url']})") if m.type == "error" else None)
        context.on("weberror", lambda error: logged.append(error.error.stack or error.error.message))
        try:
            page = context.new_page()
            yield page
            with suppress(Error):  # a page that is closed or on its way to another has nothing more to say
                page.evaluate("0")  # what it logged before has been read now
        except BaseException as error:
            if logged:
                error.add_note(f"the page logged: {'; '.join(logged)}")
            raise
        finally:
            context.close()
        surprising = [line for line in logged if not expected or not re.search(expected, line)]
        assert not surprising, f"the page logged: {'; '.join(surprising)}"
        assert logged or not expected, f"the page logged nothing like {expected}"

    return opened


@pytest.fixture(scope="session")
def axe() -> Callable[[Page], list[str]]:
    """A function: what axe-core finds wrong with a page by all its rules, a line for each thing."""
    options = {"resultTypes": ["violations"], "rules": {rule: {"enabled": True} for rule in OFF_BY_DEFAULT}}

    def axe(page: Page) -> list[str]:
        with _timers(page):
            violations = Axe().run(page, options=options).response["violations"]
        return [
            f"{violation['id']} ({violation['impact']}): {node['html']}: {' '.join(node['failureSummary'].split())}"
            for violation in violations
            for node in violation["nodes"]
        ]

    return axe


@contextmanager
def _timers(page: Page) -> Iterator[None]:
    """Let timers run, which axe-core waits for, on a page where scripts are off; the page's own stay unread."""
    if not page.evaluate("matchMedia('(scripting: none)').matches"):
        yield
        return
    # Chromium takes no notice of a session that allows what the same session did not forbid before.
    session = page.context.new_cdp_session(page)
    for forbidden in (True, False):
        session.send("Emulation.setScriptExecutionDisabled", {"value": forbidden})
    yield
    session.send("Emulation.setScriptExecutionDisabled", {"value": True})


@pytest.fixture(scope="session")
def screenshot(fleet) -> Callable[[Page, str], Path]:
    """A function: save a picture of the whole page, which CI keeps."""
    directory = Path(os.environ.get("ARTEFACTS") or fleet.root / ".nox/artefacts", "portal")

    def screenshot(page: Page, name: str) -> Path:
        file, seen = directory / f"{name}.png", page.viewport_size
        # As tall as the page, or what sticks to the window's edge would be in its middle.
        page.set_viewport_size({**seen, "height": page.evaluate("document.documentElement.scrollHeight")})
        page.screenshot(path=file)
        page.set_viewport_size(seen)
        return file

    return screenshot
