"""The gates. `make test` runs those in nox.options.sessions; every session runs alone too: `.venv/bin/nox -s lint`.

All of them use the virtual environment that nox itself is installed in (requirements/test.txt), with ansible-core
2.19. The newest ansible-core needs a newer Python than Debian 12 has, so `newest` runs in a Debian 13 root directory.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nox
from nox.command import CommandFailed

ROOT = Path(__file__).parent
STATE = ROOT / ".nox"
BIN = Path(sys.executable).parent
COLLECTIONS = STATE / "collections"
CHECKOUT = COLLECTIONS / "ansible_collections/warren/vpn"
DEBIAN_13 = STATE / "debian13"
# What a user of the built collection gets, at its top level.
SHIPPED = {
    "CHANGELOG.md", "CONTRIBUTING.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md",
    "changelogs", "docs", "inventory", "meta", "playbooks", "plugins", "roles", "site.yml",
}  # fmt: skip

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "specs", "unit", "build", "sanity", "newest", "molecule", "kernel"]
os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
os.environ.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))


def use_checkout() -> None:
    """Let Ansible and Python find the checkout as warren.vpn, wherever it was cloned to."""
    if not CHECKOUT.is_symlink():
        CHECKOUT.parent.mkdir(parents=True, exist_ok=True)
        CHECKOUT.symlink_to(ROOT)
    os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(COLLECTIONS)


@contextmanager
def copied_tree() -> Iterator[Path]:
    """Copy what git does not ignore into a collection tree of its own; yield the directory that holds the tree."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="warren-") as directory:
        collection = Path(directory, "ansible_collections/warren/vpn")
        for name in filter(None, listing.split("\0")):
            if (ROOT / name).is_file():
                (collection / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, collection / name)
        yield Path(directory)


def build_tarball(session: nox.Session, tree: Path) -> Path:
    """Build the collection, refuse files that its users do not need, and return the tarball."""
    collection = tree / "ansible_collections/warren/vpn"
    session.run("ansible-galaxy", "collection", "build", "--output-path", str(tree), str(collection))
    (tarball,) = tree.glob("warren-vpn-*.tar.gz")
    with tarfile.open(tarball) as archive:
        top = {name.split("/")[0] for name in archive.getnames()}
    if top - SHIPPED:
        session.error(f"{', '.join(sorted(top - SHIPPED))}: in the tarball; add to build_ignore in galaxy.yml")
    return tarball


@nox.session
def lint(session: nox.Session) -> None:
    """ansible-lint, yamllint, ruff and mypy; `-- --fix` lets ruff mend what it can."""
    use_checkout()
    fix = ["--fix"] if "--fix" in session.posargs else []
    commands = [
        ("ruff", "check", *fix, "."),
        ("ruff", "format", *([] if fix else ["--check"]), "."),
        ("mypy", "-p", "ansible_collections.warren.vpn.plugins.module_utils"),
        ("mypy", "roles/agent/files/warrend"),
        ("yamllint", "--strict", "-c", ".config/yamllint.yml", "."),
        ("antsibull-changelog", "lint"),
        ("ansible-lint", "--nocolor"),
    ]
    failed = []
    for command in commands:
        try:
            # A collection of this name that the user has installed must not come first.
            session.run(*command, env={"ANSIBLE_HOME": str(STATE / "ansible")})
        except CommandFailed:
            failed.append(" ".join(command))
    if failed:
        session.error(f"failed: {'; '.join(failed)}")


@nox.session
def specs(session: nox.Session) -> None:
    """Each role's argument_specs agree with its defaults, and its README with both."""
    docsmith = ("ansible-docsmith", "{}", "--config", ".config/ansible-docsmith.toml", ".")
    session.run(*(word.format("validate") for word in docsmith))
    session.run(*(word.format("generate") for word in docsmith), "--check")


@nox.session
def docs(session: nox.Session) -> None:
    """Write the reference part of each role's README from its argument_specs."""
    session.run("ansible-docsmith", "generate", "--config", ".config/ansible-docsmith.toml", ".")


@nox.session
def pins(session: nox.Session) -> None:
    """Compile requirements/*.in to pinned *.txt, in the order that they constrain each other."""
    for name, python in (("lab", "3.11"), ("test", "3.11"), ("newest", "3.13")):
        files = (f"requirements/{name}.in", "-o", f"requirements/{name}.txt")
        plain = ("--no-header", "--no-annotate", "--no-emit-index-url", "--upgrade")
        session.run("uv", "pip", "compile", "--quiet", *plain, "--python-version", python, *files)


