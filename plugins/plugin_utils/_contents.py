# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection.
"""The files that the module ``network`` writes on a server, without a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.warren.vpn.plugins.module_utils import _install, _record, _sysctl

SECRET, READABLE = 0o600, 0o644


def contents(parameters: Mapping[str, Any]) -> dict[Path, tuple[str, int]]:
    """Text and mode of every file that a call of the module with these parameters makes, by its path on the server.

    They are the same to the byte, with two exceptions: programs, which are the collection's own source, are left out,
    and ``@secret:<name>@`` stands where a server has a number that it makes for itself.

    Raises:
        NetworkError: a part is not as it should be.
    """
    network = _record.network_from(_record.data_from(parameters))
    return {
        _record.STATE_FILE: (_record.text_of(network.data), SECRET),
        **{table.path: (table.text, SECRET) for table in network.tables},
        _sysctl.FILE: (_sysctl.file_text(network.sysctl), READABLE),
        **{
            file.path: (file.content, file.mode)
            for part in parameters["parts"]
            for file in _install.files_from(part)
            if not file.path.is_relative_to(_install.PROGRAM_DIR)
        },
    }
