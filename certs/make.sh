#!/bin/sh
# Makes the test certificates again. They protect nothing: their keys are public.
#
#   ca           signs server and client
#   server       localhost, *.redis.test, 127.0.0.1, ::1
#   client       for listeners and uplinks that ask for a certificate
#   other-ca     signs other-client, which nobody trusts
#   self-signed  a CA that shows itself, as `openssl req -x509` makes them
#   expired      as self-signed, of the past
set -eu
cd "$(dirname "$0")"
days=36500

authority() { # name, common name
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$days" \
        -keyout "$1.key" -out "$1.pem" -subj "/CN=$2" -addext "keyUsage=critical,keyCertSign,cRLSign"
}

signed() { # name, common name, authority, usage, alternative names
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=$2"
    printf 'basicConstraints=CA:FALSE\nextendedKeyUsage=%s\nsubjectAltName=%s\n' "$4" "$5" > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA "$3.pem" -CAkey "$3.key" -set_serial "0x$(openssl rand -hex 8)" \
        -days "$days" -extfile "$1.ext" -out "$1.pem"
    rm "$1.csr" "$1.ext"
}

authority ca "redis-proxy test CA"
authority other-ca "redis-proxy other test CA"
signed server localhost ca serverAuth "DNS:localhost,DNS:*.redis.test,IP:127.0.0.1,IP:::1"
signed client client ca clientAuth "DNS:client"
signed other-client client other-ca clientAuth "DNS:client"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$days" \
    -keyout self-signed.key -out self-signed.pem -subj /CN=localhost \
    -addext "subjectAltName=DNS:localhost,IP:127.0.0.1"

# `openssl req` knows no dates in the past before version 3.4; `openssl ca` always did.
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
: > "$work/index.txt"
cat > "$work/conf" <<END
[ca]
default_ca = it
[it]
database = $work/index.txt
new_certs_dir = $work
rand_serial = yes
default_md = sha256
policy = any
x509_extensions = ext
[any]
commonName = supplied
[ext]
basicConstraints = CA:TRUE
subjectAltName = DNS:localhost,IP:127.0.0.1
END
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout expired.key -out "$work/csr" -subj /CN=localhost
openssl ca -batch -config "$work/conf" -selfsign -keyfile expired.key -in "$work/csr" -notext \
    -startdate 20200101000000Z -enddate 20200201000000Z -out expired.pem
rm -f ca.srl other-ca.key
chmod 644 ./*.key
