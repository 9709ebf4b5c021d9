"""Forwarded ports: whose they are, on disk and in the rules' real tables, and where the packets go."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from agents import PlainKernel
from fleets import config, fleet, other
from namespaces import approve, flows, fresh, load_tables, nft, router, source_of, udp
from warrend.agent import Agent
from warrend.config import Config
from warrend.conntrack import FORWARD_KIND, OWN_KIND, Flows, forward_mark, handle
from warrend.forwards import MAX_PORTS_PER_CLIENT, Forwards
from warrend.refusals import RefusedError
from warrend.store import DiskError, ForwardRow, Store
from warrend.tables import Tables, TablesError, Value
from warrend.views import default_exit

TOLD = config("ams")
C1, C2 = TOLD.clients["10.100.0.1"], TOLD.clients["10.100.0.2"]


class Recorder(PlainKernel):
    """A kernel that says what it was told to forget."""

    def __init__(self, told: Config) -> None:
        super().__init__(told)
        self.forgotten: list[int] = []

    async def forget_forwards(self, ports: Any) -> None:
        assert not [port for port in ports if ("forward4", str(port)) in self.live], "the elements go first"
        self.forgotten += ports
        await self._turn()


class Server:
    """The forwards of one server."""

    def __init__(self, directory: Path, told: Config = TOLD) -> None:
        self.kernel, self.store = Recorder(told), Store(directory / "sessions.db")
        self.forwards = Forwards(told, self.store, self.write, self.kernel)  # type: ignore[arg-type]
        self.broken = False

    async def write(self, function: Callable[..., object], *arguments: object) -> object:
        await asyncio.sleep(0)
        if self.broken:
            raise DiskError
        return function(*arguments)

    @property
    def stored(self) -> list[int]:
        return sorted(row.port for row in self.store.forwards())


def run(directory: Path, work: Callable[[Server], Awaitable[object]], **changes: Any) -> None:
    """Do something with a server's forwards, which have been read from its disk."""

    async def go() -> None:
        server = Server(directory, other(TOLD, **changes))
        await server.forwards.load(server.store.forwards())
        server.kernel.live = dict(server.forwards.elements())
        await work(server)
        assert server.kernel.live == server.forwards.elements()
        server.store.close()

    asyncio.run(go())


def refused(reason: str) -> Any:
    """A refusal for this reason."""
    return pytest.raises(RefusedError, check=lambda error: error.reason == reason)


def test_a_port_is_forwarded_until_it_is_not(tmp_path: Path) -> None:
    async def work(server: Server) -> None:
        row = await server.forwards.add(C1, 40000)
        assert (row.port, row.client4, row.client6) == (40000, C1.address4, C1.address6)
        assert server.kernel.live == {
            ("forward4", "40000"): C1.address4,
            ("forward6", "40000"): C1.address6,
            ("forward_flow", "40000"): forward_mark(40000),
        }
        assert server.forwards.of(C1.address4) == [row]
        assert server.forwards.marks == {forward_mark(40000)}
        assert server.stored == [40000]
        await server.forwards.remove(C1, 40000)
        assert (server.forwards.of(C1.address4), server.forwards.marks, server.stored) == ([], set(), [])
        assert server.kernel.forgotten == [40000]

    run(tmp_path, work)


def test_it_is_there_again_after_a_restart(tmp_path: Path) -> None:
    async def begin(server: Server) -> None:
        await server.forwards.add(C1, 40000)
        await server.forwards.add(C2, 40001)
        await server.forwards.add(C2, 40002)

    async def again(server: Server) -> None:
        assert [row.port for row in server.forwards.of(C2.address4)] == [40001, 40002]
        assert server.forwards.of(C1.address4)[0].client6 == "fd57::new"

    async def others(server: Server) -> None:
        assert server.forwards.of(C1.address4) == []
        assert [row.port for row in server.forwards.of(C2.address4)] == [40002]
        assert server.stored == [40002]

    run(tmp_path, begin)
    run(tmp_path, again, clients={**TOLD.clients, C1.address4: replace(C1, address6="fd57::new")})
    run(tmp_path, others, clients={C2.address4: C2}, reserved_ports=frozenset([40001]))


@pytest.mark.parametrize(
    ("port", "reason"), [(29999, "out_of_range"), (65536, "out_of_range"), (51820, "taken"), (40000, "taken")]
)
def test_a_port_that_cannot_be(tmp_path: Path, port: int, reason: str) -> None:
    async def work(server: Server) -> None:
        await server.forwards.add(C2, 40000)
        with refused(reason):
            await server.forwards.add(C1, port)
        assert server.stored == [40000]

    run(tmp_path, work)


