# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which names are slips of ours, and which are somebody else's: the table that the measure was chosen by."""

from __future__ import annotations

import pytest

from ansible_collections.warren.vpn.plugins.plugin_utils import _inventory, _names, _options

NAMES = _names.Names(_inventory.variables().union(*_options.role_options().values()))

SLIPS = {
    "sever_id": "server_id",
    "erver_id": "server_id",
    "esrver_id": "server_id",
    "serverid": "server_id",
    "server__id": "server_id",
    "serverId": "server_id",
    "servers_id": "server_id",
    "server_slgu": "server_slug",
    "server_lable": "server_label",
    "server_regoin": "server_region",
    "server_exit_adresses": "server_exit_addresses",
    "sever_exit_adresses": "server_exit_addresses",
    "server_exit_address": "server_exit_addresses",
    "server_entry_adddresses": "server_entry_addresses",
    "server_nat_port": "server_nat_ports",
    "server_wiregard": "server_wireguard",
    "server_health_second": "server_health_seconds",
    "server_record_dir": "server_records_dir",
    "agent_lease_second": "agent_lease_seconds",
    "agent_idle_minuets": "agent_idle_minutes",
    "agent_portal_name": "agent_portal_names",
    "control_mesh_tcp_port": "control_mesh_tcp_ports",
    "contol_mesh_tcp_ports": "control_mesh_tcp_ports",
    "packet_path_portal_tcp_port": "packet_path_portal_tcp_ports",
    "packet_path_refused_destination4": "packet_path_refused_destinations4",
    "client_only": "clients_only",
    "client_records_dir": "clients_records_dir",
    "waren_mtu": "warren_mtu",
    "warern_fleet_secret": "warren_fleet_secret",
    "warrenmtu": "warren_mtu",
}

SOMEBODY_ELSES = """
    access_key access_list access_log access_port access_token
    agent_group agent_home agent_name agent_port agent_token agent_user agent_version
    backend_port client_id client_max_body_size client_name clients_max
    control_plane_endpoint control_mesh_enabled
    gateway_address gateway_id haproxy_maxconn haproxy_stats_port
    multihop_enabled mtu openvpn_port openvpn_server_network
    packet_filter path_prefix region label reflector_id router_id
    sensor_id serial_id service_id seller_id shared_id
    server_alias server_backup_dir server_cert server_cores server_disk server_domain server_env server_gid
    server_group server_groups server_hostname server_id_file server_ids server_idx server_ip server_ips server_key
    server_labels server_list server_location server_memory server_name server_names server_os server_owner
    server_packages server_password server_port server_ports server_private_ip server_public_address server_regions
    server_role server_roles server_size server_ssh_port server_tag server_tags server_timezone server_type server_uid
    server_url server_user server_uuid server_vlan_id server_zone
    service_label session_timeout user_id vpn_server_id wireguard_port
    ansible_host ansible_server_id group_names inventory_hostname lab_server_id
"""


@pytest.mark.parametrize(("name", "meant"), SLIPS.items())
def test_a_slip_is_seen(name: str, meant: str) -> None:
    assert NAMES.meant(name) == meant


@pytest.mark.parametrize("name", SOMEBODY_ELSES.split())
def test_a_name_of_somebody_else_is_none(name: str) -> None:
    assert NAMES.meant(name) == ""


def test_our_own_names_are_spelt_right() -> None:
    assert [name for name in NAMES._ours if NAMES.meant(name)] == []  # noqa: SLF001 - all of them
