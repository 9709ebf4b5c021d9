# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection, and installed on every server as part of the engine that restores its network at boot:
# standard library and relative imports only.
"""WireGuard, the kernel's and that of userspace: one kind of link.

``wg`` speaks to the kernel and to userspace WireGuard alike (wg(8)), and reads all links in one process. To change them
it takes one or two for each link, so the kernel is spoken to directly. Userspace WireGuard is a process a link anyway.

What the engine asks of every kind of link: :func:`complete`, :func:`create`, :func:`configure`, :func:`remove` and
:func:`missing_packages`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from . import _host, _interfaces, _keys, _netlink
from ._link import Link, Peer, network

# --- the live side -------------------------------------------------------------------------------------------------


def complete(links: Mapping[str, Link]) -> dict[str, Link]:
    """Live links with what WireGuard knows of them: keys, ports and peers.

    From what ``wg show all dump`` prints (wg(8)): one line of 5 fields an interface, one of 9 a peer.
    """
    found = dict(links)
    peers: dict[str, dict[str, Peer]] = {name: {} for name in links}
    for line in _host.run(["wg", "show", "all", "dump"]).splitlines() if links else ():
        name, *fields = [("" if text in ("(none)", "off") else text) for text in line.split("\t")]
        if name not in found:
            continue
        if len(fields) == 4:
            _private_key, public_key, port, mark = fields
            found[name] = replace(
                found[name], public_key=public_key, listen_port=int(port), fwmark=int(mark or "0", 16)
            )
        else:
            peers[name][fields[0]] = _peer(fields)
    return {name: replace(link, peers=peers[name]) for name, link in found.items()}


def _peer(fields: Sequence[str]) -> Peer:
    public_key, preshared_key, endpoint, allowed_ips, handshake, _received, _sent, keepalive = fields
    return Peer(
        name="",
        public_key=public_key,
        preshared_key=preshared_key,
        endpoint=endpoint,
        allowed_ips=tuple(sorted(network(text) for text in allowed_ips.split(",") if text)),
        keepalive=int(keepalive or 0),
        handshake=int(handshake),
    )


# --- making and changing -------------------------------------------------------------------------------------------


def runs_in_userspace(links: Sequence[Link], chosen: bool | None) -> bool:
    """Whether links that have to be made are made in userspace.

    Args:
        links: all that are wanted.
        chosen: what the inventory says; None for the kernel's where it has WireGuard.
    """
    if chosen is not None:
        return chosen
    return bool(links) and not kernel_has_wireguard()


def missing_packages(links: Sequence[Link], chosen: bool | None) -> list[str]:
    """The Debian packages without which these links cannot be made; see :func:`runs_in_userspace`."""
    needed = {"wg": "wireguard-tools"} if links else {}
    if links and runs_in_userspace(links, chosen):
        needed["wireguard-go"] = "wireguard-go"
    return _host.missing_packages(needed)


def kernel_has_wireguard() -> bool:
    """Whether this host's kernel makes WireGuard interfaces, found out by making one in an empty network namespace."""
    if Path("/sys/module/wireguard").is_dir():
        return True
    if _host.missing_packages({"ip": "iproute2"}):
        # To be installed first. Until then the module on disk has to do as a sign.
        modules = Path("/lib/modules", os.uname().release)
        listed = [_host.read(modules / name) or "" for name in ("modules.dep", "modules.builtin")]
        return any("/wireguard.ko" in text for text in listed)
    return not _host.attempt(["unshare", "--net", "ip", "link", "add", "probe", "type", "wireguard"]).returncode


def create(links: Sequence[Link], chosen: bool | None) -> None:
    """Make links' interfaces, without address or peer; see :func:`runs_in_userspace`."""
    userspace = runs_in_userspace(links, chosen)
    lines = []
    for link in links:
        if userspace:
            _start(link.name)
        else:
            lines.append(f"link add dev {link.name} type wireguard")
        lines.append(f'link set dev {link.name} alias "{_interfaces.alias(link)}"')
    _interfaces.batch({"-4": lines})


def _start(name: str) -> None:
    _host.run(["systemctl", "start", unit(name)])
    if not _answers(name):
        # Seen on a busy machine: it hangs, and the next one does not.
        _host.run(["systemctl", "restart", unit(name)])
        if not _answers(name):
            raise _host.NetworkError(f"{unit(name)} did not bring up {name}: see journalctl --unit {unit(name)}")


