"""Whatever happens to a server by hand or by accident, one run of site.yml mends it, says so, and does no more."""

from __future__ import annotations

import re

import pytest

# What is done to a server: the script, and what the run that mends it says it did.
# Groups are damaged together and mended by one run, each on both servers in turn, so that few runs are needed.
TABLE = "load nftables table warren_control_mesh"
PEER = "$(wg show wg0ctl peers | head -n 1)"
CLIENT = "$(wg show wg0access peers | head -n 1)"
CTL = "change link wg0ctl"
CLI = "change link wg0access"
UNIT = "/etc/systemd/system/warren-network.service"
PATH = "load nftables table warren_path"
WIREGUARD = "load nftables table warren_wireguard"
RULES = "set routing rules"
MAIN = "ip rule add lookup main priority 32766; ip rule add lookup default priority 32767"
AGENT = "/usr/lib/warren/warrend/entry.py"
CONFIG = "/etc/warren/agent.json"
SESSIONS = "$(wg show wg0mh peers | head -n 1)"
ENGINE = "/usr/lib/warren/warren_network/_host.py"
FILE = "/etc/warren/nftables.d/warren_path.nft"
ROUNDS = [
    {
        "peer removed": ("ams", f"wg set wg0ctl peer {PEER} remove", CTL),
        "route removed": ("ams", "ip route del 10.96.0.0/11 dev wg0access", CLI),
        "table deleted": ("ams", "nft delete table inet warren_control_mesh", TABLE),
        "setting reset": ("ams", "sysctl -qw net.ipv4.ip_forward=0", "set kernel settings"),
        "interface deleted": ("fra", "ip link delete wg0access", "make link wg0access"),
        "address removed": ("fra", "ip addr del 10.77.0.2/24 dev wg0ctl", CTL),
        "rule added": ("fra", "nft add rule inet warren_path from_client accept", PATH),
        "unit changed": ("fra", "echo '#' >>" + UNIT, "write " + UNIT),
        "routing rule removed": ("ams", "ip rule del fwmark 0x70000002", RULES),
        "agent stopped": ("fra", "systemctl stop warrend.service", "start warrend.service"),
    },
    {
        "allowed addresses changed": ("ams", f"wg set wg0ctl peer {PEER} allowed-ips 10.77.0.99/32", CTL),
        "interface down": ("ams", "ip link set wg0access down", CLI),
        "chain flushed": ("ams", "nft flush chain inet warren_control_mesh from_mesh", TABLE),
        "boot forgotten": ("ams", "systemctl disable warren-network.service", "enable warren-network.service"),
        "MTU changed": ("fra", "ip link set wg0ctl mtu 1380", CTL),
        "route of another family removed": ("fra", "ip -6 route del fd57:6172:7265:2::/64 dev wg0access", CLI),
        "chain added": ("fra", "nft add chain inet warren_control_mesh mine", TABLE),
        "state file changed": ("fra", "sed -i s/1420/1421/ /etc/warren/network.json", "write /etc/warren/network.json"),
        "exit's link deleted": ("ams", "ip link delete wg0mh-r2", "make link wg0mh-r2"),
        "agent changed": ("fra", "echo '#' >>" + AGENT, "write " + AGENT),
        "routing rule added": ("fra", "ip -6 rule add fwmark 0x70000009 lookup 100009 protocol 119", RULES),
        "engine changed": ("fra", "echo '#' >>" + ENGINE, "write " + ENGINE),
    },
    {
        "pre-shared key changed": ("ams", f"wg genpsk | wg set wg0ctl peer {PEER} preshared-key /dev/stdin", CTL),
        "extra peer": ("ams", "wg set wg0access peer $(wg genkey | wg pubkey) allowed-ips 10.99.99.99/32", CLI),
        "counter added": ("ams", "nft add rule inet warren_path leaving counter", PATH),
        "group changed": ("fra", "ip link set wg0mh-r1 group 7", "change link wg0mh-r1"),
        "notrack removed": ("fra", "nft flush chain inet warren_wireguard received", WIREGUARD),
        "reverse path filter strict": ("ams", "sysctl -qw net.ipv4.conf.wg0mh-r2.rp_filter=1", "set kernel settings"),
        "routing rules flushed": ("ams", f"ip rule flush; {MAIN}", RULES),
        "agent's configuration readable": ("fra", "chmod 644 " + CONFIG, "write " + CONFIG),
        "file's mode changed": ("ams", "chmod 644 /etc/warren/network.json", "write /etc/warren/network.json"),
        "keepalive changed": ("fra", f"wg set wg0ctl peer {PEER} persistent-keepalive 7", CTL),
        "address added": ("fra", "ip addr add 10.31.33.8/32 dev wg0access", CLI),
        "settings' file removed": ("fra", "rm /etc/sysctl.d/60-warren.conf", "write /etc/sysctl.d/60-warren.conf"),
        "table's file changed": ("fra", "echo '#' >>" + FILE, "write " + FILE),
    },
    {
        "port changed": ("ams", "wg set wg0ctl listen-port 20009", CTL),
        "private key changed": ("ams", "wg genkey | wg set wg0access private-key /dev/stdin", CLI),
        "client removed": ("fra", f"wg set wg0access peer {CLIENT} remove", CLI),
        "exit's route removed": ("ams", "ip route del default table 100002", "change link wg0mh-r2"),
        "closed route removed": ("ams", "ip route del blackhole 10.96.0.0/11 metric 4294967295", "set routes"),
        "session prefix changed": ("fra", f"wg set wg0mh peer {SESSIONS} allowed-ips 10.9.9.9/32", "change link wg0mh"),
        "agent not started at boot": ("fra", "systemctl disable warrend.service", "enable warrend.service"),
        "userspace stopped": ("fra", "systemctl stop warren-wireguard-go@wg0ctl.service", "make link wg0ctl"),
    },
]  # fmt: skip
CASES = [(number, what) for number, cases in enumerate(ROUNDS) for what in cases]
STATE = """
set +e
for link in wg0ctl wg0access wg0mh wg0mh-r1 wg0mh-r2; do
  ip -br link show $link | tr -s ' '; ip -d -o link show $link | grep -o 'group [0-9a-z]*'
  ip -br address show $link scope global | tr -s ' '
  cat /sys/class/net/$link/mtu; wg show $link private-key; wg show $link listen-port
  for what in peers preshared-keys allowed-ips persistent-keepalive; do wg show $link $what | sort; done
done
ip route show table all proto 119; ip -6 route show table all proto 119; ip rule | sort; ip -6 rule | sort
sysctl net.ipv4.conf.wg0mh-r1.rp_filter net.ipv4.conf.wg0mh-r2.rp_filter
for table in warren_path warren_control_mesh warren_wireguard; do nft -s list table inet $table; done
sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding
systemctl is-enabled warren-network.service warrend.service; systemctl is-active warrend.service
find /etc/warren /usr/lib/warren /usr/local/sbin /etc/sysusers.d /etc/sysctl.d/60-warren.conf /etc/systemd/system \\
  -name __pycache__ -prune -o -type f -printf '%p %m ' -exec sha256sum {} \\;
"""


