#!/usr/bin/env bash
# Install the built collection in an empty directory and use it from there by its full name, as its users do.
# Usage: installed.sh BIN_DIR TARBALL EMPTY_DIR
set -euo pipefail
bin=$1 tarball=$2 directory=$3
export PATH="$bin:$PATH" ANSIBLE_COLLECTIONS_PATH="$directory/collections"
export ANSIBLE_HOME="$directory/.ansible"
mkdir -p "$directory"
cd "$directory"
: > ansible.cfg
unset ANSIBLE_CONFIG
ansible --version | sed -n 1p
ansible-galaxy collection install --offline --no-deps -p collections "$tarball"
cp -r collections/ansible_collections/warren/vpn/inventory/example inventory
for playbook in collections/ansible_collections/warren/vpn/playbooks/*.yml; do
  ansible-playbook -i inventory --syntax-check "warren.vpn.$(basename "$playbook" .yml)"
done
# the one value that an operator must make before the example is whole
ansible-playbook -i inventory -e warren_fleet_secret="$(openssl rand -base64 48)" warren.vpn.validate
