#!/bin/bash
# `make demo`: a Redis, the proxy on it with TLS and a password, and a few commands through it.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=$(mktemp -d)
redis= proxy=
clean_up() {
    for pid in $proxy $redis; do
        kill "$pid" 2> /dev/null || true
        wait "$pid" 2> /dev/null || true
    done
    rm -rf "$dir"
}
trap clean_up EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() {
    printf '$ %s\n' "redis-cli --tls -p 7001 -a secret $*"
    redis-cli --tls --cacert certs/ca.pem --no-auth-warning -p "$port" -a secret "$@"
}
until_true() {
    for _ in $(seq 200); do
        if "$@" > /dev/null 2>&1; then return; fi
        read -rt 0.05 <> <(:) || true
    done
    echo "gave up waiting for: $*" >&2
    exit 1
}

say "1. A redis-server, reached only through a unix socket"
redis-server --port 0 --unixsocket "$dir/redis.sock" --save "" --dir "$dir" > "$dir/redis.log" &
redis=$!
until_true redis-cli -s "$dir/redis.sock" ping
redis-cli -s "$dir/redis.sock" info server | grep redis_version

say "2. The proxy in front of it, with TLS and a password"
cat > "$dir/config.json" <<END
{
    "uplink": { "addr": "$dir/redis.sock", "network": "unix" },
    "listen": {
        "addr": "127.0.0.1:0", "pass": "secret",
        "tls": true, "certfile": "certs/server.pem", "keyfile": "certs/server.key"
    }
}
END
target/release/redis-proxy --check -f "$dir/config.json"
target/release/redis-proxy --log-format json -f "$dir/config.json" 2> "$dir/proxy.log" &
proxy=$!
until_true grep -q '"running"' "$dir/proxy.log"
port=$(sed -n 's/.*"addr":"127.0.0.1:\([0-9]*\)".*/\1/p' "$dir/proxy.log" | head -n 1)

say "3. Commands through it"
show ping
show set greeting "hello through the proxy"
show get greeting
printf '$ %s\n' "(without the password)"
redis-cli --tls --cacert certs/ca.pem -p "$port" get greeting

say "4. SIGTERM: running requests finish, then it ends"
kill -TERM "$proxy"
wait "$proxy"
echo "exit code $?"
proxy=
