#!/usr/bin/env bash
# Load with ab (Debian: apache2-utils): puts messages in, then takes them all out, over connections that stay open.
#
#   tests/load/ab.sh                                       20,000 messages, 50 connections, at http://127.0.0.1:8888
#   tests/load/ab.sh http://127.0.0.1:8888 100000 200 other-queue
#
# Shows ab's figures. Exit status 1 if any request failed. The queue, "load-ab", should be empty before.
set -eu -o pipefail

url=${1:-http://127.0.0.1:8888}
messages=${2:-20000}
connections=${3:-50}
queue=${4:-load-ab}

body=$(mktemp)
trap 'rm -f "$body"' EXIT
printf 'value=%064d' 0 >"$body"

# ab OPTION…: runs it; -l, as answers are of different lengths: their keys are numbered.
load() {
    local figures
    figures=$(ab -q -k -l -n "$messages" -c "$connections" "$@" "$url/q/$queue")
    printf '%s\n' "$figures"
    grep -q '^Failed requests: *0$' <<<"$figures"
    ! grep -q '^Non-2xx' <<<"$figures"
}

load -p "$body" -T application/x-www-form-urlencoded
load
