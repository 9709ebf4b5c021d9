"""The gates. `make test` has tests/tools/gates.py run those in nox.options.sessions. Each runs alone: `nox -s lint`.

All of them use the virtual environment that nox itself is installed in (requirements/test.txt), with ansible-core
2.19. The newest ansible-core needs a newer Python than Debian 12 has, so `newest` runs in a Debian 13 root directory.
"""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nox
from nox.command import CommandFailed

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))

from tests.tools.kept import DEPLOYED, HOSTS, made_once, state_of  # noqa: E402 - it is found from here

STATE = ROOT / ".nox"
BIN = Path(sys.executable).parent
COLLECTIONS = STATE / "collections"
CHECKOUT = COLLECTIONS / "ansible_collections/warren/vpn"
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
        # Gates start at the same moment: each puts a whole link in place, and it is the same one.
        own = STATE / f"checkout-{os.getpid()}"
        own.symlink_to(ROOT)
        own.replace(CHECKOUT)
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
        ("mypy", "-p", "ansible_collections.warren.vpn.plugins.plugin_utils"),
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
    program = ROOT / "tests/tools/sanity.sh"
    with copied_tree() as tree:
        command = (str(program), sys.executable, str(tree / "ansible_collections/warren/vpn"))
        core = importlib.metadata.version("ansible-core").encode()
        with made_once("sanity", core, sys.version.encode(), program.read_bytes()) as (home, is_new):
            env = {"HOME": str(home)}
            if is_new:
                pip_settings = home / ".config/pip"
                pip_settings.parent.mkdir(parents=True)
                pip_settings.symlink_to(Path.home() / ".config/pip")
                session.run(*command, "--prime-venvs", env=env, external=True)
        session.run(*command, *session.posargs, env=env, external=True)


PACKAGES = "--include=python3,python3-venv,git,ca-certificates,shellcheck"
IN_DEBIAN_13 = """
    root=$1 tree=$2 writable=$3
    shift 3
    if [ "$writable" = no ]; then
        mount -t tmpfs tmpfs "$root/mnt"
        mkdir "$root/mnt/upper" "$root/mnt/work" "$root/mnt/root"
        mount -t overlay overlay -o "lowerdir=$root,upperdir=$root/mnt/upper,workdir=$root/mnt/work" "$root/mnt/root"
        root=$root/mnt/root
    fi
    mount --bind "$tree" "$root/mnt"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    exec chroot "$root" "$@"
"""


def enter_debian_13(session: nox.Session, root: Path, tree: Path, *command: str, writable: bool = False) -> None:
    """Run a command in the Debian 13 root directory, with `tree` on /mnt. What it writes elsewhere is gone then."""
    path = "/opt/ansible/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    words = ("sh", "-euc", IN_DEBIAN_13, "sh", str(root), str(tree), "yes" if writable else "no")
    session.log(f"in Debian 13: {' '.join(command)}")
    env = {"HOME": "/root", "LANG": "C.UTF-8", "PATH": path}
    private = ("unshare", "--mount", "--propagation", "private")
    session.run(*private, *words, *command, env=env, external=True, log=False)


def debian_13(session: nox.Session, tree: Path) -> Path:
    """Make the Debian 13 root directory with the newest ansible-core and its sanity's needs, unless it is there."""
    if os.geteuid() or not shutil.which("mmdebstrap"):
        session.error("the newest ansible-core runs in a Debian 13 root: be root and `apt-get install mmdebstrap`")
    collection = "/mnt/ansible_collections/warren/vpn"
    parts = [(ROOT / name).read_bytes() for name in ("requirements/newest.txt", "tests/tools/sanity.sh")]
    with made_once("debian13", *parts, PACKAGES.encode()) as (root, is_new):
        if is_new:
            session.run("mmdebstrap", "--quiet", "--variant=minbase", PACKAGES, "trixie", str(root), external=True)
            for source in (Path("/etc/resolv.conf"), Path("/etc/ssl/certs/ca-certificates.crt")):
                shutil.copyfile(source, root / source.relative_to("/"))
            requirements = f"{collection}/requirements/newest.txt"
            for command in (
                ("python3", "-m", "venv", "/opt/ansible"),
                ("pip", "install", "--quiet", "--require-virtualenv", "-r", requirements),
                (f"{collection}/tests/tools/sanity.sh", "/opt/ansible/bin/python", collection, "--prime-venvs"),
            ):
                enter_debian_13(session, root, tree, *command, writable=True)
    return root


