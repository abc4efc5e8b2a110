#!/usr/bin/env bash
# The tests that need a GPU; those that do not are CI's.
. "$(dirname "$0")/setup.sh"
timeout "$LIMIT" python3 -m pytest tests/test_gpu.py -q "$@" 2>&1 | tee "$OUT/tests.log"
