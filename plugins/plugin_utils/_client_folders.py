# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection.
"""Compares the clients' files on disk with what they should be, and writes them."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import _client_codes, _client_files, _problems

Client = Mapping[str, Any]
Server = Mapping[str, Any]

TO_BE_MADE = "(made in a run that is no check)"
"""Stands for a private key in check mode."""


class ClientError(Exception):
    """What stands in the way. The message says what to do, and holds no secret."""


class Clients:
    """The files of the clients of one call."""

    def __init__(self, parameters: Mapping[str, Any], check_mode: bool) -> None:
        self.directory, self.tunnel = Path(parameters["directory"]), parameters["tunnels"]
        self.check_mode = check_mode
        self.servers = {server["name"]: server for server in self.tunnel["servers"]}
        self.by_slug = {server["slug"]: server["name"] for server in self.tunnel["servers"]}
        clients = {client["name"]: client for client in self.tunnel["clients"]}
        _known("server that accepts clients", parameters["servers"], self.servers)
        _known("client", parameters["only"], clients)
        _outside(self.directory, parameters["inventory_sources"])
        self.further = parameters["servers"]
        self.selected = [clients[name] for name in parameters["only"]] or list(clients.values())
        folders = [path for path in self.directory.glob("[!.]*") if path.is_dir()]
        self.gone = sorted(path.name for path in folders if path.name not in clients)
        self.public_keys: dict[str, str] = {}
        self.keyless: dict[str, list[str]] = {}
        self.writer = Writer()

    def compare(self) -> None:
        """Find out what is to be written."""
        self.writer.directory(self.directory)
        ignore = self.directory / ".gitignore"
        self.writer.file(ignore, _read(ignore) if ignore.exists() else None, "# Private keys.\n*\n")
        problems = []
        for client in self.selected:
            try:
                self._client(client)
            except ClientError as problem:
                problems.append(str(problem))
        if problems:
            raise ClientError("\n".join(problems))

    def warnings(self) -> list[str]:
        """What the operator may want to know."""
        warnings = [
            f"No files for {_problems.some(names)}: {server} has no public key on record yet. "
            "Run again once it is enrolled."
            for server, names in self.keyless.items()
        ]
        if self.gone:
            names = _problems.some(self.gone)
            warnings.append(f"{self.directory} has files of {names}, not in warren_clients. Remove them.")
        return warnings

    def _client(self, client: Client) -> None:
        where = self.directory / client["name"]
        configs = {path: _read(path) for path in sorted(where.glob("[!.]*.conf"))}
        private_key = self._private_key(client, where, configs)
        servers = self._servers(client, configs)
        if not servers:
            return
        if client["public_key"] is None:
            private_key = private_key or (TO_BE_MADE if self.check_mode else _client_codes.make_key())
            known = private_key != TO_BE_MADE
            self.public_keys[client["name"]] = _client_codes.public_half(private_key) if known else ""
        self.writer.directory(where)
        for server in servers:
            path = where / f"{server['slug']}.conf"
            config = _client_files.text(self.tunnel, client, server, private_key)
            self.writer.file(path, configs.get(path), config)
            self.writer.codes_of(path, config if private_key else None)

    def _private_key(self, client: Client, where: Path, configs: Mapping[Path, str]) -> str:
        """The private key in a client's files; an empty text if there is none and there need not be."""
        found: dict[str, Path] = {}
        for path, config in configs.items():
            key = _client_files.private_key_in(config)
            if key:
                found.setdefault(key, path)
        name, wanted = client["name"], client["public_key"]
        if wanted is None and len(found) > 1:
            paths = " and ".join(str(path) for path in found.values())
            raise ClientError(
                f"{name}: {paths} have different private keys, and no public key is on record. "
                "Remove the file that is not in use."
            )
        if wanted is None:
            return next(iter(found), "")
        private_key = next((key for key in found if _client_codes.public_half(key) == wanted), "")
        if not private_key and not client["own_key"]:
            what = f"{next(iter(found.values()))} has another" if found else f"no .conf file in {where} has it"
            raise ClientError(
                f"{name}: the private key of the public key on record, {wanted}, is lost: {what}. Restore the file. "
                f"Or remove {name} from warren_client_keys{f', and {where},' if found else ''} to make a new pair."
            )
        return private_key

    def _servers(self, client: Client, configs: Mapping[Path, str]) -> list[Server]:
        """Those that the client is to have files for: its own, those asked for, and those that it has files for."""
        names = [client["server"], *self.further, *(self.by_slug.get(path.stem) for path in configs)]
        servers = [self.servers[name] for name in dict.fromkeys(names) if name in self.servers]
        for server in servers:
            if not server["public_key"]:
                self.keyless.setdefault(server["name"], []).append(client["name"])
        return [server for server in servers if server["public_key"]]


