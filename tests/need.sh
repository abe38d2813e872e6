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

if ! command -v apt-get > /dev/null; then
    echo "please install:$missing" >&2
    exit 1
fi
as_root=
if [ "$(id -u)" != 0 ]; then
    as_root="sudo "
fi
echo "installing$missing (${as_root}apt-get install) ..."
# Package scripts start the server where a system manager runs; RUNLEVEL tells them not to.
if ! { ${as_root}apt-get update -qq && ${as_root}env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } > /tmp/need.$$ 2>&1; then
    cat /tmp/need.$$ >&2
    rm -f /tmp/need.$$
    echo "could not install:$missing" >&2
    exit 1
fi
rm -f /tmp/need.$$
