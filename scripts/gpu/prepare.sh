#!/usr/bin/env bash
# Fill .whl/ with the packages that the GPU machine (Python 3.12, x86-64) lacks, and .data/ with FER2013 (the path given)
# and what names the commit of the records. Run it here, where pip works and the clone is, when all is committed.
set -euo pipefail
[ $# -eq 0 ] || data=$(realpath "$1")
cd "$(dirname "$0")/../.."
rm -rf .whl
platforms=$(for n in 28 27 17; do printf -- '--platform manylinux_2_%s_x86_64 ' "$n"; done)
core=$(python3 -m pip download --no-deps -q -d .whl pydantic && unzip -p .whl/pydantic-*.whl '*/METADATA' |
    sed -n 's/^Requires-Dist: pydantic-core==\([0-9.]*\).*/\1/p')
# shellcheck disable=SC2086 -- the platforms are separate words
python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp $platforms \
    --platform manylinux2014_x86_64 -d .whl pydantic-core=="$core" annotated-types typing-inspection \
    optuna colorlog tomlkit platformdirs
mkdir -p .data
[ $# -eq 0 ] || cp "$data" .data/
# the last commit and the names of its files, without what is in them
rm -rf .data/commit.git
printf '[uploadpack]\nallowFilter = true\n' >.data/git.config
GIT_CONFIG_GLOBAL=$PWD/.data/git.config git clone -q --bare --depth 1 --filter=blob:none "file://$PWD" .data/commit.git
git -C .data/commit.git config core.bare false
ls -l .whl .data