@nox.session
def unit(session: nox.Session) -> None:
    """Run the unit tests; arguments after `--` go to pytest."""
    use_checkout()
    session.run("pytest", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build the collection, install it in an empty directory and run it there by its full name."""
    with copied_tree() as tree:
        tarball = build_tarball(session, tree)
        session.run("tests/tools/installed.sh", str(BIN), str(tarball), str(tree / "empty"), external=True)


@nox.session
def sanity(session: nox.Session) -> None:
    """ansible-test sanity with the ansible-core of this environment; `-- --test NAME` for one test."""
    home = STATE / "sanity"
    pip_settings = home / ".config/pip"
    pip_settings.parent.mkdir(parents=True, exist_ok=True)
    if not pip_settings.is_symlink():
        pip_settings.symlink_to(Path.home() / ".config/pip")
    with copied_tree() as tree:
        command = ("tests/tools/sanity.sh", sys.executable, str(tree / "ansible_collections/warren/vpn"))
        session.run(*command, *session.posargs, env={"HOME": str(home)}, external=True)


def enter_debian_13(session: nox.Session, tree: Path, *command: str) -> None:
    """Run a command in the Debian 13 root directory, where `tree` is mounted on /mnt."""
    script = """
        root=$1 tree=$2
        shift 2
        mount --bind "$tree" "$root/mnt"
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        exec chroot "$root" "$@"
    """
    path = "/opt/ansible/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    private = ("unshare", "--mount", "--propagation", "private", "sh", "-euc", script, "sh", str(DEBIAN_13), str(tree))
    session.log(f"in Debian 13: {' '.join(command)}")
    session.run(*private, *command, env={"HOME": "/root", "LANG": "C.UTF-8", "PATH": path}, external=True, log=False)


def make_debian_13(session: nox.Session, tree: Path) -> None:
    """Make the Debian 13 root directory with the newest ansible-core, once per state of its requirements."""
    requirements = ROOT / "requirements/newest.txt"
    made_for = DEBIAN_13 / "made-for"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if made_for.exists() and made_for.read_text() == digest:
        return
    if os.geteuid() or not shutil.which("mmdebstrap"):
        session.error("the newest ansible-core runs in a Debian 13 root: be root and `apt-get install mmdebstrap`")
    shutil.rmtree(DEBIAN_13, ignore_errors=True)
    STATE.mkdir(exist_ok=True)
    packages = "--include=python3,python3-venv,git,ca-certificates,shellcheck"
    session.run("mmdebstrap", "--quiet", "--variant=minbase", packages, "trixie", str(DEBIAN_13), external=True)
    for source in (Path("/etc/resolv.conf"), Path("/etc/ssl/certs/ca-certificates.crt")):
        shutil.copyfile(source, DEBIAN_13 / source.relative_to("/"))
    enter_debian_13(session, tree, "python3", "-m", "venv", "/opt/ansible")
    wanted = "/mnt/ansible_collections/warren/vpn/requirements/newest.txt"
    enter_debian_13(session, tree, "pip", "install", "--quiet", "--require-virtualenv", "-r", wanted)
    made_for.write_text(digest)


@nox.session
def newest(session: nox.Session) -> None:
    """Run the installed collection, ansible-test sanity and the unit tests with the newest ansible-core."""
    with copied_tree() as tree:
        make_debian_13(session, tree)
        tarball = build_tarball(session, tree)
        collection = "/mnt/ansible_collections/warren/vpn"
        tool = f"{collection}/tests/tools"
        enter_debian_13(session, tree, f"{tool}/installed.sh", "/opt/ansible/bin", f"/mnt/{tarball.name}", "/mnt/empty")
        enter_debian_13(session, tree, f"{tool}/sanity.sh", "/opt/ansible/bin/python", collection, *session.posargs)
        # The agent has nothing of Ansible in it, and its packages are the servers'.
        enter_debian_13(session, tree, "sh", "-c", f"cd {collection} && pytest --ignore=tests/unit/agent")


@nox.session
def molecule(session: nox.Session) -> None:
    """Run every molecule scenario but `kernel`, which has a session of its own, or those named after `--`."""
    use_checkout()
    here = {path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")} - {"kernel"}
    scenarios = session.posargs or sorted(here)
    if not scenarios:
        session.error("molecule/ holds no scenario")
    failed, seconds = [], {}
    for scenario in scenarios:
        started = time.monotonic()
        try:
            session.run("molecule", "test", "--no-command-borders", "-s", scenario)
        except CommandFailed:
            failed.append(scenario)
        seconds[scenario] = round(time.monotonic() - started)
    session.log(f"seconds: {', '.join(f'{name} {number}' for name, number in seconds.items())}")
    if failed:
        session.error(f"failed: {', '.join(failed)}")


@contextmanager
def machine(session: nox.Session, linux: str, image: str) -> Iterator[Callable[[str], object]]:
    """Start an emulated machine with this checkout in it; yield what runs a command there, in the checkout."""
    program, name = str(ROOT / "lab/machine"), f"linux-{linux}-{image}"
    try:
        session.run(program, "start", name, env={"MACHINE_KERNEL": linux, "MACHINE_IMAGE": image}, external=True)
        session.run(program, "put", name, external=True)
        yield lambda command: session.run(program, "ssh", name, f"cd /srv/warren && {command}", external=True)
    finally:
        session.run(program, "stop", name, external=True)


@nox.session
def kernel(session: nox.Session) -> None:
    """Run the scenario `kernel` on Debian's own kernel, in an emulated machine.

    Its quick half on Linux 6.12; with `-- all` the whole of it there, on Debian 12's 6.1, and with hosts of Debian 13.
    `-- KERNEL IMAGE [OPTION...]` runs one combination, with options for pytest.
    """
    runs, options = [("6.12", "bookworm")], ["-m", "kernel"]
    if session.posargs == ["all"]:
        runs, options = [*runs, ("6.1", "bookworm"), ("6.12", "trixie")], []
    elif session.posargs:
        linux, image, *options = session.posargs
        runs = [(linux, image)]
    failed = []
    for linux, image in runs:
        settings = f"LAB_IMAGE={image} TEST_SLOWNESS=5 PYTEST_ADDOPTS={shlex.quote(shlex.join(options))}"
        session.log(f"Linux {linux}, hosts of {image}")
        try:
            with machine(session, linux, image) as run:
                run(f"{settings} .venv/bin/nox -s molecule -- kernel")
        except CommandFailed:
            failed.append(f"Linux {linux} with {image}")
    if failed:
        session.error(f"failed: {', '.join(failed)}")


@nox.session
def bench_links(session: nox.Session) -> None:
    """Run tests/bench/links on Debian's own kernel, in an emulated machine."""
    with machine(session, "6.12", "bookworm") as run:
        run(f".venv/bin/python tests/bench/links/bench.py {shlex.join(session.posargs)}")
