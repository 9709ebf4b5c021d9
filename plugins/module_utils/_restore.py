# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection, and installed on every server as part of the engine that restores its network at boot:
# standard library and relative imports only.
"""``python3 -m warren_network._restore`` puts back what the last run wanted: ``warren-network.service`` at boot.

With ``names`` it resolves DNS names of endpoints too: ``warren-endpoints.service``, once the network is up and from
time to time, on hosts that have such peers.
"""

from __future__ import annotations

import sys

from . import _host, _network
from ._plan import Plan


def main() -> int:
    """Restore and say what was done; 0 if the host is as recorded now."""
    plan = Plan()
    try:
        if not _network.restore(plan, ask_names="names" in sys.argv[1:]):
            sys.stdout.write("nothing recorded yet: site.yml has not run on this host\n")
    except _host.NetworkError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("".join(f"{action}\n" for action in plan.actions))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