def test_what_one_has_another_cannot_remove(tmp_path: Path) -> None:
    async def work(server: Server) -> None:
        await server.forwards.add(C2, 40000)
        for port in (40000, 40001):
            with refused("no_forward"):
                await server.forwards.remove(C1, port)
        assert server.stored == [40000]

    run(tmp_path, work)


def test_so_many_and_no_more_however_they_are_asked_for(tmp_path: Path) -> None:
    async def work(server: Server) -> None:
        asked = [server.forwards.add(C1) for _number in range(MAX_PORTS_PER_CLIENT + 20)]
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(each, ForwardRow) for each in done) == MAX_PORTS_PER_CLIENT
        assert {each.reason for each in done if isinstance(each, RefusedError)} == {"too_many"}
        assert len(set(server.stored)) == MAX_PORTS_PER_CLIENT
        await server.forwards.add(C2)

    run(tmp_path, work)


def test_a_free_one_is_any_that_nobody_has(tmp_path: Path) -> None:
    async def work(server: Server) -> None:
        found = {(await server.forwards.add(C1)).port for _number in range(4)}
        assert found == {40000, 40001, 40003, 40004}
        with refused("none_free"):
            await server.forwards.add(C2)

    run(tmp_path, work, forward_ports=(40000, 40004), reserved_ports=frozenset([40002]))


def test_a_port_that_ends_is_nobodys_yet(tmp_path: Path) -> None:
    """While flows of the old one are being forgotten, no other client gets it."""

    async def work(server: Server) -> None:
        await server.forwards.add(C1, 40000)
        ending = asyncio.create_task(server.forwards.remove(C1, 40000))
        await asyncio.sleep(0)
        with refused("taken"):
            await server.forwards.add(C2, 40000)
        await ending
        await server.forwards.add(C2, 40000)

    run(tmp_path, work)


def test_a_disk_that_takes_nothing_changes_nothing(tmp_path: Path) -> None:
    async def work(server: Server) -> None:
        await server.forwards.add(C1, 40000)
        server.broken = True
        with refused("disk"):
            await server.forwards.add(C1, 40001)
        with refused("disk"):
            await server.forwards.remove(C1, 40000)
        assert [row.port for row in server.forwards.of(C1.address4)] == [40000]
        both = server.forwards.add(C1, 40002), server.forwards.remove(C1, 40002)
        done = await asyncio.gather(*both, return_exceptions=True)
        assert [each.reason for each in done if isinstance(each, RefusedError)] == ["disk", "no_forward"]
        server.broken = False
        await server.forwards.drop(C1.address4)
        await server.forwards.drop(C1.address4)
        assert server.stored == []

    run(tmp_path, work)


def test_a_kernel_that_takes_nothing_changes_nothing(tmp_path: Path) -> None:
    async def work(server: Server) -> None:
        await server.forwards.add(C1, 40000)
        server.kernel.fail = [TablesError("no")]
        with pytest.raises(TablesError):
            await server.forwards.add(C1, 40001)
        with pytest.raises(TablesError):
            await server.forwards.remove(C1, 40000)
        server.kernel.fail = []
        assert [row.port for row in server.forwards.of(C1.address4)] == server.stored == [40000]
        with refused("taken"):
            await server.forwards.add(C2, 40000)
        await server.forwards.remove(C1, 40000)

    run(tmp_path, work)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1"])
