#!/usr/bin/env bash
# Seconds to an accuracy on val: accuracy.sh RECIPE TARGET. Further options are passed on to `ferbench bench accuracy`.
. "$(dirname "$0")/setup.sh"
recipe=$1 target=$2
shift 2
mkdir -p "$FERBENCH_RESULTS/bench"
# the first start reads the data set into the cache
python3 -m ferbench data info >/dev/null
timeout --signal=TERM "$LIMIT" python3 -m ferbench bench accuracy --device cuda --models "$recipe" --target "$target" --seeds 0,1,2 "$@" ||
    echo "exit code $?"
tar czf "$OUT/bench.tar.gz" "$FERBENCH_RESULTS/bench"
