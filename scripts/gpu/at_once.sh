#!/usr/bin/env bash
# Training images/s of N runs at once on one GPU, a model after the other: the line that `ferbench run --jobs-per-gpu N`
# ends with; N = 1 prints no such line, its images/s are those of the epochs. at_once.sh MODEL...
. "$(dirname "$0")/setup.sh"
results=$(mktemp -d)
for model in "$@"; do
    for n in 1 2 4 8; do
        timeout --signal=TERM $((LIMIT / 4 / $#)) python3 -m ferbench run --models "$model" --seeds "$(seq -s, 1 "$n")" \
            --set epochs=3 --jobs-per-gpu "$n" --device cuda --results "$results/$n" 2>&1 |
            grep -E 'images/s' | tail -n 2 | sed "s/^/$model, $n at once: /" || echo "$model, $n at once: not in time"
    done
done | tee "$OUT/at_once.txt"
