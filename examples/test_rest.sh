#!/usr/bin/env bash
# RestMQ from a shell, with nothing but curl.
#
# Shows messages in and out, JSON commands, a policy, a lease and its ack.
#
#   ./examples/test_rest.sh                               at http://127.0.0.1:8888, in a queue "test_rest"
#   ./examples/test_rest.sh http://queue.example.org work
#
# Prints each request and its answer. The queue is purged at the end. Stops with an error at the first answer that is one.
set -eu -o pipefail

url=${1:-http://127.0.0.1:8888}
queue=${2:-test_rest} # as it stands in a URL: percent-encoded, where its name has such characters

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

field() { # field NAME: what the last answer, which is JSON, says of it; for strings without quotes in them
    sed -n "s/.*\"$1\":\"\\([^\"]*\\)\".*/\\1/p" <<<"$answer"
}

# A message in, three ways: as a form's field, with the queue as a field too, and as any bytes.
request -d value=foobar "$url/q/$queue"
request -d "queue=$queue" --data-urlencode 'value=a + b & c' "$url/"
request -H 'Content-Type: application/octet-stream' --data-binary "@${BASH_SOURCE[0]}" "$url/q/$queue"

# JSON commands: "get" looks at the next message and leaves it there, "take" takes it out.
request -d 'body={"cmd": "get"}' "$url/queue/$queue"
request -H 'Content-Type: application/json' -d '{"cmd": "take"}' "$url/queue/$queue"

# Out: the next one; then the bytes themselves, which are this file.
request "$url/q/$queue"
curl --silent --show-error --fail -H 'Accept: application/octet-stream' "$url/q/$queue" | cmp - "${BASH_SOURCE[0]}"

# A message that is leased comes back, unless it is acked in time.
request -d value=dig "$url/q/$queue"
request "$url/q/$queue?lease=30"
key=$(field key)
key=$queue:${key##*:} # its queue as it stands in a URL
receipt=$(field receipt)
request -d "receipt=$receipt" -d lease=60 "$url/m/$key"
request -X DELETE "$url/m/$key?receipt=$receipt"

# Who gets what: each message to one listener in turn. And what is known of the queue.
request -d policy=roundrobin "$url/p/$queue"
request "$url/stats/$queue"
request -X DELETE "$url/q/$queue"
