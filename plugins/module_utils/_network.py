# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection, and installed on every server as part of the engine that restores its network at boot:
# standard library and relative imports only.
"""All of a host's network that the collection looks after, compared with what is live and put in place.

The order is that of safety: kernel settings, nftables tables, routing rules, links; and what is wanted is on disk
before the first of it is live, so that a run that fails half way, or a power cut, is finished by the next run or by
boot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from . import _host, _interfaces, _keys, _link, _nftables, _record, _rules, _sysctl, _wireguard
from ._plan import Plan
from ._record import Network

# What makes links, by their `kind`. Each has the functions that _wireguard names.
KINDS = {_link.WIREGUARD: _wireguard}


def live_links(routes: Mapping[str, Iterable[_link.Route]]) -> dict[str, _link.Link]:
    """The links of this host that are ours, as they are now, by name; see ``_interfaces.routes_by_interface``."""
    links = _interfaces.live(routes)
    for kind, maker in KINDS.items():
        links.update(maker.complete({name: link for name, link in links.items() if link.kind == kind}))
    return links


def missing_commands(network: Network) -> list[str]:
    """The Debian packages without which what is wanted cannot be put in place."""
    missing = _host.missing_packages(_host.COMMANDS)
    for kind, maker in KINDS.items():
        links = [link for link in network.links.values() if link.kind == kind]
        missing += maker.missing_packages(links, network.userspace)
    return missing


def restore(plan: Plan, ask_names: bool = False) -> bool:
    """Put back what the last run wanted. Whether there was one.

    What that is, is asked once nobody else is at work: the run that was may have been the last.

    Args:
        plan: what was done.
        ask_names: whether DNS names of endpoints are resolved. Before the network is up nobody answers.

    Raises:
        NetworkError: something is in the way; the message has the remedy.
    """
    with _record.alone():
        network = _record.read()
        if network is None:
            return False
        if network.is_of_before_owners:
            raise _host.NetworkError(f"{_record.STATE_FILE} is of an earlier version: run site.yml for this host")
        # What only programs need is no reason to leave the host without its firewall.
        missing = missing_commands(network)
        if missing:
            raise _host.NetworkError(f"not installed: {' '.join(missing)}")
        compare(network, plan, ask_names)
        note(network, plan)
        plan.carry_out()
        return True


def compare(network: Network, plan: Plan, ask_names: bool) -> dict[str, str]:
    """Compare what is wanted with what is live, with nobody else at work: see ``_record.alone``.

    Args:
        network: what is wanted.
        plan: where differences are noted, and the steps from one to the other.
        ask_names: whether DNS names of endpoints are resolved.

    Returns:
        The addresses, by what a message calls them, of servers that have a session with this one and are to keep it:
        neither their key nor this host's is another one now.

    Raises:
        NetworkError: something is in the way; the message has the remedy.
    """
    last = _record.read() or _record.EMPTY
    routes = _interfaces.routes_by_interface()
    live = _known(live_links(routes), network, last)
    _refuse_foreign(network, live, last)
    links = {name: _with_addresses(link, live.get(name), ask_names) for name, link in network.links.items()}
    for link in network.links.values():
        if link.kind not in KINDS:
            raise _host.NetworkError(f"link {link.name}: kind = {link.kind}: there are {', '.join(sorted(KINDS))}")
    adopted = _keys.check_keys(network.links.values(), adopt=False)
    if adopted:
        plan.add(
            "take the new private key",
            "keys",
            [],
            [f"private key of {purpose}: new" for purpose in adopted],
            lambda: _keys.check_keys(network.links.values(), adopt=True),
        )
    found = _sysctl.found(network.sysctl, last.sysctl, last.found)
    network = _with_found(network, found)
    _sysctl.compare({**_sysctl.listening(found), **network.sysctl}, plan)
    _sysctl.compare_file(network.sysctl, plan)
    _nftables.compare(network.tables, plan)
    _rules.compare(network.rules, plan)
    _interfaces.compare_routes(network.routes, routes, plan)
    _compare_links(network, last, links, live, plan)
    _nftables.compare_surplus(network.tables, plan)
    _sysctl.give_back({**last.sysctl, **(last.leaving.sysctl or {})}, last.found, found, plan)
    _sysctl.compare(_sysctl.of_links(network.links.values()), plan)
    return _alive(live, network)


def _with_found(network: Network, found: Mapping[str, str]) -> Network:
    data = {key: value for key, value in network.data.items() if key != "found"}
    return replace(network, found=found, data={**data, "found": dict(found)} if found else data)


def _refuse_foreign(network: Network, live: Mapping[str, _link.Link], last: Network) -> None:
    # One of ours whose maker died before it could mark it is on record.
    new = set(network.links) - set(live) - set(last.links)
    for name in sorted(new & _interfaces.foreign() if new else ()):
        raise _host.NetworkError(
            f"this host has an interface {name} that the collection did not make. "
            f"Rename it, or remove it: ip link delete {name}"
        )


def _alive(live: Mapping[str, _link.Link], network: Network) -> dict[str, str]:
    return {
        label: address
        for name, link in live.items()
        if name in network.links and network.links[name].public_key == link.public_key
        for key, peer in link.peers.items()
        if peer.alive and key in network.links[name].peers
        for label, address in _labelled(replace(peer, watched=network.links[name].peers[key].watched))
    }


def watched_addresses(network: Network) -> dict[str, str]:
    """The addresses at which watched peers are to answer, by what a message calls them."""
    links = network.links.values()
    return {label: address for link in links for peer in link.peers.values() for label, address in _labelled(peer)}


def _labelled(peer: _link.Peer) -> Iterator[tuple[str, str]]:
    for address in _link.single_addresses(peer.allowed_ips) if peer.watched else ():
        yield f"{peer.name} v{6 if ':' in address else 4}", address


def _known(live: Mapping[str, _link.Link], network: Network, last: Network) -> dict[str, _link.Link]:
    """The live links with the names that their peers have in the inventory, or had in the last run's.

    A peer that comes to us is a client: where it comes from is nobody's business and is forgotten here, before a diff
    could show it.
    """

    def peers_of(links: Mapping[str, _link.Link]) -> dict[tuple[str, str], _link.Peer]:
        return {(link.name, key): peer for link in links.values() for key, peer in link.peers.items()}

    noted, now = peers_of(last.links), peers_of(network.links)

    def known(link: str, peer: _link.Peer) -> _link.Peer:
        before, wanted = noted.get((link, peer.public_key)), now.get((link, peer.public_key))
        either = wanted or before
        return replace(
            peer,
            name=either.name if either else "",
            endpoint=peer.endpoint if either and either.endpoint else "",
            may_roam=not (before and wanted) or (not last.unfinished and before.endpoint == wanted.endpoint),
        )

    return {
        name: replace(link, peers={key: known(name, peer) for key, peer in link.peers.items()})
        for name, link in live.items()
    }


def _with_addresses(link: _link.Link, live: _link.Link | None, ask_names: bool) -> _link.Link:
    """A wanted link whose peers have addresses for the DNS names of their endpoints.

    Where a name has several, or nobody says what it stands for, a peer stays where it is.
    """
    peers = {}
    for key, peer in link.peers.items():
        if _link.has_name(peer.endpoint):
            here = live.peers[key].endpoint if live and key in live.peers else ""
            known = _link.addresses_of(peer.endpoint) if ask_names else []
            peers[key] = replace(peer, endpoint=here if here in known or not known else known[0])
    return replace(link, peers={**link.peers, **peers}) if peers else link


def note(network: Network, plan: Plan) -> None:
    """Put what is wanted on record, once all else is done; what it says of kernel settings is found out again."""
    if not network.parts:
        return
    last = _record.read() or _record.EMPTY
    text = _record.text_of(_with_found(network, _sysctl.found(network.sysctl, last.sysctl, last.found)).data)
    if not _host.in_place(_record.STATE_FILE, text):
        plan.then(lambda: _host.write(_record.STATE_FILE, text))


def _compare_links(
    network: Network, last: Network, links: Mapping[str, _link.Link], live: Mapping[str, _link.Link], plan: Plan
) -> None:
    text = _record.text_of(network.data) if network.parts else None
    old = _host.read(_record.STATE_FILE)
    if text is not None and not _host.in_place(_record.STATE_FILE, text):
        unfinished = _record.text_of(_record.while_under_way(network, last))
        plan.add(f"write {_record.STATE_FILE}", step=lambda: _host.write(_record.STATE_FILE, unfinished))
    if text and _record.version_in(old) not in ("", network.version):
        before = _record.version_in(old)
        plan.add("note the version", "version", [f"version {before}"], [f"version {network.version}"])
    for name in sorted(set(live) - set(links)):
        link = live[name]
        plan.add(f"remove link {name}", f"link {name}", _link.describe(link), [], _remover(link))
    pairs, lines = _differing_links(links, live, plan)
    if pairs:
        plan.then(lambda: _make(network, pairs, set(live), lines))


def _remover(link: _link.Link) -> Any:
    return lambda: KINDS.get(link.kind, _wireguard).remove(link.name)


def _make(network: Network, pairs: list[tuple[_link.Link, _link.Link]], there: set[str], lines: list[str]) -> None:
    for kind, maker in KINDS.items():
        own = [(wanted, here) for wanted, here in pairs if wanted.kind == kind]
        new = [wanted for wanted, _here in own if wanted.name not in there]
        maker.create(new, network.userspace)
        maker.configure(own)
    _interfaces.apply(lines)


def _differing_links(
    links: Mapping[str, _link.Link], live: Mapping[str, _link.Link], plan: Plan
) -> tuple[list[tuple[_link.Link, _link.Link]], list[str]]:
    """The links that differ, each as wanted and as it is, and the lines for ``ip`` that are due once they are there."""
    pairs, lines = [], []
    for name, wanted in links.items():
        here = live.get(name) or _link.Link(name, wanted.purpose, "", 0, 0, (), frozenset(), up=False)
        before, after = _link.describe(here) if name in live else [], _link.describe(wanted, here)
        own_lines = _interfaces.steps(wanted, here)
        if before != after or own_lines:
            plan.add(f"{'change' if name in live else 'make'} link {name}", f"link {name}", before, after)
            pairs.append((wanted, here))
            lines += own_lines
    return pairs, lines
