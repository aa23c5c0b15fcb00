#!/bin/sh
# Installs the foreign programs that the interop and fault tests drive. Quick when everything is there already: each
# part is rebuilt only when its inputs changed. What cannot be had is named at the end, and the tests that need it
# say SKIP; with --strict it is an error instead.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$root/target/interop
mkdir -p "$out"
missing=""

lack() { missing="$missing $1"; echo "setup: $1: $2" >&2; }

# Runs a function unless its inputs (the files after the first two arguments) are those of the last good run.
once() {
    name=$1; shift; build=$1; shift
    stamp=$out/$name.stamp
    now=$(cat "$@" | sha256sum | cut -c1-64)
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$now" ]; then return; fi
    rm -f "$stamp"
    if "$build"; then echo "$now" > "$stamp"; else lack "$name" "could not be built"; fi
}

packages() {
    want=""
    need() { command -v "$1" > /dev/null 2>&1 || want="$want $2"; }
    PATH=$PATH:/usr/sbin:/sbin:/usr/local/go/bin
    need nft nftables; need ip iproute2; need conntrack conntrack; need iptables-legacy iptables
    need dig bind9-dnsutils; need dnsmasq dnsmasq-base; need nginx nginx; need haproxy haproxy; need nghttp nghttp2-client; need h2load nghttp2-client
    need wrk wrk; need slowhttptest slowhttptest; need curl curl; need ps procps; need sha256sum coreutils
    need etcdctl etcd-client; need etcd etcd-server; need nats-server nats-server
    need redis-server redis-server; need redis-benchmark redis-tools; need setpriv util-linux
    need chromium chromium; need openssl openssl
    ls /usr/lib/postgresql/*/bin/pgbench > /dev/null 2>&1 || want="$want postgresql"
    need node nodejs; need npm npm; need python3 python3
    ruby -e 'require "grpc"' 2> /dev/null || want="$want ruby-grpc"
    python3 -c 'import venv, ensurepip' 2> /dev/null || want="$want python3-venv"
    [ -n "$want" ] || return 0
    if [ "$(id -u)" != 0 ]; then lack "packages" "need root to install$want"; return 0; fi
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # the list is meant to be split
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends $want > /dev/null; } ||
        lack "packages" "apt-get could not install$want"
}

python_part() {
    [ -x "$out/venv/bin/python" ] || python3 -m venv "$out/venv" || return 1
    "$out/venv/bin/python" -m pip install -q -r "$here/python/requirements.txt"
}

node_part() {
    mkdir -p "$out/node"
    cp "$here/node/package.json" "$here/node/package-lock.json" "$here/node/.npmrc" "$out/node/"
    (cd "$out/node" && npm ci --silent --ignore-scripts)
}

go_part() {
    (cd "$here/go" && for program in service client topics; do
        go build -mod=readonly -o "$out/go-$program" "./$program" || exit 1
    done)
}

go_v3_part() {
    (cd "$here/go-v3" && go build -mod=readonly -o "$out/go-v3" .)
}

go_etcd_part() {
    (cd "$here/go-etcd" && go build -mod=readonly -o "$out/go-etcd" .)
}

# One program, built for both of the versions it is written alike for.
go_mucp_part() {
    for version in v4 v5; do
        made=$out/mucp-$version
        mkdir -p "$made"
        sed "s,go-micro.dev/v5,go-micro.dev/$version," "$here/go-mucp/main.go" > "$made/main.go"
        cp "$here/go-mucp/$version/go.mod" "$here/go-mucp/$version/go.sum" "$made/"
        (cd "$made" && go build -mod=readonly -o "$out/go-mucp-$version" .) || return 1
    done
}

packages
once python python_part "$here/python/requirements.txt"
once node node_part "$here/node/package-lock.json"
if command -v go > /dev/null 2>&1; then
    once go go_part "$here"/go/go.mod "$here"/go/go.sum "$here"/go/*/*.go
    once go-v3 go_v3_part "$here"/go-v3/go.mod "$here"/go-v3/go.sum "$here"/go-v3/*.go
    once go-etcd go_etcd_part "$here"/go-etcd/go.mod "$here"/go-etcd/go.sum "$here"/go-etcd/*.go
    once go-mucp go_mucp_part "$here"/go-mucp/v?/go.mod "$here"/go-mucp/v?/go.sum "$here"/go-mucp/main.go
else
    lack go "no Go toolchain (1.26 or newer) in the path; the go-micro tests will be skipped"
fi

if [ -n "$missing" ]; then
    echo "setup: not available:$missing" >&2
    [ "${1:-}" != --strict ] || exit 1
fi
echo "setup: ready in $out"
