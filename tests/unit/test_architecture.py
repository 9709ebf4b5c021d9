"""What must not depend on what, and why. A failure says the reason; change the code, or the reason."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import jinja2
import pytest
import yaml
from jinja2 import nodes

from ansible_collections.warren.vpn.plugins.module_utils import _install
from ansible_collections.warren.vpn.plugins.plugin_utils import _kinds

ROOT = Path(__file__).parents[2]
MODULE_UTILS = {path.stem: path for path in (ROOT / "plugins/module_utils").glob("*.py")}
ENGINE = [module.__name__.rpartition(".")[2] for module in _install.ENGINE]
TEMPLATED = sorted(
    path
    for pattern in ("roles/*/*/**/*.j2", "roles/*/*/**/*.yml", "playbooks/**/*.yml", "site.yml")
    for path in ROOT.glob(pattern)
    if "argument_specs" not in path.name
)
# A module with an action plugin of its name is documentation only: the action runs, on the controller.
ACTIONS = {path.stem for path in (ROOT / "plugins/action").glob("*.py")}
HOST_MODULES = [path for path in (ROOT / "plugins/modules").glob("*.py") if path.stem not in ACTIONS]
PREFIX = "ansible_collections.warren.vpn.plugins."
ARITHMETIC = (nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Pow)
NUMBERED = re.compile(r"server_id|address|prefix|port(?!al)")
ADDRESS_FILTERS = {
    "cidr_merge", "ip4_hex", "ipaddr", "ipcut", "ipmath", "ipsubnet", "ipv4", "ipv6", "ipwrap", "network_in_network",
    "next_nth_usable", "nthhost", "previous_nth_usable", "reduce_on_network", "slaac",
}  # fmt: skip


def imports_of(path: Path) -> tuple[set[str], set[str]]:
    """The modules that a file imports absolutely, and the siblings that it imports relatively."""
    absolute, siblings = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            absolute |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            absolute.add(node.module)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1, f"{path.name} imports from above its own directory"
            siblings |= {node.module} if node.module else {alias.name for alias in node.names}
    return absolute, siblings


@pytest.mark.parametrize("name", sorted(MODULE_UTILS))
def test_module_utils_import_only_the_standard_library_and_siblings(name: str) -> None:
    absolute, siblings = imports_of(MODULE_UTILS[name])
    foreign = {module.split(".")[0] for module in absolute} - sys.stdlib_module_names
    assert not foreign, (
        f"{name} imports {foreign}: module_utils run on hosts where nothing but Python is installed. What needs more, "
        "or anything of plugin_utils, is for the controller, and belongs there."
    )
    assert siblings <= set(MODULE_UTILS), f"{name} imports {siblings - set(MODULE_UTILS)}, which is no sibling"


def ours(path: Path) -> set[str]:
    """What a file imports of this collection, as ``module_utils._x`` or ``plugin_utils._x``."""
    tree = ast.walk(ast.parse(path.read_text()))
    found = [node for node in tree if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PREFIX)]
    names = {(node.module or "").removeprefix(PREFIX): [alias.name for alias in node.names] for node in found}
    return {part if "." in part else f"{part}.{name}" for part, listed in names.items() for name in listed}


def test_module_utils_hold_what_travels_to_hosts_and_nothing_else() -> None:
    travels: set[str] = set()
    ahead = {name.split(".")[1] for path in HOST_MODULES for name in ours(path)}
    while ahead:
        travels |= ahead
        ahead = {sibling for name in ahead for sibling in imports_of(MODULE_UTILS[name])[1]} - travels
    assert set(MODULE_UTILS) == travels, (
        f"no module that runs on hosts imports {', '.join(sorted(set(MODULE_UTILS) - travels))}: Ansible ships what is "
        "in module_utils; what only the controller uses belongs in plugin_utils"
    )


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in HOST_MODULES])
def test_what_runs_on_hosts_imports_nothing_of_the_controllers(path: Path) -> None:
    controllers = {name for name in ours(path) if not name.startswith("module_utils.")}
    assert not controllers, (
        f"{path.stem} imports {controllers}: Ansible ships a module to a host with its module_utils and no more. What "
        "is to run on the controller is an action plugin, with a module of its name that has the documentation."
    )


def test_a_module_that_an_action_stands_for_is_documentation_only() -> None:
    for name in ACTIONS:
        tree = ast.parse((ROOT / f"plugins/modules/{name}.py").read_text())
        assert all(isinstance(node, (ast.Assign, ast.ImportFrom)) for node in tree.body), f"{name}: its code never runs"


def test_addressing_imports_no_sibling() -> None:
    assert imports_of(ROOT / "plugins/plugin_utils/_addressing.py")[1] == set(), (
        "_addressing is what everything else follows from; it depends on nothing of ours, or one number per server "
        "would not decide the rest"
    )


@pytest.mark.parametrize("name", ENGINE)
def test_the_engine_imports_only_what_is_put_on_the_host(name: str) -> None:
    siblings = imports_of(MODULE_UTILS[name])[1]
    assert siblings <= set(ENGINE), (
        f"{name} imports {siblings - set(ENGINE)}: the engine stands alone in /usr/lib/warren and restores the network "
        "at boot. It is told names and addresses, and neither computes nor checks them; list it in _install.ENGINE, or "
        "leave it to the controller."
    )


def computations(text: str) -> list[str]:
    """What a template, or a YAML file with templates in it, computes that _addressing should."""
    tree = jinja2.Environment(autoescape=True, extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"]).parse(text)
    found = [f"the filter {node.name}" for node in tree.find_all(nodes.Filter)]
    found = [name for name in found if name.rsplit(".", 1)[-1].removeprefix("the filter ") in ADDRESS_FILTERS]
    for node in tree.find_all(ARITHMETIC):
        names = [name.name for name in node.find_all(nodes.Name)] + [name.attr for name in node.find_all(nodes.Getattr)]
        found += [f"arithmetic on {name}, line {node.lineno}" for name in names if NUMBERED.search(name)]
    return found + [f"an address of pieces, {piece!r}" for piece in re.findall(r"(?:\b\d+\.|::)\{\{ ?", text)]


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in TEMPLATED])
def test_no_template_or_task_computes_an_address(path: Path) -> None:
    assert not computations(path.read_text()), (
        "every name, port, address, table and mark comes from _addressing.py through a filter: computed in two places, "
        "it differs one day"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{{ '10.0.0.0/8' | ansible.utils.ipmath(3) }}", "the filter ansible.utils.ipmath"),
        ("{{ prefix | ipaddr('net') }}", "the filter ipaddr"),
        ("port {{ warren_link_port_base + server.server_id }}", "arithmetic on server_id, line 1"),
        ("{% set port = base_port | int + 1 %}", "arithmetic on base_port, line 1"),
        ("address: 10.1.{{ server_id }}.0", "an address of pieces, '1.{{ '"),
        ("address: fd00::{{server_id}}", "an address of pieces, '::{{'"),
    ],
)
def test_what_computes_an_address_is_found(text: str, found: str) -> None:
    assert found in computations(text)


@pytest.mark.parametrize("path", sorted((ROOT / "playbooks").glob("*.yml")), ids=lambda path: path.stem)
def test_no_play_names_the_group_of_a_kind(path: Path) -> None:
    groups = {group for kind in _kinds.KINDS for group in (kind.group, *kind.subgroups)}
    for play in yaml.safe_load(path.read_text()):
        assert not any(group in str(play.get("hosts")) for group in groups), (
            f"the play `{play['name']}` would miss hosts of other kinds: take `hosts` from the filter fleet_hosts"
        )


FILTERS = sorted(path.stem for path in (ROOT / "plugins/filter").glob("*.py"))
USERS = [*TEMPLATED, ROOT / "README.md"]


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_is_used(name: str) -> None:
    uses = re.compile(rf"warren\.vpn\.{name}\b")
    assert any(uses.search(path.read_text()) for path in USERS), (
        f"no role, no playbook and no example of the README uses the filter {name}: use it, or remove it"
    )


@pytest.mark.parametrize("path", [path for path in TEMPLATED if path.suffix == ".j2"], ids=lambda path: path.name)
def test_no_template_types_a_mark(path: Path) -> None:
    assert not re.findall(r"\b0x[0-9a-f]{3,}\b", path.read_text()), (
        "marks, masks and device groups come from _addressing.py through a view: typed twice, they differ one day"
    )


AGENT_FILES = sorted(ROOT.glob("roles/*/files/**/*.py"))


def test_what_is_copied_to_hosts_does_not_import_ansible() -> None:
    for path in AGENT_FILES:
        found = {module for module in imports_of(path)[0] if module.startswith("ansible")}
        assert not found, f"{path.name} imports {found}: there is no Ansible on hosts; roles render values"


def test_the_agent_takes_no_host_of_a_request_but_its_header() -> None:
    """aiohttp 3.8, Debian 12's, looks up this server's own name for `host` and `url` where the header is missing."""
    for path in (ROOT / "roles/agent/files/warrend").glob("*.py"):
        names = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "request"
        }
        assert not names & {"host", "url", "rel_url"}, (
            f"{path.name}: use request.headers, request.path or request.query"
        )


PROSE = sorted(path for pattern in ("*.md", "docs/*.md", "lab/*.md", "roles/*/*.md") for path in ROOT.glob(pattern))
# What a tool writes, code, tables, headings, and what has no place to break.
NOT_WRAPPED = re.compile(
    r"^<!-- ANSIBLE DOCSMITH .*? START -->$.*?^<!-- ANSIBLE DOCSMITH .*? END -->$"
    r"|^ *```.*?^ *```$|^[|#<!].*?$|^\S{121,}$",
    re.MULTILINE | re.DOTALL,
)


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in PROSE])
def test_text_wraps_at_120(path: Path) -> None:
    long = [line for line in NOT_WRAPPED.sub("", path.read_text()).splitlines() if len(line) > 120]
    assert not long, "a diff of a paragraph that is one line shows nobody what has changed"