def state(fleet, server):
    """All of a server that a run looks after, without what changes by itself: handshakes, counters, numbers."""
    return re.sub(r"@\S+|<\S+>", "", fleet.try_sh(server, STATE).stdout).splitlines()


@pytest.fixture(scope="module")
def rounds(fleet):
    """Each round of damage done and mended, on demand."""
    done = {}
    good = {server: state(fleet, server) for server in fleet.servers}

    def mend(number):
        if number not in done:
            done[number] = {"undamaged": []}
            with fleet.unattended(*fleet.servers):
                for what, (server, script, _action) in ROUNDS[number].items():
                    before = state(fleet, server)
                    fleet.sh(server, script)
                    if state(fleet, server) == before:
                        done[number]["undamaged"].append(what)
                first = fleet.site()
            after = {server: state(fleet, server) for server in fleet.servers}
            done[number] |= {"first": first, "after": after, "second": fleet.site()}
        return done[number]

    fleet.wait_for(lambda: fleet.answers("ams", fleet.control("fra")), "the mesh is up")
    return mend, good


@pytest.mark.parametrize(("number", "what"), CASES, ids=[what for _number, what in CASES])
def test_a_run_mends(rounds, number, what):
    mend, _good = rounds
    server, _script, action = ROUNDS[number][what]
    assert what not in mend(number)["undamaged"], "no damage was done: the test shows nothing"
    assert action in mend(number)["first"].actions(server)


@pytest.mark.parametrize("number", range(len(ROUNDS)))
def test_a_run_mends_all_of_it_and_the_next_changes_nothing(fleet, rounds, number):
    mend, good = rounds
    for server in fleet.servers:
        assert mend(number)["after"][server] == good[server], server
    assert mend(number)["second"].changed == {}
    for server in fleet.servers:
        wanted = {action for host, _script, action in ROUNDS[number].values() if host == server}
        extra = set(mend(number)["first"].actions(server)) - wanted
        # A link that is made anew needs its kernel settings again, and a service its new files.
        assert extra <= {"restart warrend.service", "set kernel settings"}, "it did more than was needed"


def test_mending_leaves_other_sessions_alone(fleet):
    """alice's session on ams, and a download in it, live on while peers and rules beside them are mended."""
    fleet.curl("alice")
    key = fleet.sh("alice", "wg show ams public-key").strip()
    since = fleet.now()
    before = fleet.wg("ams", "wg0access", "latest-handshakes")[key]
    with fleet.unattended("ams"):
        fleet.sh(
            "ams",
            "wg set wg0access peer $(wg genkey | wg pubkey) allowed-ips 10.99.99.99/32; "
            f"wg set wg0ctl peer {PEER} remove; nft add rule inet warren_path from_client accept",
        )
        assert fleet.site().actions("ams") == [PATH, "change link wg0ctl", "change link wg0access"]
    after = fleet.wg("ams", "wg0access", "latest-handshakes")[key]
    assert after == before or int(after) - int(before) >= 110, (
        "a new handshake before it was due"
    )  # Rekey-After-Time: 120 s
    assert fleet.curl("alice")["ip"] in fleet.exits("ams"), since