def test_a_port_on_which_a_program_of_the_server_listens_is_taken(tmp_path: Path, address: str, kind: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as sock:
        sock.bind((address, 0))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        port = sock.getsockname()[1]

        async def work(server: Server) -> None:
            with refused("taken"):
                await server.forwards.add(C1, port)
            with refused("none_free"):
                await server.forwards.add(C1)

        run(tmp_path, work, entry4="127.0.0.1", entry6="::1", forward_ports=(port, port), reserved_ports=frozenset())


# --- the rules

WEB = {4: "192.0.2.80", 6: "2001:db8:99::80"}
ENTRY = {4: "198.51.100.1", 6: "2001:db8::1"}


def forward(port: int = 40000) -> None:
    nft(
        f"add element inet warren_path forward4 {{ {port} : {C1.address4} }}\n"
        f"add element inet warren_path forward6 {{ {port} : {C1.address6} }}\n"
        f"add element inet warren_path forward_flow {{ {port} : {forward_mark(port)} }}\n"
    )


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.mark.parametrize("mark", [None, 0x7000_0002, 0x7FFF_FFFE, 0x7FFF_FFFF])
def test_packets_come_in_and_answers_go_back_whatever_the_clients_mark(version: int, mark: int | None) -> None:
    """With a session, without one, with an exit that is away, and while it is held."""
    client = {4: C1.address4, 6: C1.address6}[version]
    with fresh(), router(fleet(), "host-ams") as tuns:
        forward()
        approve(C1.address4, C1.address6, mark)
        tuns["uplink"].send(udp(WEB[version], ENTRY[version], 5555, 40000))
        assert tuns["wg0access"].sources() == [WEB[version]]
        tuns["wg0access"].send(udp(client, WEB[version], 40000, 5555))
        assert tuns["uplink"].sources() == [ENTRY[version]]
        assert flows() == {(WEB[version], 5555): forward_mark(40000)}
        # What the client begins itself still goes its own way.
        tuns["wg0access"].send(udp(client, WEB[version], 40000, 5556))
        assert (tuns["uplink"].sources() == []) is (mark is not None)


def tcp(packet: bytes, flags: int) -> bytes:
    """A TCP segment with the ends of a UDP packet."""
    six = packet[0] >> 4 == 6
    start = 40 if six else 20
    segment = packet[start : start + 4] + struct.pack(">IIBBHHH", 1, 0, 5 << 4, flags, 1000, 0, 0)
    pseudo = packet[8:40] + struct.pack(">II", 20, 6) if six else packet[12:20] + struct.pack(">BBH", 0, 6, 20)
    total = sum(struct.unpack(f">{len(pseudo + segment) // 2}H", pseudo + segment))
    total = (total & 0xFFFF) + (total >> 16)
    segment = segment[:16] + struct.pack(">H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + segment[18:]
    if six:
        return packet[:4] + struct.pack(">HB", 20, 6) + packet[7:40] + segment
    header = packet[:2] + struct.pack(">H", 40) + packet[4:9] + b"\x06\0\0" + packet[12:20]
    total = sum(struct.unpack(">10H", header))
    return header[:10] + struct.pack(">H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + header[12:] + segment


def test_a_connection_of_the_clients_own_is_no_answer(version: int) -> None:
    """Somebody knocks at the forwarded port; what the client then begins towards that very port goes by its exit."""
    client = {4: C1.address4, 6: C1.address6}[version]
    syn, syn_ack = 2, 18
    with fresh(), router(fleet(), "host-ams") as tuns:
        forward()
        approve(C1.address4, C1.address6, 0x7000_0002)
        tuns["uplink"].send(tcp(udp(WEB[version], ENTRY[version], 5555, 40000), syn))
        assert len(tuns["wg0access"].packets()) == 1
        tuns["wg0access"].send(tcp(udp(client, WEB[version], 40000, 5555), syn))
        assert tuns["uplink"].packets() == []
        tuns["wg0access"].send(tcp(udp(client, WEB[version], 40000, 5555), syn_ack))
        assert tuns["uplink"].packets() == [], "her side takes the knock for an answer to her own (simultaneous open)"
        tuns["uplink"].send(tcp(udp(WEB[version], ENTRY[version], 5556, 40000), syn))
        tuns["wg0access"].send(tcp(udp(client, WEB[version], 40000, 5556), syn_ack))
        (answer,) = tuns["uplink"].packets()
        assert source_of(answer) == ENTRY[version]


@pytest.mark.parametrize("flags", [16, 17, 24], ids=["ack", "fin", "push"])
def test_a_spray_of_what_begins_no_connection_reaches_nobody(version: int, flags: int) -> None:
    """And a data packet of the client's own connection to that very port is no answer to it."""
    client = {4: C1.address4, 6: C1.address6}[version]
    with fresh(), router(fleet(), "host-ams") as tuns:
        forward()
        approve(C1.address4, C1.address6, 0x7000_0002)
        for knock in (flags, 2):
            tuns["uplink"].send(tcp(udp(WEB[version], ENTRY[version], 5555, 40000), knock))
            tuns["wg0access"].send(tcp(udp(client, WEB[version], 40000, 5555), 24))
            assert [source_of(packet) for packet in tuns["uplink"].packets()] in ([], [ENTRY[version]]), "no data"
            assert all(packet[-7] & 4 for packet in tuns["uplink"].packets())


def test_who_was_sending_before_gets_there(version: int) -> None:
    """No flow to a port that nobody takes is remembered."""
    with fresh(), router(fleet(), "host-ams") as tuns:
        tuns["uplink"].send(udp(WEB[version], ENTRY[version], 5555, 40000))
        assert flows() == {}
        forward()
        tuns["uplink"].send(udp(WEB[version], ENTRY[version], 5555, 40000))
        assert tuns["wg0access"].sources() == [WEB[version]]


def test_elements_that_were_missing_are_put_back_and_their_flows_stay(version: int, tmp_path: Path) -> None:
    async def go() -> None:
        agent = Agent(config("ams", read), tmp_path)
        await agent.start()
        await agent.entry.forwards.add(agent.config.clients[C1.address4], 40000)
        tuns["uplink"].send(udp(WEB[version], ENTRY[version], 5555, 40000))
        nft("flush map inet warren_path forward4; flush map inet warren_path forward6")
        await agent.restore()
        assert await agent.check() == {**dict.fromkeys(await agent.check(), 0), "forwards": 1}
        assert flows()[WEB[version], 5555] == forward_mark(40000)
        await agent.entry.forwards.remove(agent.config.clients[C1.address4], 40000)
        assert (WEB[version], 5555) not in flows()
        await agent.close()

    read = fleet()
    with fresh(), router(read, "host-ams") as tuns:
        asyncio.run(go())


def test_many_ports_flows_are_forgotten_in_one_go() -> None:
    with fresh(), router(fleet(), "host-ams") as tuns:
        ports = range(40000, 40040)
        for port in ports:
            forward(port)
            tuns["uplink"].send(udp(WEB[4], ENTRY[4], port, port))
        assert len(flows()) == len(ports)
        table = Flows()
        table.forget_forwards(list(ports)[:-1])
        assert set(flows()) == {(WEB[4], ports[-1])}
        table.close()


@pytest.mark.parametrize("port", [39999, 40001, 29000])
def test_other_ports_lead_nowhere(version: int, port: int) -> None:
    with fresh(), router(fleet(), "host-ams") as tuns:
        forward()
        tuns["uplink"].send(udp(WEB[version], ENTRY[version], 5555, port))
        tuns["uplink"].send(udp(WEB[version], {4: "203.0.113.11", 6: "2001:db8:e::11"}[version], 5555, 40000))
        for link in ("wg0mh", "wg0mh-r2", "wg0access"):
            tuns[link].send(udp(WEB[version], ENTRY[version], 5555, 40000))
        assert tuns["wg0access"].sources() == []


def test_the_flows_of_one_port_are_forgotten_and_no_other(version: int) -> None:
    client = {4: C1.address4, 6: C1.address6}[version]
    with fresh(), router(fleet(), "host-ams") as tuns:
        for port in (40000, 40001):
            forward(port)
            tuns["uplink"].send(udp(WEB[version], ENTRY[version], port, port))
        approve(C1.address4, C1.address6)
        tuns["wg0access"].send(udp(client, WEB[version], 7000, 9))
        table = Flows()
        table.forget_forwards([40000])
        table.forget([handle(C1.address4)])
        assert set(flows().values()) == {forward_mark(40001)}
        assert forward_mark(40001) >> 28 == FORWARD_KIND != OWN_KIND
        table.close()


def test_the_page_knows_which_exit_address_the_rules_will_give(version: int) -> None:
    """For thirty clients that have chosen none."""
    told = {4: TOLD.exit4, 6: TOLD.exit6}[version]
    read = fleet(clients=30)
    clients = [client[f"address{version}"] for client in read["clients"]]
    with fresh(), router(read, "host-ams") as tuns:
        for client in read["clients"]:
            approve(client["address4"], client["address6"])
        seed = Tables(clients=True).exit_seed()
        for client in clients:
            tuns["wg0access"].send(udp(client, WEB[version]))
            assert tuns["uplink"].sources() == [default_exit(told, client, seed)]


def test_elements_are_read_back_as_they_were_made() -> None:
    with fresh():
        load_tables(fleet(), "host-ams")
        tables = Tables(clients=True)
        assert tables.read() == {}
        wanted: dict[tuple[str, str], Value] = {("forward4", "40000"): C1.address4, ("forward6", "40000"): C1.address6}
        wanted["forward_flow", "40000"] = forward_mark(40000)
        tables.apply(dict(wanted))
        assert Tables(clients=True).read() == wanted == tables.read()
        tables.apply(dict.fromkeys(wanted))
        assert tables.read() == {}


def test_a_program_of_the_server_keeps_its_port() -> None:
    """IPv6 likewise, in the scenario: these packets have no checksum, and there a socket wants one."""
    with fresh(), router(fleet(), "host-ams") as tuns:
        forward()
        forward(40001)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("", 40000))
            sock.settimeout(2)
            tuns["uplink"].send(udp(WEB[4], ENTRY[4], 5555, 40000))
            assert sock.recv(99) == b"test"
            tuns["uplink"].send(udp(WEB[4], ENTRY[4], 5555, 40001))
        assert tuns["wg0access"].sources() == [WEB[4]]
