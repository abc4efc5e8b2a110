#!/usr/bin/env bash
# A study of each of the five models, 30 short trials each. Stops before the limit and goes on at the next call. Options are
# passed on to `ferbench tune` and win over these.
. "$(dirname "$0")/setup.sh"
code=0
timeout --signal=TERM "$LIMIT" python3 -m ferbench tune --models all --trials 30 --budget short --workers 8 "$@" || code=$?
pack
case $code in
0) echo complete ;;
124 | 143) echo "stopped at the limit: call again" ;;
*) exit "$code" ;;
esac
