"""List this machine's containers as JSON: name, state, and the lab and the description they were made from."""

from __future__ import annotations

import json
import subprocess

done = subprocess.run(["podman", "ps", "--all", "--format", "json"], capture_output=True, text=True, check=True)
found = []
for container in json.loads(done.stdout or "[]") or []:
    labels = container.get("Labels") or {}
    for name in container["Names"]:
        lab, spec = labels.get("warren.lab", ""), labels.get("warren.spec", "")
        found.append({"name": name, "state": container["State"], "lab": lab, "spec": spec})
print(json.dumps(found))
