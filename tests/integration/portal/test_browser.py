"""The pages in a real browser in alice's network: with JavaScript and without, with a keyboard, and on a phone."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import expect

PORTALS = {4: "http://10.31.33.7", 6: "http://[fd57:6172:7265:33::7]"}
PAGES = {"/": "front", "/multihop": "multihop", "/changemyip": "changemyip", "/fwd": "fwd"}
MOST_BYTES = 30_000
SOON = 20_000
"""Milliseconds in which a page has to say by itself what has changed."""


@pytest.fixture(autouse=True)
def clean(fleet):
    """Every test starts and ends as a client that has just connected, and the fleet is whole."""
    fleet.use_server("alice", "ams")
    fleet.without_sessions()
    yield
    fleet.sh("nyc", "systemctl start warrend-backend.socket warrend.service")
    fleet.without_sessions()


@pytest.fixture(params=[True, False], ids=["js", "nojs"])
def javascript(request):
    """With JavaScript, and with none."""
    return request.param


def seen_by_the_web(fleet, page, version):
    """As whom a page elsewhere, loaded in the same browser, sees it."""
    host = fleet.web(4) if version == 4 else f"[{fleet.web(6)}]"
    page.goto(f"http://{host}/ip")
    return json.loads(page.inner_text("body"))["ip"]


def leaves_from(fleet, page, server):
    """Assert where the browser leaves, in both families, and come back."""
    here = page.url
    for version in (4, 6):
        assert seen_by_the_web(fleet, page, version) in fleet.exits(server, version)
    page.goto(here)


def says(page, text, timeout=20000):
    """Assert what the page says of where the client is."""
    expect(page.locator(".state")).to_contain_text(text, timeout=timeout)


@pytest.mark.parametrize("portal", PORTALS.values(), ids=["v4", "v6"])
def test_enable_switch_and_disable(fleet, opened, javascript, portal):
    with opened("alice", javascript=javascript) as page:
        page.goto(f"{portal}/")
        page.get_by_role("main").get_by_role("link", name="multihop").first.click()
        says(page, "from Amsterdam")
        leaves_from(fleet, page, "ams")
        page.get_by_label("New York").check()
        page.get_by_role("button", name="Enable multihop").click()
        says(page, "from New York", SOON)
        view = fleet.ctl("ams", "show", "alice")
        assert view["exit"] == "nyc"
        for version in (4, 6):
            expect(page.locator("#where")).to_contain_text(view[f"exit{version}"])
        leaves_from(fleet, page, "nyc")
        page.get_by_label("Frankfurt").check()
        page.get_by_role("button", name="Switch server").click()
        says(page, "from Frankfurt", SOON)
        leaves_from(fleet, page, "fra")
        page.get_by_role("button", name="Disable multihop").click()
        says(page, "from Amsterdam", SOON)
        leaves_from(fleet, page, "ams")
    assert fleet.ctl("ams", "list") == []


def test_the_addresses_shown_are_those_that_the_web_sees(fleet, opened):
    """Of a client that has chosen nothing too: the page knows what the rules will do."""
    for name in ("alice", "carol"):
        with opened(name) as page:
            page.goto(f"{PORTALS[4]}/")
            shown = page.locator("#where code").all_inner_texts()
            assert shown == [seen_by_the_web(fleet, page, version) for version in (4, 6)]


def test_a_page_tells_of_an_exit_that_is_away_and_follows(fleet, opened, javascript):
    fleet.sh("nyc", "systemctl stop warrend-backend.socket warrend.service")
    with opened("alice", javascript=javascript) as page:
        page.goto(f"{PORTALS[4]}/multihop")
        page.get_by_label("New York").evaluate("box => box.disabled = false")
        page.get_by_label("New York").check()
        page.get_by_role("button", name="Enable multihop").click()
        says(page, "New York does not answer. Your traffic is stopped", SOON)
        assert "default" not in fleet.ctl("ams", "show", "alice")["state"]
        fleet.sh("nyc", "systemctl start warrend-backend.socket warrend.service")
        says(page, "goes out to the internet from New York", SOON)
        leaves_from(fleet, page, "nyc")


def test_a_page_follows_what_happens_elsewhere_and_keeps_what_the_user_chose(fleet, opened):
    with opened("alice") as page:
        page.goto(f"{PORTALS[4]}/multihop")
        page.get_by_label("Frankfurt").check()
        fleet.ctl("ams", "start", "alice", "nyc")
        says(page, "from New York", 30_000)
        expect(page.get_by_label("Frankfurt")).to_be_checked()
        expect(page.get_by_role("status")).to_contain_text("New York")


def test_an_exit_address_of_choice(fleet, opened, javascript):
    chosen = {4: fleet.exits("ams", 4)[1], 6: fleet.exits("ams", 6)[1]}
    with opened("alice", javascript=javascript) as page:
        page.goto(f"{PORTALS[4]}/changemyip")
        for address in chosen.values():
            page.get_by_label(address, exact=True).check()
        page.get_by_role("button", name="Use these addresses").click()
        says(page, "address that you chose")
        assert {version: seen_by_the_web(fleet, page, version) for version in (4, 6)} == chosen
        page.goto(f"{PORTALS[4]}/multihop")
        expect(page.get_by_role("button", name="Enable multihop")).to_have_count(0)
        page.get_by_role("link", name="Go back to the default first").click()
        page.get_by_role("button", name="Back to the default").click()
        says(page, "goes out to the internet from Amsterdam")
        page.goto(f"{PORTALS[4]}/multihop")
        page.get_by_label("New York").check()
        page.get_by_role("button", name="Enable multihop").click()
        says(page, "from New York", SOON)
        page.goto(f"{PORTALS[4]}/changemyip")
        expect(page.get_by_role("button", name="Use these addresses")).to_have_count(0)
        page.get_by_role("link", name="Disable multihop first").click()
        page.get_by_role("button", name="Disable multihop").click()
        says(page, "from Amsterdam", SOON)


def test_a_forwarded_port(fleet, opened, javascript):
    """What it leads to is in test_forwards."""
    with opened("alice", javascript=javascript) as page:
        page.goto(f"{PORTALS[4]}/fwd")
        page.get_by_label("Port (optional)").fill("40000")
        page.get_by_role("button", name="Forward", exact=True).click()
        expect(page.get_by_role("row", name=re.compile("40000"))).to_contain_text(f"{fleet.entry('ams')}:40000")
        page.get_by_role("button", name="Forward", exact=True).click()
        expect(page.get_by_role("row")).to_have_count(3)
        assert len(fleet.ctl("ams", "forwards")) == 2
        page.get_by_role("button", name="Remove port 40000").click()
        expect(page.get_by_role("row")).to_have_count(2)
        expect(page.get_by_text("40000", exact=True)).to_have_count(0)
    (left,) = fleet.ctl("ams", "forwards")
    assert left["client"] == "alice"


def test_a_refusal_says_what_to_do(fleet, opened, javascript):
    """What the page does not offer: a port of somebody else, one that does not exist."""
    fleet.ctl("ams", "forward", "carol", "40000")
    refused = r"status of 409"
    with opened("alice", javascript=javascript, expected=refused) as page:
        page.goto(f"{PORTALS[4]}/fwd")
        for port, message in (
            ("40000", "40000 is taken. Choose another one"),
            ("80", "Choose one from 30000 to 65535"),
        ):
            page.get_by_label("Port (optional)").evaluate("box => box.removeAttribute('min')")
            page.get_by_label("Port (optional)").fill(port)
            page.get_by_role("button", name="Forward", exact=True).click()
            expect(page.get_by_role("alert")).to_contain_text(message)
        fleet.ctl("ams", "choose", "alice", fleet.exits("ams")[0])
        fleet.ctl("ams", "choose", "alice", "default")
        page.goto(f"{PORTALS[4]}/multihop")
        fleet.ctl("ams", "choose", "alice", fleet.exits("ams")[0])
        page.get_by_label("New York").check()
        page.get_by_role("button", name="Enable multihop").click()
        expect(page.get_by_role("alert")).to_contain_text("Go back to the default on the page /changemyip first")
    assert [view["client"] for view in fleet.ctl("ams", "forwards")] == ["carol"]


def test_with_the_keyboard_alone(fleet, opened):
    with opened("alice") as page:
        page.goto(f"{PORTALS[4]}/multihop")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        for _press in range(12):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.name") == "exit":
                break
        page.keyboard.press("Space")
        chosen = page.evaluate("document.activeElement.value")
        for _press in range(12):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent") == "Enable multihop":
                break
        page.keyboard.press("Enter")
        says(page, "goes out to the internet from", SOON)
    assert fleet.ctl("ams", "show", "alice")["exit"] == chosen


@pytest.fixture(scope="module", params=["default", "active", "blocked", "chosen"])
def state(request):
    """A state that a client may be in."""
    return request.param


def into(fleet, state):
    """Bring alice there."""
    if state == "active":
        fleet.ctl("ams", "start", "alice", "nyc")
        fleet.ctl("ams", "forward", "alice", "40000")
    elif state == "blocked":
        fleet.sh("nyc", "systemctl stop warrend-backend.socket warrend.service")
        fleet.ctl("ams", "start", "alice", "nyc", status=3)
    elif state == "chosen":
        fleet.ctl("ams", "choose", "alice", fleet.exits("ams")[0])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", ["phone", "desktop"])
def test_everybody_can_use_it(fleet, opened, axe, screenshot, state, viewport, scheme):
    """axe-core finds nothing, nothing is wider than the screen; and a picture of each."""
    into(fleet, state)
    with opened("alice", viewport=viewport, scheme=scheme) as page:
        for path, name in PAGES.items():
            page.goto(f"{PORTALS[4]}{path}")
            assert axe(page) == [], f"{path} {state}"
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"{path} {state}"
            screenshot(page, f"{name}-{state}-{viewport}-{scheme}")
    with opened("alice", viewport=viewport, scheme=scheme, expected="status of 404") as page:
        page.goto(f"{PORTALS[4]}/nowhere")
        assert axe(page) == []


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_small_and_asks_nobody_else(opened, path):
    sizes, urls = [], []
    with opened("alice") as page:
        page.on("request", lambda request: urls.append(request.url))
        page.on("requestfinished", lambda request: sizes.append(request.sizes()["responseBodySize"]))
        page.goto(f"{PORTALS[4]}{path}", wait_until="networkidle")
        assert page.context.cookies() == []
        assert page.evaluate("localStorage.length + sessionStorage.length") == 0
    assert len(urls) >= 4
    assert all(url.startswith(f"{PORTALS[4]}/") for url in urls), urls
    assert sum(sizes) < MOST_BYTES, sizes


def test_the_most_forwards_are_still_a_small_page(fleet, opened):
    for _number in range(100):
        fleet.ctl("ams", "forward", "alice")
    test_a_page_is_small_and_asks_nobody_else(opened, "/fwd")
