#!/bin/sh
# Installs programs, or libraries, that are missing, and says so. Usage: need.sh PROGRAM ...
set -eu

package() {
    case "$1" in
        redis-server) echo redis-server ;;
        redis-cli | redis-benchmark) echo redis-tools ;;
        chromedriver) echo chromium-driver ;;
        node) echo nodejs ;;
        *) echo "$1" ;;
    esac
}

is_there() {
    case "$1" in
        python3-redis) [ -d /usr/lib/python3/dist-packages/redis ] ;;
        node-redis) [ -d /usr/share/nodejs/redis ] ;;
        # Debian keeps some in sbin, which a user's PATH may lack.
        *) command -v "$1" > /dev/null || [ -x "/usr/sbin/$1" ] ;;
    esac
}

missing=
for program in "$@"; do
    is_there "$program" || missing="$missing $(package "$program")"
done
[ -n "$missing" ] || exit 0
install="apt-get install --no-install-recommends$missing"

if ! command -v apt-get > /dev/null; then
    echo "This needs:$missing. Please install what your system calls so." >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo > /dev/null; then
    as_root=sudo
else
    echo "This needs:$missing. There is no sudo; as root, please run: $install" >&2
    exit 1
fi

echo "installing:$missing (${as_root:+$as_root }$install) ..."
said=$(mktemp)
trap 'rm -f "$said"' EXIT
# The lists may be old, and good enough.
$as_root apt-get update -qq > "$said" 2>&1 || echo "apt-get update failed; trying all the same" >> "$said"
# Package scripts start the server where a system manager runs; RUNLEVEL tells them not to.
if ! $as_root env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends $missing >> "$said" 2>&1; then
    cat "$said" >&2
    echo "could not install:$missing; as root, please run: $install" >&2
    exit 1
fi
