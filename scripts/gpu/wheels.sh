#!/usr/bin/env bash
# Fill .whl/ with the packages that the GPU machine (Python 3.12, x86-64) lacks. Run it here, where pip works.
set -euo pipefail
cd "$(dirname "$0")/../.."
platforms=$(for n in 28 27 17; do printf -- '--platform manylinux_2_%s_x86_64 ' "$n"; done)
core=$(python3 -m pip download --no-deps -q -d .whl pydantic && unzip -p .whl/pydantic-*.whl '*/METADATA' |
    sed -n 's/^Requires-Dist: pydantic-core==\([0-9.]*\).*/\1/p')
# shellcheck disable=SC2086 -- the platforms are separate words
python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp $platforms \
    --platform manylinux2014_x86_64 -d .whl pydantic-core=="$core" annotated-types optuna colorlog
ls -l .whl
