#!/usr/bin/env bash
# RestMQ from a shell, with curl only.
#
# Shows how to publish and take messages, JSON commands, a policy, a lease and its ack.
#
#   ./examples/test_rest.sh                               at http://127.0.0.1:8888, in the queue "test_rest"
#   ./examples/test_rest.sh http://queue.example.org work
#
# Prints each request and its answer, and purges the queue at the end. Stops at the first answer that is an error.
set -eu -o pipefail

url=${1:-http://127.0.0.1:8888}
queue=${2:-test_rest} # percent-encoded as in a URL

request() {
    printf '\n$ curl' >&2
    printf ' %q' "$@" >&2
    printf '\n' >&2
    if ! answer=$(curl --silent --show-error --fail-with-body --max-time 70 "$@"); then
        printf '%s\n' "$answer" >&2
        exit 1
    fi
    printf '%s\n' "$answer"
}

field() { # field NAME: prints this string member of the last answer; the string must not contain quotes
    sed -n "s/.*\"$1\":\"\\([^\"]*\\)\".*/\\1/p" <<<"$answer"
}

# Three ways to publish: as a form field, with the queue as a form field too, and as any bytes.
request -d value=foobar "$url/q/$queue"
request -d "queue=$queue" --data-urlencode 'value=a + b & c' "$url/"
request -H 'Content-Type: application/octet-stream' --data-binary "@${BASH_SOURCE[0]}" "$url/q/$queue"

# JSON commands: "get" peeks at the next message, "take" takes it.
request -d 'body={"cmd": "get"}' "$url/queue/$queue"
request -H 'Content-Type: application/json' -d '{"cmd": "take"}' "$url/queue/$queue"

# Take the next message; then take the bytes, which are this file.
request "$url/q/$queue"
curl --silent --show-error --fail -H 'Accept: application/octet-stream' "$url/q/$queue" | cmp - "${BASH_SOURCE[0]}"

# A leased message comes back unless it is acked in time.
request -d value=dig "$url/q/$queue"
request "$url/q/$queue?lease=30"
key=$(field key)
key=$queue:${key##*:} # the percent-encoded queue name again
receipt=$(field receipt)
request -d "receipt=$receipt" -d lease=60 "$url/m/$key"
request -X DELETE "$url/m/$key?receipt=$receipt"

# Policy: each message goes to one listener in turn. Then statistics, and the purge.
request -d policy=roundrobin "$url/p/$queue"
request "$url/stats/$queue"
request -X DELETE "$url/q/$queue"
