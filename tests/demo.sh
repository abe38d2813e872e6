#!/bin/bash
# `make demo`: clients count through the proxy while the Redis behind it is replaced, three times.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=$(mktemp -d)
pids=
clean_up() {
    for pid in $pids; do
        kill "$pid" 2> /dev/null || true
        wait "$pid" 2> /dev/null || true
    done
    rm -rf "$dir"
}
trap clean_up EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
until_true() {
    for _ in $(seq 200); do
        if "$@" > /dev/null 2>&1; then return; fi
        read -rt 0.05 <> <(:) || true
    done
    echo "gave up waiting for: $*" >&2
    exit 1
}
config() {
    cat > "$dir/config.json" << END
{
    "uplink": { "addr": "$dir/$1.sock", "network": "unix" },
    "listen": {
        "addr": "127.0.0.1:0", "pass": "secret",
        "tls": true, "certfile": "certs/server.pem", "keyfile": "certs/server.key"
    },
    "admin": { "addr": "127.0.0.1:0" }
}
END
}
port_of() { sed -n "s/.*\"block\":\"$1\",\"addr\":\"127.0.0.1:\([0-9]*\)\".*/\1/p" "$dir/proxy.log"; }
on() { redis-cli -s "$dir/$1.sock" "${@:2}"; }
through() { redis-cli --tls --cacert certs/ca.pem --no-auth-warning -p "$port" -a secret "$@"; }
curl_cmd() {
    printf '$ curl -d %s http://127.0.0.1:7011/cmd/\n' "$1"
    curl -sS -d "$1" "http://127.0.0.1:$admin/cmd/"
    echo
}

say "1. Two redis-servers, A and B, reached only through unix sockets"
for name in A B; do
    redis-server --port 0 --unixsocket "$dir/$name.sock" --save "" --dir "$dir" > "$dir/$name.log" &
    pids="$pids $!"
    until_true on "$name" ping
    on "$name" set who "$name" > /dev/null
done
on A info server | grep redis_version

say "2. The proxy in front of A, with TLS and a password"
config A
target/release/redis-proxy --check -f "$dir/config.json"
target/release/redis-proxy --log-format json -f "$dir/config.json" 2> "$dir/proxy.log" &
proxy=$!
pids="$pids $proxy"
until_true grep -q '"message":"running"' "$dir/proxy.log"
port=$(port_of listen) admin=$(port_of admin)
printf '$ redis-cli --tls -p 7001 -a secret get who\n'
through get who

say "3. Fifty TLS clients count, as fast as they can, while the Redis behind them is replaced"
requests=200000
redis-benchmark --tls --cacert certs/ca.pem -p "$port" -a secret -c 50 -n $requests --csv \
    INCR counter > "$dir/load.csv" 2> "$dir/load.err" &
load=$!
pids="$pids $load"
counting() { [ "$(on "$1" get counter)" -gt "$2" ]; }
until_true counting A 0
for name in B A B; do
    before=$(on "$name" get counter)
    config "$name"
    printf '$ sed -i s/%s.sock/%s.sock/ config.json\n' "$([ $name = A ] && echo B || echo A)" "$name"
    curl_cmd cmd=reload
    printf '$ redis-cli --tls -p 7001 -a secret get who\n'
    through get who
    until_true counting "$name" $((${before:-0} + 20000))
done
sed -n 's/.*"message":"reloaded","generation":\([0-9]*\),.*"pause_ms":\([0-9.]*\),"sessions_moved":\([0-9]*\).*/generation \1: \3 clients moved, requests held for \2 ms/p' "$dir/proxy.log"

say "4. What the clients saw"
status=0
wait "$load" || status=$?
tail -n 1 "$dir/load.csv" | tr -d '"' | awk -F, '{ printf "%d requests/s; half of the replies came within %.1f ms, the slowest took %.1f ms\n", $2, $5, $8 }'
a=$(on A get counter) b=$(on B get counter)
echo "counted by the clients: $requests; on A: $a; on B: $b; on both: $((a + b))"
if [ $status != 0 ] || [ $((a + b)) != $requests ]; then
    cat "$dir/load.err" >&2
    echo "VERDICT: something was lost, doubled or broken" >&2
    exit 1
fi
echo "VERDICT: no error, nothing lost, nothing doubled"

say "5. SIGTERM: running requests finish, then it ends"
kill -TERM "$proxy"
wait "$proxy"
echo "exit code $?"
