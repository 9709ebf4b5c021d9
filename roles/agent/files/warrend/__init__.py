# Copyright (c) 2026 the warren.vpn authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""warrend, the agent of a server: starts, keeps and ends sessions.

As the entry of its own clients it decides which of them leave by another server (``entry.py``); as the exit of other
servers' clients it lets their sessions through for as long as the entry renews them (``leases.py``). It changes nothing
in the kernel but elements of nftables maps that the roles declare (``kernel.py``), and conntrack entries.
"""
