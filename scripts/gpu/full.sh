#!/usr/bin/env bash
# All five models at full budget, three seeds. Stops before the limit and goes on at the next call. Options are passed on
# to `ferbench run` and win over these, so a rehearsal is: scripts/gpu/full.sh --data synthetic --budget demo --seeds 0
. "$(dirname "$0")/setup.sh"
code=0
timeout --signal=TERM "$LIMIT" python3 -m ferbench run --models all --budget full --seeds 0,1,2 "$@" || code=$?
pack
case $code in
0) echo complete ;;
124 | 143) echo "stopped at the limit: call again" ;;
*) exit "$code" ;;
esac