class Writer:
    """Compares files with what they should be, and notes the differences. ``write`` makes them so."""

    def __init__(self) -> None:
        self.directories: list[Path] = []
        self.modes: list[tuple[Path, int]] = []
        self.writes: dict[Path, bytes] = {}
        self.codes: list[tuple[Path, str]] = []
        self.removals: list[Path] = []
        self.diff: list[dict[str, str]] = []

    def directory(self, path: Path) -> None:
        """A directory that only its owner may enter."""
        if path.is_dir():
            self._mode(path, 0o700)
        else:
            self.directories.append(path)
            self._note(path, "", "directory of mode 0700\n")

    def file(self, path: Path, before: str | None, after: str) -> None:
        """A file with this text. What it had before is None if there was none."""
        if before != after:
            self.writes[path] = after.encode()
            self._note(path, self._shown(before or ""), self._shown(after))
        if before is not None:
            self._mode(path, 0o600)

    def codes_of(self, path: Path, config: str | None) -> None:
        """The QR codes beside a file; None for a file that is not to have any."""
        image, terminal = path.with_suffix(".png"), path.with_suffix(".txt")
        there = [code for code in (image, terminal) if code.exists()]
        for code in there:
            self._mode(code, 0o600)
        if config is None:
            self.removals += there
            for code in there:
                self._note(code, "QR code\n", "")
        elif len(there) < 2 or not _client_files.is_stamped(image.read_bytes(), _read(terminal), config):
            self.codes.append((path, config))
            for code in (image, terminal):
                self._note(code, "another QR code\n" if code in there else "", f"QR code of {path.name}\n")

    def write(self) -> None:
        """Make it so. Private keys come before all that follows from them."""
        for path in self.directories:
            path.mkdir(mode=0o700, parents=True)
            path.chmod(0o700)  # whatever the umask
        for path, mode in self.modes:
            path.chmod(mode)
        for path, content in self.writes.items():
            _replace(path, content, lasting=True)
        drawn = _client_codes.draw_all([config for _path, config in self.codes])
        for (path, _config), (image, terminal) in zip(self.codes, drawn, strict=True):
            _replace(path.with_suffix(".png"), image)
            _replace(path.with_suffix(".txt"), terminal.encode())
        for path in self.removals:
            path.unlink()

    def _mode(self, path: Path, mode: int) -> None:
        there = path.stat().st_mode & 0o7777
        if there != mode:
            self.modes.append((path, mode))
            self._note(path, f"mode {there:04o}\n", f"mode {mode:04o}\n")

    def _note(self, path: Path, before: str, after: str) -> None:
        self.diff.append({"before": before, "after": after, "before_header": str(path), "after_header": str(path)})

    def _shown(self, config: str) -> str:
        return _client_files.shown(config, _client_codes.public_half)


def _read(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")


def _replace(path: Path, content: bytes, lasting: bool = False) -> None:
    """Replace a file; a reader finds the old or the new. ``lasting``: not even a power cut loses it from here on."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _known(what: str, names: Sequence[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            meant = difflib.get_close_matches(name, known, 1)
            remedy = f"Did you mean {meant[0]}?" if meant else f"There are: {_problems.some(sorted(known)) or 'none'}."
            raise ClientError(f"{name} is no {what}. {remedy}")


def _outside(directory: Path, inventories: Sequence[str]) -> None:
    """Ansible reads every file in an inventory directory as an inventory, unless a dot begins a name above it."""
    here = directory.resolve()
    for source in (Path(inventory).resolve() for inventory in inventories):
        if not source.is_dir() or source not in (here, *here.parents):
            continue
        if not any(part.startswith(".") for part in here.relative_to(source).parts):
            raise ClientError(
                f"{directory} is inside the inventory directory {source}: Ansible would read the clients' files as "
                f"inventories, and show private keys. Choose a directory outside, or {source / '.clients'}."
            )
