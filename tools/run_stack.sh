#!/usr/bin/env bash
# Copyright (c) greenmim authors. All rights reserved.
# Test a core of what the project does on other versions of its libraries:
#
#     bash tools/run_stack.sh NAME [PYTEST_ARGUMENTS]
#
# The names are in requirements/stacks.txt. The environment is `.venv-NAME`;
# delete it to install anew. What passed, on which versions and in what time (by
# the clock, and of all processors) is written to benchmarks/stacks/NAME.json and
# into the table of docs/stacks.md.
#
# PYTHON is the interpreter, by default the one that the table names. A wheel
# of mmcv with compiled operators, GREENMIM_MMCV_WHEEL, adds detection and
# segmentation.
set -uo pipefail

usage() { sed -n '3,15s/^#[[:space:]]\{0,1\}//p' "${BASH_SOURCE[0]}"; }

case ${1:-} in
'' | -h | --help)
    usage
    exit
    ;;
esac
NAME=$1
shift
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
TABLE=$ROOT/requirements/stacks.txt
read -r _ VERSION CONSTRAINTS FAMILY <<<"$(grep "^$NAME " "$TABLE")"
[ -n "$FAMILY" ] || die "expected a stack of $TABLE, got '$NAME': $(sed -n 's/^\([a-z][^ ]*\) .*/\1/p' "$TABLE" | xargs)"
VENV=$ROOT/.venv-$NAME

# Exactness, a whole run with everything that follows it, resuming, export and
# import, launchers, a detector and a segmentor (skipped without operators).
CORE=(
    tests/test_models/test_backbones/test_exactness.py::test_equals_twin_in_float64
    tests/test_golden.py
    tests/test_get_started_page.py::test_from_top_to_bottom
    tests/test_apis/test_pretraining.py::test_a_run_is_resumed
    tests/test_engine/test_resumption.py::test_killed_five_times
    tests/test_tools/test_export_backbone.py
    tests/test_tools/test_import_checkpoint.py
    tests/test_tools/test_launchers.py
    tests/test_detection_and_segmentation.py::test_every_tensor_is_used
)

build_stack() {
    local extras=$FAMILY packages=() python=${PYTHON:-python$VERSION}
    "$python" -c 'import ensurepip, venv' ||
        die "stack '$NAME' needs Python $VERSION with its venv module; PYTHON may name the interpreter"
    say "making $VENV with $("$python" -V)"
    rm -rf "$VENV"
    "$python" -m venv "$VENV" || die "'$python -m venv $VENV' failed"
    pip_install 'pip>=21.3'
    [ "$CONSTRAINTS" = - ] || packages+=(-c "$ROOT/requirements/$CONSTRAINTS")
    if [ -n "${GREENMIM_MMCV_WHEEL:-}" ]; then
        case $FAMILY in openmmlab) extras=downstream ;; onedl) extras=onedl-downstream ;; esac
        packages+=("$GREENMIM_MMCV_WHEEL")
    fi
    pip_install "${packages[@]}" -e "$ROOT[$extras,test]"
    use_headless_opencv
    echo "$SECONDS" >"$VENV/complete.stamp"
}

[ -f "$VENV/complete.stamp" ] || build_stack
export VIRTUAL_ENV=$VENV PATH=$VENV/bin:$PATH PYTHONPATH=$ROOT
unset PYTHONHOME
PROBLEMS=$(find_problems python '') || die "$VENV does not work: $PROBLEMS"

SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT
REPORT=$SCRATCH/report.xml

# cpu_seconds: set CPU to the processor time of all that was started so far.
cpu_seconds() {
    times >"$SCRATCH/times" # not in a subshell, which has times of its own
    CPU=$(awk -F '[ms ]+' 'NR == 2 { print int(60 * ($1 + $3) + $2 + $4) }' "$SCRATCH/times")
}

cpu_seconds
BEFORE=$CPU SECONDS=0
cd "$ROOT"
python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile -rs -m 'not slow' \
    "${CORE[@]}" "$@" --junitxml "$REPORT"
CODE=$?
TOOK=$SECONDS
cpu_seconds
[ -s "$REPORT" ] && python tools/misc/record_stack.py "$NAME" "$REPORT" --seconds "$TOOK" \
    --cpu-seconds $((CPU - BEFORE)) --installing "$(cat "$VENV/complete.stamp")"
exit "$CODE"
