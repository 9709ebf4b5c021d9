"""Elements of the roles' real tables, in the kernel."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fleets import fleet
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from namespaces import TABLES, command, fresh, load_tables, nft
from warrend.tables import (
    CLIENT_MAPS,
    SESSION_MAPS,
    Key,
    Tables,
    TablesError,
    TablesGoneError,
    Value,
    others_changed,
    watch,
)

NOTHING = (False, False)
# Each try asks the kernel.
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
MAPS = CLIENT_MAPS + SESSION_MAPS
ALICE4, ALICE6 = "10.100.0.1", "fd57:6172:7265:2::c1"
ALICE: dict[Key, Value] = {
    ("client_mark4", ALICE4): 0x7000_0002,
    ("client_mark6", ALICE6): 0x7000_0002,
    ("client_session4", ALICE4): "10.128.128.9",
    ("client_session6", ALICE6): "fd57:6172:7265:8001::9",
}
BOB: dict[Key, Value] = {
    ("client_choice4", "10.100.0.2"): "203.0.113.12",
    ("session_exit4", "10.129.0.5"): "203.0.113.11",
    ("session_exit6", "fd57:6172:7265:8002::5"): "2001:db8:e::11",
}


@pytest.fixture
def tables() -> Iterator[Tables]:
    """The tables of a server that has clients, just loaded."""
    with fresh():
        load_tables(fleet(), "host-ams")
        found = Tables(clients=True)
        assert found.read() == {}
        yield found


@pytest.fixture
def own_thread() -> Iterator[Callable[..., object]]:
    """Runs a function in a thread like the agent's."""
    with ThreadPoolExecutor(1, initializer=Tables.own_thread) as executor:
        yield lambda function, *arguments: executor.submit(function, *arguments).result()


def listed(name: str) -> dict[str, Value]:
    """A map's elements, as nft(8) says."""
    data = json.loads(command("nft", "--json", "list", "map", "inet", "warren_path", name))
    return dict(next(item["map"] for item in data["nftables"] if "map" in item).get("elem", ()))


def live() -> dict[Key, Value]:
    """All elements, as nft(8) says."""
    return {(name, key): value for name in MAPS for key, value in listed(name).items()}


def test_elements_are_added_changed_and_deleted(tables: Tables) -> None:
    tables.apply(ALICE | BOB)
    assert live() == tables.read() == ALICE | BOB
    changed: dict[Key, Value | None] = {
        **ALICE,
        ("client_mark4", ALICE4): 0x7FFF_FFFE,
        ("client_session4", ALICE4): None,
    }
    tables.apply(changed)
    wanted = {key: value for key, value in (changed | BOB).items() if value is not None}
    assert live() == tables.read() == wanted
    tables.apply(dict.fromkeys(ALICE | BOB))
    assert live() == tables.read() == {}


def test_what_is_so_already_is_no_transaction(tables: Tables) -> None:
    tables.apply(ALICE)
    with watch() as sock:
        tables.apply(ALICE)
        tables.apply({("client_mark4", "10.100.0.9"): None})
        tables.apply({})
        assert not select.select([sock], [], [], 0.05)[0]


KEYS = {
    "4": st.ip_addresses(v=4, network="10.96.0.0/11").map(str),
    "6": st.ip_addresses(v=6, network="fd57:6172:7265::/48").map(str),
}


@st.composite
def changes(draw: st.DrawFn) -> dict[Key, Value | None]:
    """Elements to give values, or to remove; from so few that they meet."""
    found: dict[Key, Value | None] = {}
    for name in draw(st.lists(st.sampled_from(MAPS), max_size=6)):
        key = draw(
            st.sampled_from(("10.96.0.1", "10.96.0.2") if name[-1] == "4" else ("fd57::1", "fd57::2")) | KEYS[name[-1]]
        )
        marks = st.integers(1, 0xFFFF_FFFF)
        found[name, key] = draw(st.none() | (marks if "mark" in name or "flow" in name else KEYS[name[-1]]))
    return found


