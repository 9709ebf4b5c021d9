#!/usr/bin/env bash
# Run ansible-test sanity of the ansible-core that `PYTHON` has, in a collection tree.
# Usage: sanity.sh PYTHON COLLECTION_DIR [ARGUMENT...]
# HOME is where ansible-test keeps its virtual environments; the caller names a directory that may be thrown away.
set -euo pipefail
python=$1 collection=$2
shift 2
bin=$(dirname "$python")
export PATH="$bin:$PATH"

# ansible-test downloads a script that installs pip into its environments. Python carries a pip of its own.
pip_version=$("$python" - <<'PYTHON'
import ansible_test, pathlib, re
source = pathlib.Path(ansible_test.__path__[0], "_internal/python_requirements.py").read_text()
print(re.search(r"pip='([\d.]+)'", source)[1].replace(".", "_"))
PYTHON
)
mkdir -p "$HOME/.ansible/test/cache"
printf 'import ensurepip\nensurepip.bootstrap()\n' > "$HOME/.ansible/test/cache/get_pip_$pip_version.py"

cd "$collection"
ansible --version | sed -n 1p
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# pip's report of every wheel would bury what matters
ansible-test sanity --color no --truncate 0 --python "$version" "$@" 2>&1 |
  grep -Ev '^ *(Collecting|Downloading|Installing collected|Looking in|Processing|Successfully|Using cached|WARNING: Location|━|$)'
