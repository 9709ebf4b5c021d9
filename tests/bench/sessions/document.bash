# shellcheck shell=bash
# The source document's way, written from its text: what both servers run for each session. Sourced by the bash that
# document.py starts on each of them; CLIENTS, STATE, LINK, TABLE, ENDPOINT and EXITS come from there.

# --- on the entry

# The document draws from 2-254, and so ends at 253 sessions; here the pool is wider. $1: last number. Sets NUMBER.
draw_number() {
  local try
  for ((try = 0; try < 400; try++)); do
    NUMBER=$(shuf -n 1 -i "2-$1")
    grep -Rqs "^SESSION_V4=$(session4 "$NUMBER")\$" "$STATE" || return 0
  done
  return 1
}

session4() { echo "10.1.$(($1 >> 8)).$(($1 & 255))"; }
session6() { printf 'fd57:6172:7265:8001::%x' "$1"; }

# Clients are in a namespace of their own, so that the rule below sees the session address.
translate() { # $1: -I or -D, $2: its rule number, $3-$4: the client, $5-$6: the session
  ip netns exec "$CLIENTS" iptables -t nat "$1" POSTROUTING ${2:+"$2"} -s "$3/32" \
    -m comment --comment "mhop:$3" -j SNAT --to-source "$5"
  ip netns exec "$CLIENTS" ip6tables -t nat "$1" POSTROUTING ${2:+"$2"} -s "$4/128" \
    -m comment --comment "mhop:$4" -j SNAT --to-source "$6"
}

route_session() { # $1-$2: the session
  local answer dev via
  answer=$(ip route get "$ENDPOINT")
  dev=$(sed -n 's/.* dev \([^ ]*\).*/\1/p;q' <<<"$answer")
  via=$(sed -n 's/.* via \([^ ]*\).*/\1/p;q' <<<"$answer")
  # The tunnel's own packets go by the main table's way.
  ip route replace table "$TABLE" "$ENDPOINT/32" ${via:+via "$via"} dev "$dev" >/dev/null 2>&1 || true
  ip rule add pref 10000 from "$1/32" table "$TABLE" 2>/dev/null || true
  ip route replace table "$TABLE" default dev "$LINK" >/dev/null 2>&1 || true
  ip -6 rule add pref 10000 from "$2/128" table "$TABLE" 2>/dev/null || true
  ip -6 route replace table "$TABLE" default dev "$LINK" >/dev/null 2>&1 || true
}

entry_start() { # $1-$2: the client, $3: last number of the pool
  draw_number "$3" || return 1
  local four six
  four=$(session4 "$NUMBER") six=$(session6 "$NUMBER")
  translate -I 1 "$1" "$2" "$four" "$six"
  route_session "$four" "$six"
  printf 'SESSION_V4=%s\nSESSION_V6=%s\n' "$four" "$six" >"$STATE/$1"
  echo "$four $six"
}

entry_again() { # $1-$2: the client, $3-$4: the session, from the state file
  translate -I 1 "$1" "$2" "$3" "$4"
  route_session "$3" "$4"
}

entry_stop() { # $1-$2: the client, $3-$4: the session
  translate -D "" "$1" "$2" "$3" "$4"
  ip rule del pref 10000 from "$3/32" table "$TABLE"
  ip -6 rule del pref 10000 from "$4/128" table "$TABLE"
  rm "$STATE/$1"
}

# --- on the exit

exit_rules() { # $1: iptables or ip6tables, $2: -I or -D, $3: its rule number, $4: session/length, $5: address, $6: ports, $7: icmp
  local protocol
  for protocol in udp tcp; do
    "$1" -w -t nat "$2" POSTROUTING ${3:+"$3"} -s "$4" -p "$protocol" -m "$protocol" --dport 1:65535 \
      -m comment --comment "mhop:${4%/*}" -j SNAT --to-source "$5:$6"
  done
  "$1" -w -t nat "$2" POSTROUTING ${3:+"$3"} -s "$4" -p "$7" -m comment --comment "mhop:${4%/*}" -j SNAT --to-source "${5//[][]/}"
}

exit_start() { # $1-$2: the session
  local -a four=(${EXITS4}) six=(${EXITS6})
  local leaving4=${four[RANDOM % ${#four[@]}]} leaving6=${six[RANDOM % ${#six[@]}]}
  exit_rules iptables -I 1 "$1/32" "$leaving4" "$PORTS" icmp
  exit_rules ip6tables -I 1 "$2/128" "[$leaving6]" "$PORTS" ipv6-icmp
  echo "$leaving4 $leaving6" >"$STATE/$1"
}

exit_stop() { # $1-$2: the session
  local leaving4 leaving6
  read -r leaving4 leaving6 <"$STATE/$1"
  exit_rules iptables -D "" "$1/32" "$leaving4" "$PORTS" icmp
  exit_rules ip6tables -D "" "$2/128" "[$leaving6]" "$PORTS" ipv6-icmp
  rm "$STATE/$1"
}

# --- asked by lines, answers with a line

while read -r line; do
  if answer=$($line); then echo "done $answer"; else echo "failed"; fi
done
