# Sourced by the scripts beside it: packages, paths, and `pack`. Not a command of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
OUT=${OUT:-$(mktemp -d)}
LIMIT=${LIMIT:-540} # seconds; the machine stops a command at 600, and packing needs some
mkdir -p "$OUT"
if compgen -G '.whl/*.whl' >/dev/null; then
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site .whl/*.whl
    export PYTHONPATH=/tmp/site${PYTHONPATH:+:$PYTHONPATH}
fi
# the machine has these files but an older commit's clone: what the records should name has come beside the data
if [ -d .data/commit.git ] && [ "$(git rev-parse HEAD 2>/dev/null)" != "$(git -C .data/commit.git rev-parse HEAD)" ]; then
    mkdir -p .git
    export GIT_DIR=$PWD/.data/commit.git GIT_WORK_TREE=$PWD
    git read-tree HEAD
fi
# MPS=1: kernels of several processes run side by side instead of in turns
if [ "${MPS:-0}" = 1 ]; then
    export CUDA_MPS_PIPE_DIRECTORY=/tmp/mps CUDA_MPS_LOG_DIRECTORY=/tmp/mps-log
    mkdir -p /tmp/mps /tmp/mps-log
    # it fails where the call before has left one
    nvidia-cuda-mps-control -d </dev/null >/tmp/mps-log/start 2>&1 || true
fi
export FERBENCH_DATA=${FERBENCH_DATA:-.data/fer2013.parquet} FERBENCH_RESULTS=${FERBENCH_RESULTS:-results}
export FERBENCH_CACHE=${FERBENCH_CACHE:-/tmp/ferbench-cache} FERBENCH_CONFIG=${FERBENCH_CONFIG:-/tmp/ferbench-config}

# Records, predictions, studies and facts of the data in one archive; weights and checkpoints stay behind.
pack() {
    mkdir -p "$FERBENCH_RESULTS"
    find "$FERBENCH_RESULTS" \( -path '*/runs/*' -o -path '*/data/*' -o -path '*/studies/*' \) \
        \( -name '*.json' -o -name '*.npz' -o -name '*.csv' -o -name 'journal.log' \) | sort >"$OUT/files.txt"
    tar czf "$OUT/runs.tar.gz" -T "$OUT/files.txt"
    rm "$OUT/files.txt"
    local size
    size=$(stat -c %s "$OUT/runs.tar.gz")
    echo "packed $(tar tzf "$OUT/runs.tar.gz" | grep -c record.json) runs, $size bytes: $OUT/runs.tar.gz"
    [ "$size" -lt 16000000 ] || { echo "over 16 MB: will not come back" >&2; return 1; }
}
