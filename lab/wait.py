"""Wait until systemd has started everything in the named containers, and name those where something failed.

lab/wait CONTAINER...
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

SECONDS = 60 * float(os.environ.get("LAB_SLOWNESS") or 1)  # an emulated machine is slow: lab/machine
# Early on there is no bus to ask yet; --wait returns once the start is over.
SCRIPT = """
if ! [ -e /sys/class/net/eth0 ]; then
  echo "no network: podman did not run the hook in /usr/share/containers/oci/hooks.d"
  exit 1
fi
while :; do
  state=$(systemctl is-system-running --wait 2>/dev/null)
  case $state in running) exit 0 ;; degraded) break ;; esac
  sleep 0.1
done
echo "services failed: $(systemctl --failed --plain --no-legend | cut -d' ' -f1 | tr '\\n' ' ')"
"""


def wait(container: str) -> tuple[str, str]:
    """Wait for one container; what it returns is a complaint or nothing."""
    command = ["podman", "exec", container, "timeout", str(SECONDS), "sh", "-c", SCRIPT]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode == 124:
        return container, f"not up after {SECONDS:.0f} s; look at: podman exec {container} systemctl list-jobs"
    return container, (done.stderr or done.stdout).strip()


def main() -> int:
    """Wait for all; fail if one is not up at all."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        complaints = {name: text for name, text in pool.map(wait, sys.argv[1:]) if text}
    for name, text in complaints.items():
        print(f"{name}: {text}")
    return 0 if all(text.startswith("services failed") for text in complaints.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
