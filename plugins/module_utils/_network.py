# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection, and installed on every server as part of the engine that restores its network at boot:
# standard library and relative imports only.
"""All of a server's network that the collection looks after, compared with what is live and put in place.

The order is that of safety: kernel settings, nftables tables, links; and what is wanted is on disk before the first of
it is live, so that a run that fails half way, or a power cut, is finished by the next run or by boot.
"""

from __future__ import annotations

import fcntl
import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import _host, _nftables, _rules, _wireguard

STATE_FILE = _host.STATE_DIR / "network.json"
# Stands in the state file while a run puts what it notes there in place, and after one that died over it.
UNFINISHED = "unfinished"
LOCK_FILE = Path("/run/warren-network.lock")


@dataclass(frozen=True)
class Network:
    """What is wanted on a server.

    Attributes:
        version: the version of the collection that wants it.
        sysctl: kernel settings.
        tables: nftables tables; one on record that is not here is removed.
        packages: Debian packages, besides those that the engine needs itself.
        links: WireGuard links; one of ours that is not here is removed.
        userspace: True for userspace WireGuard, False for the kernel's, None for the kernel's where it has one.
        data: all this as plain data.
        unfinished: of what is on record, whether the run that noted it did not get to its end.
    """

    version: str
    sysctl: Mapping[str, str]
    tables: Sequence[_nftables.Table]
    links: Mapping[str, _wireguard.Link]
    userspace: bool | None = None
    packages: Sequence[str] = ()
    data: Mapping[str, object] = field(default_factory=dict)
    unfinished: bool = False


@dataclass
class Report:
    """What a comparison found, or a run did.

    Attributes:
        before, after: the parts that differ, as lines of text, without secrets.
        actions: what was or would be done, one short line each.
        alive: addresses, by what a message calls them, of servers that have a session with this one and are to keep
            it: neither their key nor this host's is another one now.
    """

    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    alive: dict[str, str] = field(default_factory=dict)

    def differs(self, action: str, before: Sequence[str], after: Sequence[str]) -> None:
        """Note one difference."""
        self.actions.append(action)
        self.before += before
        self.after += after


