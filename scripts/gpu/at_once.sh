#!/usr/bin/env bash
# Training images/s of N runs at once on one GPU, for each model: the line that `ferbench run --jobs-per-gpu N` ends with.
. "$(dirname "$0")/setup.sh"
for model in plain_cnn resnet18 vgg16 efficientnet_b2 efficientnet_v2_s; do
    for n in 1 2 4 8; do
        # N = 1 prints no such line: its images/s are those of the epochs
        timeout --signal=TERM $((LIMIT / 20)) python3 -m ferbench run --models "$model" --seeds "$(seq -s, 1 "$n")" \
            --set epochs=3 --jobs-per-gpu "$n" --device cuda --results "/tmp/at-once/$n" 2>&1 |
            grep -E 'images/s' | tail -n 2 | sed "s/^/$model, $n at once: /" || true
    done
done | tee "$OUT/at_once.txt"