@nox.session
def newest(session: nox.Session) -> None:
    """Run the installed collection, ansible-test sanity and the unit tests with the newest ansible-core."""
    with copied_tree() as tree:
        root = debian_13(session, tree)
        tarball = build_tarball(session, tree)
        collection = "/mnt/ansible_collections/warren/vpn"
        tool = f"{collection}/tests/tools"
        for command in (
            (f"{tool}/installed.sh", "/opt/ansible/bin", f"/mnt/{tarball.name}", "/mnt/empty"),
            (f"{tool}/sanity.sh", "/opt/ansible/bin/python", collection, *session.posargs),
            # The agent and the tools have nothing of Ansible in them, and need packages that are not here.
            ("sh", "-c", f"cd {collection} && pytest --ignore=tests/unit/agent --ignore=tests/unit/tools"),
        ):
            enter_debian_13(session, root, tree, *command)


def scenarios() -> list[str]:
    """All molecule scenarios but `kernel`, which has a session of its own."""
    return sorted({path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")} - {"kernel"})


@nox.session
def molecule(session: nox.Session) -> None:
    """Run every molecule scenario but `kernel`, which has a session of its own, or those named after `--`."""
    use_checkout()
    failed = []
    for scenario in session.posargs or scenarios():
        command = ("--no-command-borders", "-s", scenario)
        # Molecule's own default is the same directory for all checkouts whose last part is the same.
        env = {"MOLECULE_EPHEMERAL_DIRECTORY": str(STATE / "molecule" / scenario)}
        try:
            session.run("molecule", "test", *command, env=env)
        except CommandFailed:
            failed.append(scenario)
        except KeyboardInterrupt:
            session.run("molecule", "destroy", *command, env=env)
            raise
    if failed:
        session.error(f"failed: {', '.join(failed)}")


@contextmanager
def machine(session: nox.Session, linux: str, image: str, *states: str) -> Iterator[tuple[str, Path]]:
    """Start an emulated machine, from the first of the states that was saved; yield its name and what is kept of it."""
    program, name = str(ROOT / "lab/machine"), f"linux-{linux}-{image}"
    try:
        env = {"MACHINE_KERNEL": linux, "MACHINE_IMAGE": image}
        session.run(program, "start", name, *states, env=env, external=True)
        yield name, ROOT / ".lab/machines" / name
    finally:
        session.run(program, "stop", name, external=True)


def run_kernel(session: nox.Session, linux: str, image: str, options: list[str]) -> None:
    """Run the scenario `kernel` from here, with hosts that are containers of an emulated machine."""
    hosts, deployed = (
        state_of(f"{word}-{linux}-{image}", paths) for word, paths in (("hosts", HOSTS), ("deployed", DEPLOYED))
    )
    with machine(session, linux, image, deployed, hosts) as (name, own):
        slowness = (own / "slowness").read_text().strip()
        env = {
            "ANSIBLE_TIMEOUT": str(round(10 * float(slowness))),
            "LAB_DIR": str(own / "kept"),
            "LAB_IMAGE": image,
            "LAB_MACHINE": name,
            "LAB_PORT": (own / "port").read_text().strip(),
            "LAB_SLOWNESS": slowness,
            "MOLECULE_EPHEMERAL_DIRECTORY": str(own / "kept/molecule"),
            "PYTEST_ADDOPTS": shlex.join(options),
        }
        began = (own / "state").read_text().strip()
        for step, state, done in (("create", hosts, {hosts, deployed}), ("converge", deployed, {deployed})):
            if began not in done:
                session.run("molecule", step, "--no-command-borders", "-s", "kernel", env=env)
                session.run(str(ROOT / "lab/machine"), "save", name, state, external=True)
        session.run("molecule", "verify", "--no-command-borders", "-s", "kernel", env=env)


@nox.session
def kernel(session: nox.Session) -> None:
    """Run the scenario `kernel` on Debian's own kernel, in an emulated machine.

    Its quick half on Linux 6.12; with `-- all` the whole of it there, on Debian 12's 6.1, and with hosts of Debian 13.
    `-- KERNEL IMAGE [OPTION...]` runs one combination, with options for pytest.
    """
    use_checkout()
    runs, options = [("6.12", "bookworm")], ["-m", "kernel"]
    if session.posargs == ["all"]:
        runs, options = [*runs, ("6.1", "bookworm"), ("6.12", "trixie")], []
    elif session.posargs:
        linux, image, *options = session.posargs
        runs = [(linux, image)]
    failed = []
    for linux, image in runs:
        session.log(f"Linux {linux}, hosts of {image}")
        try:
            run_kernel(session, linux, image, options)
        except CommandFailed:
            failed.append(f"Linux {linux} with {image}")
    if failed:
        session.error(f"failed: {', '.join(failed)}")


@nox.session
def bench_links(session: nox.Session) -> None:
    """Run tests/bench/links on Debian's own kernel, in an emulated machine."""
    with machine(session, "6.12", "bookworm") as (name, _own):
        program = str(ROOT / "lab/machine")
        session.run(program, "put", name, external=True)
        bench = f"cd /srv/warren && .venv/bin/python tests/bench/links/bench.py {shlex.join(session.posargs)}"
        session.run(program, "ssh", name, bench, external=True)