def wanted_from(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What is wanted, as plain data, from the parameters of the module ``network``.

    Raises:
        NetworkError: a link is not JSON.
    """
    parts = parameters["parts"]
    return {
        "version": parameters["version"],
        "sysctl": {key: str(value) for part in parts for key, value in (part.get("sysctl") or {}).items()},
        "tables": [table for part in parts for table in part.get("tables") or []],
        "links": [_loaded(link) for part in parts for link in part.get("links") or []],
        "packages": [package for part in parts for package in part.get("packages") or []],
        "userspace": {"auto": None, "kernel": False, "userspace": True}[str(parameters["wireguard"])],
    }


def _loaded(link: str) -> Any:
    try:
        return json.loads(link)
    except ValueError as error:
        raise _host.NetworkError(f"a link is not JSON: {error}") from error


def network_from(data: Mapping[str, object]) -> Network:
    """What is wanted, from plain data: see :func:`wanted_from`, or ``network.json``.

    Raises:
        NetworkError: a link is not as it should be.
    """
    sysctl = data.get("sysctl") or {}
    tables = data.get("tables") or []
    links = data.get("links") or []
    packages = data.get("packages") or []
    if not isinstance(sysctl, dict) or not all(isinstance(listed, list) for listed in (tables, links, packages)):
        raise _host.NetworkError("sysctl is a map; tables, links and packages are lists")
    userspace = data.get("userspace")
    return Network(
        version=str(data["version"]),
        sysctl={str(key): str(value) for key, value in sysctl.items()},
        tables=[_nftables.table_from(table) for table in _wireguard.dicts(tables)],
        links={str(link["name"]): _wireguard.link_from(link) for link in _wireguard.dicts(links)},
        userspace=None if userspace is None else bool(userspace),
        packages=[str(package) for package in _wireguard.strings(packages)],
        data={key: value for key, value in data.items() if key != UNFINISHED},
        unfinished=bool(data.get(UNFINISHED)),
    )


def recorded() -> Network | None:
    """What the last run wanted, as it stands in ``network.json``; None before the first run."""
    text = _host.read(STATE_FILE)
    return _parsed(text) if text else None


@functools.lru_cache(maxsize=2)  # asked for again and again, and the work grows with the fleet
def _parsed(text: str) -> Network:
    return network_from(json.loads(text))


def recorded_links() -> Mapping[str, _wireguard.Link]:
    """The links that the last run wanted, by name."""
    last = recorded()
    return last.links if last else {}


def state_text(data: Mapping[str, object]) -> str:
    """The text of ``network.json``, a line for each peer, so that a diff of two shows which peers differ."""
    encode = json.JSONEncoder(sort_keys=True).encode

    def link_text(link: Mapping[str, object]) -> str:
        own = encode({key: value for key, value in link.items() if key != "peers"})
        peers = ",\n".join(f"   {encode(peer)}" for peer in _wireguard.dicts(link.get("peers", [])))
        return f'  {own[:-1]}, "peers": [\n{peers}\n  ]}}'

    links = ",\n".join(link_text(link) for link in _wireguard.dicts(data["links"]))
    rest = "".join(f' "{key}": {encode(data[key])},\n' for key in sorted(data) if key != "links")
    return f'{{\n{rest} "links": [\n{links}\n ]\n}}\n'


@contextmanager
def _alone() -> Iterator[None]:
    with LOCK_FILE.open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def missing_commands(network: Network) -> list[str]:
    """The Debian packages without which :func:`converge` cannot do what is wanted."""
    missing = _host.missing_packages(_host.COMMANDS)
    if _userspace(network):
        missing += _host.missing_packages({"wireguard-go": "wireguard-go"})
    return missing


def converge(network: Network, apply: bool, report: Report) -> None:
    """Compare what is wanted with what is live, and put it in place.

    Args:
        network: what is wanted.
        apply: False only compares, and changes nothing.
        report: where differences are noted; they are the same in both cases.

    Raises:
        NetworkError: something is in the way; the message has the remedy.
    """
    with _alone():
        _converge(network, apply, report)


def restore(report: Report) -> bool:
    """Put back what the last run wanted. Whether there was one.

    What that is, is asked once nobody else is at work: the run that was may have been the last.

    Raises:
        NetworkError: something is in the way; the message has the remedy.
    """
    with _alone():
        network = recorded()
        if network is None:
            return False
        # What only programs need is no reason to leave the host without its firewall.
        missing = missing_commands(network)
        if missing:
            raise _host.NetworkError(f"not installed: {' '.join(missing)}")
        _converge(network, True, report)
        return True


def _converge(network: Network, apply: bool, report: Report) -> None:
    live = _known(_wireguard.live_links(), network)
    _refuse_foreign(network, live)
    report.alive = _alive(live, network)
    adopted = _wireguard.check_keys(network.links.values(), apply)
    _sysctl(network.sysctl, report, apply)
    _sysctl_file(network, report, apply)
    _tables(network, report, apply)
    _routing_rules(network, report, apply)
    _links(network, live, report, apply)
    _surplus_tables(network, report, apply)
    _sysctl(of_links(network.links.values()), report, apply)
    if adopted:
        report.differs("take the new private key", [], [f"private key of {purpose}: new" for purpose in adopted])


def _userspace(network: Network) -> bool:
    if network.userspace is not None:
        return network.userspace
    return bool(network.links) and not _wireguard.kernel_has_wireguard()


def _refuse_foreign(network: Network, live: Mapping[str, _wireguard.Link]) -> None:
    # One of ours whose maker died before it could mark it stands in network.json.
    new = set(network.links) - set(live) - set(recorded_links())
    for name in sorted(new & _wireguard.foreign_interfaces() if new else ()):
        raise _host.NetworkError(
            f"this host has an interface {name} that the collection did not make. "
            f"Rename it, or remove it: ip link delete {name}"
        )


def _alive(live: Mapping[str, _wireguard.Link], network: Network) -> dict[str, str]:
    return {
        label: address
        for name, link in live.items()
        if name in network.links and network.links[name].public_key == link.public_key
        for key, peer in link.peers.items()
        if peer.alive and key in network.links[name].peers
        for label, address in _labelled(peer)
    }


def server_addresses(network: Network) -> dict[str, str]:
    """The addresses that servers are to have on this server's links, by what a message calls them."""
    links = network.links.values()
    return {label: address for link in links for peer in link.peers.values() for label, address in _labelled(peer)}


def _labelled(peer: _wireguard.Peer) -> Iterator[tuple[str, str]]:
    # A peer without an endpoint is a client, and may be away.
    for address in _wireguard.single_addresses(peer.allowed_ips) if peer.endpoint else ():
        yield f"{peer.name} v{6 if ':' in address else 4}", address


def _known(live: Mapping[str, _wireguard.Link], network: Network) -> dict[str, _wireguard.Link]:
    """The live links with the names that their peers have in the inventory, or had in the last run's.

    A peer that comes to us is a client: where it comes from is nobody's business and is forgotten here, before a diff
    could show it.
    """

    def peers_of(links: Mapping[str, _wireguard.Link]) -> dict[tuple[str, str], _wireguard.Peer]:
        return {(link.name, key): peer for link in links.values() for key, peer in link.peers.items()}

    noted = recorded()
    last, now = peers_of(recorded_links()), peers_of(network.links)
    finished = not (noted and noted.unfinished)

    def known(link: str, peer: _wireguard.Peer) -> _wireguard.Peer:
        before, wanted = last.get((link, peer.public_key)), now.get((link, peer.public_key))
        either = wanted or before
        return replace(
            peer,
            name=either.name if either else "",
            endpoint=peer.endpoint if either and either.endpoint else "",
            may_roam=not (before and wanted) or (finished and before.endpoint == wanted.endpoint),
        )

    return {
        name: replace(link, peers={key: known(name, peer) for key, peer in link.peers.items()})
        for name, link in live.items()
    }


def of_links(links: Iterable[_wireguard.Link]) -> dict[str, str]:
    """The kernel settings of links that forward, which can be made once the links are there.

    WireGuard has checked where a packet comes from (AllowedIPs), so a gated link needs no check of the source: it costs
    each packet a lookup in the routing table, which `accept_local` leaves out too. A host that has a strict one on all
    interfaces finds the way back. What comes back through a link with a mark is from everywhere, and the main table
    knows other ways there: only the loose check lets it pass. Of two values the kernel takes the higher (ip-sysctl).
    """
    settings = {}
    for link in links:
        if link.mark:
            settings[f"net/ipv4/conf/{link.name}/rp_filter"] = "2"
        elif link.gated:
            settings[f"net/ipv4/conf/{link.name}/rp_filter"] = "0"
            settings[f"net/ipv4/conf/{link.name}/accept_local"] = "1"
    return settings


def _sysctl(wanted: Mapping[str, str], report: Report, apply: bool) -> None:
    live = _host.sysctl_live(list(wanted))
    differing = {key: value for key, value in wanted.items() if live.get(key) != value}
    if differing:
        report.differs(
            "set kernel settings",
            [f"sysctl {key} = {live.get(key, 'unknown')}" for key in differing],
            [f"sysctl {key} = {value}" for key, value in differing.items()],
        )
    if apply:
        _host.sysctl_apply(differing)


def _sysctl_file(network: Network, report: Report, apply: bool) -> None:
    text = _host.sysctl_file(network.sysctl)
    if not _host.in_place(_host.SYSCTL_FILE, text, 0o644):
        before = (_host.read(_host.SYSCTL_FILE) or "").splitlines()
        report.differs(f"write {_host.SYSCTL_FILE}", before, text.splitlines())
        if apply:
            _host.write(_host.SYSCTL_FILE, text, 0o644)


def _tables(network: Network, report: Report, apply: bool) -> None:
    listings = _nftables.expected(network.tables, create_secrets=apply)
    live = _nftables.live_tables()
    for table in network.tables:
        wanted = listings[table.name]
        script = table.script(create_secrets=False)
        if not _host.in_place(table.path, script):
            report.actions.append(f"write {table.path}")
            if apply:
                _host.write(table.path, script)
        here = _nftables.comparable(live.get(table.name), wanted)
        if here != wanted:
            report.differs(
                f"load nftables table {table.name}",
                _nftables.redacted(here).splitlines(),
                _nftables.redacted(wanted).splitlines(),
            )
            if apply:
                _nftables.load(table, wanted)


def _surplus_tables(network: Network, report: Report, apply: bool) -> None:
    """Remove tables that are not wanted, once the rules, groups and marks that stand in for them are there."""
    for name in sorted(set(_nftables.recorded()) - {table.name for table in network.tables}):
        report.differs(f"remove nftables table {name}", [f"table inet {name}"], [])
        if apply:
            _nftables.remove(name)
            (_nftables.TABLE_DIR / f"{name}.nft").unlink()


def _routing_rules(network: Network, report: Report, apply: bool) -> None:
    wanted, live = _rules.wanted(network.links.values()), _rules.live()
    there, due = set(live), set(wanted)
    missing, surplus = [rule for rule in wanted if rule not in there], [rule for rule in live if rule not in due]
    if missing or surplus:
        report.differs("set routing rules", [str(rule) for rule in surplus], [str(rule) for rule in missing])
    if apply:
        _wireguard.batch(_rules.steps(missing, surplus))


def _links(network: Network, live: Mapping[str, _wireguard.Link], report: Report, apply: bool) -> None:
    text = state_text(network.data)
    old = _host.read(STATE_FILE)
    noted = _host.in_place(STATE_FILE, text)
    if not noted:
        report.actions.append(f"write {STATE_FILE}")
        if apply:
            _host.write(STATE_FILE, state_text({**network.data, UNFINISHED: True}))
    if recorded_version(old) not in ("", network.version):
        report.differs("note the version", [f"version {recorded_version(old)}"], [f"version {network.version}"])
    for name in sorted(set(live) - set(network.links)):
        report.differs(f"remove link {name}", describe(live[name]), [])
        if apply:
            _wireguard.remove(name)
    pairs, steps = _differing_links(network, live, report)
    if apply and pairs:
        _wireguard.create([wanted for wanted, _here in pairs if wanted.name not in live], _userspace(network))
        _wireguard.configure(pairs)
        _wireguard.apply_steps(steps)
    if apply and not noted:
        _host.write(STATE_FILE, text)


def _differing_links(
    network: Network, live: Mapping[str, _wireguard.Link], report: Report
) -> tuple[list[tuple[_wireguard.Link, _wireguard.Link]], list[str]]:
    """The links that differ, each as wanted and as it is, and the lines for ``ip`` that are due once they are there."""
    pairs, steps = [], []
    userspace = _userspace(network) if set(network.links) - set(live) else False
    for name, wanted in network.links.items():
        new = _wireguard.Link(name, wanted.purpose, "", 0, 0, (), frozenset(), {}, up=False, userspace=userspace)
        here = live.get(name, new)
        before, after = describe(here) if name in live else [], describe(wanted, here)
        own_steps = _wireguard.address_steps(wanted, here)
        if before != after or own_steps:
            report.differs(f"{'change' if name in live else 'make'} link {name}", before, after)
            pairs.append((wanted, here))
            steps += own_steps
    return pairs, steps


def recorded_version(text: str | None) -> str:
    """The version of the collection in the text of ``network.json``; empty where there is none."""
    return str(json.loads(text).get("version", "")) if text else ""


def describe(link: _wireguard.Link, live: _wireguard.Link | None = None) -> list[str]:
    """A link as lines of text to show and to compare, without a secret.

    Args:
        link: a live link, or a wanted one.
        live: with a wanted link, the live one: a peer that needs no change is described as it is.
    """
    lines = [
        f"link {link.name}",
        f"  public key {link.public_key}",
        f"  listening port {link.listen_port}",
        f"  mtu {link.mtu}, group {link.group:#x}, {'up' if link.up else 'down'}",
        *(f"  address {address}" for address in link.addresses),
        *sorted(f"  route {route.destination} in table {route.table}" for route in link.routes),
    ]
    for key in sorted(link.peers, key=lambda key: (link.peers[key].name, key)):
        peer = link.peers[key]
        here = live.peers.get(key) if live else None
        endpoint = here.endpoint if here and here.like(peer) else peer.endpoint
        psk = "set" if peer.preshared_key else "none"
        if here and here.preshared_key != peer.preshared_key and here.preshared_key and peer.preshared_key:
            psk = "set, another one"
        lines += [
            f"  peer {key}{f' ({peer.name})' if peer.name else ''}",
            f"    pre-shared key {psk}",
            f"    endpoint {endpoint or 'any'}",
            f"    allowed {', '.join(peer.allowed_ips)}",
            f"    keepalive {peer.keepalive}",
        ]
    return lines
