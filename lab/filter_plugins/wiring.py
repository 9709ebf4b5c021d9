"""Filters of the lab's own playbook."""

from __future__ import annotations

import ipaddress
from typing import Any

from ansible.errors import AnsibleFilterError


def link_words(link: dict[str, Any], prefixes: list[Any]) -> list[str]:
    """Describe one cable: addresses with the length of their prefix, and routes to what else is on the network."""
    missing = {version: [p for p in prefixes if p.version == version] for version in (4, 6)}
    addresses, versions = [], set()
    for text in link["addresses"]:
        address = ipaddress.ip_address(text)
        prefix = next((p for p in prefixes if p.version == address.version and address in p), None)
        if prefix is None:
            raise AnsibleFilterError(
                f"{text} is in no prefix of the lab's network {link['network']!r}: "
                "correct the address, or lab_networks in inventory/lab/group_vars/lab_machines.yml"
            )
        length = address.max_prefixlen if link.get("default_only") else prefix.prefixlen
        addresses.append(f"{address}/{length}")
        versions.add(address.version)
        if prefix in missing[address.version]:
            missing[address.version].remove(prefix)
    if link.get("default_only"):
        missing = {4: ["0.0.0.0/0"], 6: ["::/0"]}
    routes = [f"route {p} {link['device']}" for version in sorted(versions) for p in missing[version]]
    return [f"link {link['device']} {link['network']} {' '.join(addresses)}", *routes]


def lab_wiring(links: list[dict[str, Any]], networks: dict[str, Any], gateways: list[str], lab: str, host: str) -> str:
    """Return what lab/plumb shall do for one host, as an annotation.

    podman 4.3 splits annotations on commas: there is none in it.
    """
    words = [f"lab {lab}", f"host {host}"]
    for name in dict.fromkeys(link["network"] for link in links):
        words.append(" ".join(["net", name, *networks[name]["answers"]]))
    for link in links:
        prefixes = [ipaddress.ip_network(p) for p in networks[link["network"]]["prefixes"]]
        words += link_words(link, prefixes)
    words += [f"via {gateway}" for gateway in gateways]
    return "; ".join(words)


def lab_by_name(containers: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what lab/containers lists, by name."""
    return {container["name"]: container for container in containers}


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"lab_wiring": lab_wiring, "lab_by_name": lab_by_name}