@given(rounds=st.lists(changes(), max_size=6), foreign=st.lists(changes(), max_size=6))
@settings(
    max_examples=25, deadline=None, phases=NO_SHRINKING, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_wanted_is_so_whoever_was_there_meanwhile(
    tables: Tables, rounds: list[dict[Key, Value | None]], foreign: list[dict[Key, Value | None]]
) -> None:
    """Another program changes elements between our transactions; those that we change then are as we want them."""
    other = Tables(clients=True)
    model = tables.read()
    for index, wanted in enumerate(rounds):
        if index < len(foreign):
            other.read()
            other.apply(foreign[index])
            model = after(model, foreign[index])
        different = {key: value for key, value in wanted.items() if model.get(key) != value}
        tables.read()
        if index < len(foreign):
            other.apply({key: None for key in different if key in model})  # now the copy in `tables` is wrong
            model = {key: value for key, value in model.items() if key not in different}
        tables.apply(different)
        model = after(model, different)
        assert tables.read() == model
    assert live() == model


def after(model: Mapping[Key, Value], wanted: Mapping[Key, Value | None]) -> dict[Key, Value]:
    """The elements once the wanted ones are so."""
    return {key: value for key, value in ({**model, **wanted}).items() if value is not None}


@pytest.mark.parametrize(
    "wrong",
    [
        {("client_session4", "10.100.0.3"): "fd57::7"},
        {("client_mark6", "fd57::3"): "10.0.0.1"},
        {("session_exit6", "10.100.0.3"): "2001:db8::1"},
    ],
)
def test_a_bad_element_changes_nothing_and_is_not_named(tables: Tables, wrong: dict[Key, Value]) -> None:
    tables.apply(ALICE)
    with pytest.raises(TablesError) as caught:
        tables.apply({**BOB, **dict.fromkeys(ALICE), **wrong}, anyway=True)
    assert live() == tables.read() == ALICE
    assert not any(part in str(caught.value) for part in ("10.", "fd57", "2001", "::"))
    assert str(caught.value)
    tables.apply({**BOB, **dict.fromkeys(ALICE)})
    assert live() == BOB


def test_what_somebody_else_has_added_changed_or_deleted_is_put_right(tables: Tables) -> None:
    tables.apply(ALICE)
    nft(
        f"""
        delete element inet warren_path client_mark4 {{ {ALICE4} }}
        add element inet warren_path client_mark4 {{ {ALICE4} : 0x1 }}
        delete element inet warren_path client_session4 {{ {ALICE4} }}
        add element inet warren_path session_exit4 {{ 10.129.0.5 : 203.0.113.13 }}
        """
    )
    tables.apply({**BOB, ("client_mark4", ALICE4): 0x7FFF_FFFF, ("client_session4", ALICE4): None})
    expected = {**ALICE, **BOB, ("client_mark4", ALICE4): 0x7FFF_FFFF}
    del expected["client_session4", ALICE4]
    assert live() == expected


def test_a_flushed_map_is_filled_again(tables: Tables) -> None:
    tables.apply(ALICE)
    nft("flush map inet warren_path client_mark4")
    tables.apply({("client_mark4", ALICE4): 0x7FFF_FFFE})
    assert live() == {**ALICE, ("client_mark4", ALICE4): 0x7FFF_FFFE}


def test_rules_loaded_anew_leave_the_elements(tables: Tables) -> None:
    """What site.yml does: decision 5."""
    tables.apply(ALICE | BOB)
    load_tables(fleet(), "host-ams")
    assert tables.read() == ALICE | BOB


def test_a_table_that_is_gone_is_said_so(tables: Tables) -> None:
    tables.apply(ALICE | BOB)
    nft("delete table inet warren_path")
    change: dict[Key, Value | None] = {("client_mark4", ALICE4): None}
    change |= dict.fromkeys(BOB)
    for attempt in (tables.read, lambda: tables.apply(change)):
        with pytest.raises(TablesGoneError, match=r"^nftables map \w+ of table warren_path: No such file or directory"):
            attempt()


@pytest.mark.usefixtures("netns")
def test_a_server_without_clients_has_maps_of_sessions_only() -> None:
    read = fleet()
    read["servers"]["host-nyc"]["access"] = False
    load_tables(read, "host-nyc", "warren_path")
    tables = Tables(clients=False)
    tables.read()
    leases = {key: value for key, value in BOB.items() if key[0] in SESSION_MAPS}
    tables.apply(leases)
    assert tables.read() == leases
    with pytest.raises(TablesGoneError):
        Tables(clients=True).read()


def test_all_that_is_wanted_is_there_whatever_the_copy_says(tables: Tables) -> None:
    tables.apply(ALICE)
    nft("delete table inet warren_path")
    load_tables(fleet(), "host-ams", "warren_path")
    with watch() as sock:
        tables.apply(ALICE, anyway=True)
        assert transactions(sock) == 1
    assert live() == ALICE


def transactions(sock: socket.socket) -> int:
    """How many this thread has made: the kernel names it at the end of each."""
    said = b""
    while select.select([sock], [], [], 0.05)[0]:
        said += sock.recv(1 << 18)
    return said.count(Path("/proc/thread-self/comm").read_bytes().strip() + b"\0")


def test_our_own_transactions_are_not_anothers(tables: Tables, own_thread: Callable[..., object]) -> None:
    with watch() as sock:
        assert others_changed(sock) == NOTHING
        own_thread(tables.apply, ALICE)
        own_thread(tables.apply, dict.fromkeys(ALICE), True)
        assert select.select([sock], [], [], 1)[0]
        assert others_changed(sock) == NOTHING
        assert others_changed(sock) == NOTHING


@pytest.mark.parametrize("ours", ["before", "after", "both", "neither"])
def test_anothers_transaction_is_seen(tables: Tables, own_thread: Callable[..., object], ours: str) -> None:
    with watch() as sock:
        if ours in ("before", "both"):
            own_thread(tables.apply, ALICE)
        nft("add element inet warren_path client_mark4 { 10.100.0.7 : 5 }")
        if ours in ("after", "both"):
            own_thread(tables.apply, BOB)
        assert select.select([sock], [], [], 1)[0]
        assert others_changed(sock) == (True, True)
        assert others_changed(sock) == NOTHING, "once"


@pytest.mark.usefixtures("tables")
def test_anothers_transaction_is_seen_in_any_table() -> None:
    with watch() as sock:
        nft("add table inet something_else; add chain inet something_else mine; flush table inet something_else")
        assert select.select([sock], [], [], 1)[0]
        assert others_changed(sock) == (True, False)


@pytest.mark.parametrize(
    "damage",
    [
        "flush ruleset",
        "delete table inet TABLE",
        "flush table inet TABLE",
        "flush chain inet TABLE input",
        "delete rule inet TABLE input handle HANDLE",
        "insert rule inet TABLE input accept",
        "add chain inet TABLE mine { type filter hook input priority -100; }",
        "add table inet TABLE { flags dormant; }",
    ],
)
@pytest.mark.parametrize("table", sorted(TABLES))
@pytest.mark.usefixtures("netns")
def test_a_table_of_ours_that_is_another_is_seen(damage: str, table: str) -> None:
    load_tables(fleet(), "host-ams", table)
    chain = json.loads(command("nft", "--json", "list", "chain", "inet", table, "input"))["nftables"]
    handle = next(item["rule"]["handle"] for item in chain if "rule" in item)
    with watch() as sock:
        nft(damage.replace("TABLE", table).replace("HANDLE", str(handle)))
        assert select.select([sock], [], [], 1)[0]
        assert others_changed(sock) == (True, True)
        assert others_changed(sock) == NOTHING


def test_when_the_socket_could_not_keep_up_anything_may_have_happened(
    tables: Tables, own_thread: Callable[..., object]
) -> None:
    with watch() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        for number in range(100):
            own_thread(tables.apply, {("client_mark4", ALICE4): number + 1})
        assert others_changed(sock) == (True, True)
        assert others_changed(sock) == NOTHING


def test_a_thread_is_not_named_after_its_process(own_thread: Callable[..., object]) -> None:
    """The name in the kernel is the thread's, so the process keeps its own."""

    def names() -> list[str]:
        return [Path(f"/proc/{which}/comm").read_text().strip() for which in ("thread-self", "self")]

    assert own_thread(names)[0] == "warrend-nft"
    assert names()[1] != "warrend-nft"