def unit(name: str) -> str:
    """The systemd unit that runs a link's userspace WireGuard."""
    return f"warren-wireguard-go@{name}.service"


def _answers(name: str, seconds: float = 10) -> bool:
    """Wait until userspace WireGuard answers for an interface; whether it does."""
    deadline = time.monotonic() + seconds
    while _host.attempt(["wg", "show", name, "listen-port"]).returncode:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def remove(name: str) -> None:
    """Remove a link and all it has."""
    if not _host.attempt(["systemctl", "is-active", "--quiet", unit(name)]).returncode:
        _host.run(["systemctl", "stop", unit(name)])
    _host.attempt(["ip", "link", "delete", "dev", name])


def configure(pairs: Sequence[tuple[Link, Link]]) -> None:
    """Change what differs in links' keys, ports and peers; every other peer keeps its session.

    Args:
        pairs: of each link, what is wanted and what is live.
    """
    # Userspace WireGuard makes a TUN device, which has this file.
    in_userspace = {wanted.name for wanted, _here in pairs if Path("/sys/class/net", wanted.name, "tun_flags").exists()}
    in_kernel = [(wanted, here) for wanted, here in pairs if wanted.name not in in_userspace]
    if in_kernel:
        with contextlib.closing(_netlink.WireGuard()) as kernel:
            for wanted, here in in_kernel:
                _configure(kernel, wanted, here)
    for wanted, here in pairs:
        if wanted.name in in_userspace:
            _configure_userspace(wanted, here)


def _own_side_differs(wanted: Link, here: Link) -> bool:
    ports = (0, here.listen_port)
    return (here.public_key, here.fwmark) != (wanted.public_key, wanted.fwmark) or wanted.listen_port not in ports


def _peers_gone(wanted: Link, here: Link) -> list[str]:
    return [key for key in here.peers if key not in wanted.peers]


def _peers_due(wanted: Link, here: Link) -> list[Peer]:
    return [peer for key, peer in wanted.peers.items() if key not in here.peers or not here.peers[key].like(peer)]


def _configure(kernel: _netlink.WireGuard, wanted: Link, here: Link) -> None:
    peers = [_netlink.no_peer(key) for key in _peers_gone(wanted, here)]
    for peer in _peers_due(wanted, here):
        settings = (peer.preshared_key, peer.endpoint, peer.allowed_ips, peer.keepalive)
        peers.append(_netlink.peer(peer.public_key, *settings))
    if _own_side_differs(wanted, here):
        private_key = _host.read(_keys.key_path(wanted.purpose)) or ""
        port = wanted.listen_port or here.listen_port
        kernel.set_device(wanted.name, private_key, port, peers, wanted.fwmark)
    elif peers:
        kernel.set_device(wanted.name, peers=peers)


def _configure_userspace(wanted: Link, here: Link) -> None:
    if _own_side_differs(wanted, here):
        own = {"private-key": str(_keys.key_path(wanted.purpose)), "fwmark": str(wanted.fwmark)}
        if wanted.listen_port:
            own["listen-port"] = str(wanted.listen_port)
        _host.run(["wg", "set", wanted.name, *(word for pair in own.items() for word in pair)])
    gone = _peers_gone(wanted, here)
    for some in (gone[start : start + 100] for start in range(0, len(gone), 100)):
        _host.run(["wg", "set", wanted.name, *(word for key in some for word in ("peer", key, "remove"))])
    due = _peers_due(wanted, here)
    if due:
        _host.run(["wg", "addconf", wanted.name, "/dev/stdin"], "".join(_stanza(peer) for peer in due))


def _stanza(peer: Peer) -> str:
    """A peer in wg(8)'s configuration format. Zeros take a pre-shared key away, which leaving it out would not."""
    lines = [
        "[Peer]",
        f"PublicKey = {peer.public_key}",
        f"PresharedKey = {peer.preshared_key or 'A' * 43 + '='}",
        f"AllowedIPs = {', '.join(peer.allowed_ips)}",
        f"PersistentKeepalive = {peer.keepalive or 'off'}",
    ]
    if peer.endpoint:
        lines.append(f"Endpoint = {peer.endpoint}")
    return "\n".join(lines) + "\n"
