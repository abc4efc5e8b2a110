#!/usr/bin/env bash
# The speed suites that need a GPU, all five models. Options are passed on to `ferbench bench`.
. "$(dirname "$0")/setup.sh"
for suite in training inference growth; do
    timeout --signal=TERM $((LIMIT / 3)) python3 -m ferbench bench "$suite" --device cuda "$@" || echo "$suite: exit code $?"
done
tar czf "$OUT/bench.tar.gz" "$FERBENCH_RESULTS/bench"
ls -l "$OUT"
