#!/usr/bin/env bash
# One of the speed suites, all five models: bench.sh training|parts|inference|growth. Options are passed on to `ferbench bench`.
. "$(dirname "$0")/setup.sh"
mkdir -p "$FERBENCH_RESULTS/bench"
timeout --signal=TERM "$LIMIT" python3 -m ferbench bench "${1:?training, parts, inference or growth}" --device cuda "${@:2}" ||
    echo "exit code $?"
tar czf "$OUT/bench.tar.gz" "$FERBENCH_RESULTS/bench"
