# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection, and installed on every server as part of the engine that restores its network at boot:
# standard library and relative imports only.
"""Kernel settings: what is live, what is wanted, and what was there before us."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from . import _host, _link
from ._plan import Plan

FILE = Path("/etc/sysctl.d/60-warren.conf")
PROC_SYS = Path("/proc/sys")
FORWARDING6 = "net.ipv6.conf.all.forwarding"


def path(key: str) -> Path:
    """Where the kernel shows a setting. ``/`` separates too, for interface names with a dot (sysctl.d(5))."""
    return PROC_SYS / (key if "/" in key else key.replace(".", "/"))


def live(keys: Iterable[str]) -> dict[str, str]:
    """What the kernel has for these settings now; a setting it does not know is left out."""
    texts = {key: _host.read(path(key)) for key in keys}
    return {key: " ".join(text.split()) for key, text in texts.items() if text is not None}


def file_text(settings: Mapping[str, str]) -> str:
    """The text of the sysctl.d file that has the kernel take these settings at boot."""
    return "# Written by warren.vpn.\n" + "".join(f"{key} = {value}\n" for key, value in sorted(settings.items()))


def found(wanted: Mapping[str, str], last: Mapping[str, str], before: Mapping[str, str]) -> dict[str, str]:
    """Settings as they were before the first run that wanted them, or that changed them on the way.

    Args:
        wanted: what is wanted now.
        last: what is on record as wanted. A setting of it that is not in ``before`` was changed by a version that
            noted nothing, and stays unknown.
        before: what is on record as found.
    """
    noted = {key: value for key, value in before.items() if key in wanted or _is_listening(key)}
    noted.update(live(key for key in wanted if key not in last and key not in before))
    if FORWARDING6 in wanted and FORWARDING6 not in last:
        noted.update(dict.fromkeys(_advertised_to(), "1"))
    elif FORWARDING6 not in wanted:
        noted = {key: value for key, value in noted.items() if key in wanted}
    return noted


def listening(found: Iterable[str]) -> dict[str, str]:
    """What keeps a host's IPv6 default route where router advertisements bring it.

    A host that forwards stops listening to them (Documentation/networking/ip-sysctl: accept_ra), and loses the route in
    time. The interfaces that listened before go on, after a boot too.

    Args:
        found: the settings that were found before, which have those of these interfaces.
    """
    return {key: "2" for key in found if _is_listening(key) and path(key).exists()}


def _is_listening(key: str) -> bool:
    return path(key).name == "accept_ra"


def compare(wanted: Mapping[str, str], plan: Plan) -> None:
    """What is wanted of the running kernel and differs."""
    here = live(wanted)
    differing = {key: value for key, value in wanted.items() if here.get(key) != value}
    if differing:
        plan.add(
            "set kernel settings",
            "kernel settings",
            [f"{key} = {here.get(key, 'unknown')}" for key in differing],
            [f"{key} = {value}" for key, value in differing.items()],
            lambda: _write(differing),
        )


def give_back(last: Mapping[str, str], before: Mapping[str, str], kept: Mapping[str, str], plan: Plan) -> None:
    """Give settings that nobody wants any more the values that were found, unless somebody has changed them since.

    Args:
        last: what is on record as wanted.
        before: what is on record as found.
        kept: what stays on record as found.
    """
    gone = {key: value for key, value in before.items() if key not in kept}
    ours = {key: last.get(key, "2") for key in gone}  # the rest is accept_ra, see listening
    here = live(gone)
    due = {key: value for key, value in gone.items() if here.get(key) == ours[key] != value}
    if due:
        plan.add(
            "set kernel settings back",
            "kernel settings",
            [f"{key} = {here[key]}" for key in due],
            [f"{key} = {value}" for key, value in due.items()],
            lambda: _write(due),
        )


def compare_file(wanted: Mapping[str, str], plan: Plan) -> None:
    """The file from which boot has the settings."""
    text = file_text(wanted)
    if not wanted:
        if FILE.exists():
            before = (_host.read(FILE) or "").splitlines()
            plan.add(f"remove {FILE}", str(FILE), before, [], FILE.unlink)
    elif not _host.in_place(FILE, text, 0o644):
        before = (_host.read(FILE) or "").splitlines()
        plan.add(f"write {FILE}", str(FILE), before, text.splitlines(), lambda: _host.write(FILE, text, 0o644))


def of_links(links: Iterable[_link.Link]) -> dict[str, str]:
    """The kernel settings of interfaces, which can be made once they are there."""
    settings = {}
    for link in links:
        for key, value in link.settings.items():
            family, _slash, name = key.partition("/")
            settings[f"net/{family}/conf/{link.name}/{name}"] = value
    return settings


def _write(settings: Mapping[str, str]) -> None:
    for key, value in settings.items():
        try:
            path(key).write_text(value, encoding="ascii")
        except OSError as error:
            raise _host.NetworkError(
                f"the kernel does not take {key} = {value}: {error.strerror}. "
                "In a container, /proc/sys must be writable (podman: --security-opt unmask=ALL)."
            ) from error


def _advertised_to() -> Iterator[str]:
    for setting in sorted((PROC_SYS / "net/ipv6/conf").glob("*/accept_ra")):
        interface = setting.parent.name
        if interface not in ("all", "default") and _host.read(setting) == "1\n":
            yield f"net/ipv6/conf/{interface}/accept_ra"
