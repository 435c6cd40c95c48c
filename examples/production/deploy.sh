#!/bin/sh
# A rolling restart: each process drains, ends, and is ready again before the next one's turn comes.
# deploy.sh 8001 8002
set -eu
for port in "$@"; do
    systemctl restart "consumers@$port"
    curl --silent --show-error --fail --output /dev/null --max-time 2 \
        --retry 60 --retry-delay 1 --retry-all-errors "http://127.0.0.1:$port/ready"
done
