#!/usr/bin/env bash
# Copyright (c) greenmim authors. All rights reserved.
# Run every test:
#
#     bash tools/run_tests.sh [--slow] [PYTEST_ARGUMENTS]
#
# Tests marked `slow`, which seldom find what no other test finds, run with
# --slow alone.
#
# MMSelfSup refuses the mmcv that MMDetection and MMSegmentation need, so the
# tests run in two environments: all of them in the main one (see
# setup_env.sh), where those marked `downstream` skip, then these in
# `.venv-downstream`. That one needs a wheel of mmcv 2.1 with compiled
# operators: GREENMIM_MMCV_WHEEL, or one in the folder shared/wheels beside
# the checkout. Without a wheel the second part is left out (with CI=true
# that is a failure).
set -uo pipefail

case ${1:-} in
-h | --help)
    sed -n '3,16s/^#[[:space:]]\{0,1\}//p' "${BASH_SOURCE[0]}"
    exit
    ;;
esac

# The markers of the tests to run; a later -m replaces it.
MARKERS='not slow'
if [ "${1:-}" = --slow ]; then
    MARKERS=''
    shift
fi

source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
DOWNSTREAM=$ROOT/.venv-downstream

# find_mmcv_wheel: print the wheel for this Python, or nothing.
find_mmcv_wheel() {
    local tag
    if [ -n "${GREENMIM_MMCV_WHEEL:-}" ]; then
        echo "$GREENMIM_MMCV_WHEEL"
        return
    fi
    tag=$(python -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
    ls "$ROOT"/../shared/wheels/mmcv-2.1.*-"$tag"-"$tag"-*.whl 2>/dev/null | head -n 1
}

# build_downstream WHEEL: make .venv-downstream. It sees the packages of the
# main environment after its own, so that PyTorch is not installed twice and
# its mmcv hides mmcv-lite. MMDetection imports MMPretrain's models of images
# and text where pycocotools is installed, and those fail with transformers
# >= 4.56.
build_downstream() {
    local key main site
    main=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    key=$( (cat "$ROOT/setup.cfg" "$ROOT"/requirements/*.txt && echo "$1 $main $ROOT") | cksum)
    [ "$(cat "$DOWNSTREAM/complete.stamp" 2>/dev/null)" != "$key" ] || return 0
    say "making $DOWNSTREAM with $(basename "$1")"
    rm -rf "$DOWNSTREAM"
    python -m venv "$DOWNSTREAM" || return 1
    site=$("$DOWNSTREAM/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "import site; site.addsitedir('$main')" >"$site/main_environment.pth"
    "$DOWNSTREAM/bin/python" -m pip install -q --disable-pip-version-check \
        -c "$ROOT/requirements/constraints.txt" "$1" -e "$ROOT[downstream]" 'transformers<4.52' || return 1
    echo "$key" >"$DOWNSTREAM/complete.stamp"
}

# run_pytest NAME ARGUMENTS: run pytest of the environment that is active.
run_pytest() {
    local name=$1
    shift
    say "tests in the $name environment, $(command -v python)"
    (cd "$ROOT" && python -m pytest "${WORKERS[@]}" -rs --durations=10 "$@" --junitxml "$RESULTS/$name.xml") \
        2>&1 | tee "$RESULTS/$name.log"
    CODES+=("${PIPESTATUS[0]}")
}

RESULTS=$(mktemp -d)
trap 'rm -rf "$RESULTS"' EXIT
trap 'exit 130' INT
CODES=()
FAILED=0
# Tests compute on one thread. A file's share fixtures, so files stay whole;
# each process of theirs takes about 2 GB.
WORKERS=(--numprocesses auto --maxprocesses 4 --dist loadfile)

use_environment test
run_pytest main -m "$MARKERS" "$@"

WHEEL=$(find_mmcv_wheel)
if [ -n "$WHEEL" ]; then
    if build_downstream "$WHEEL"; then
        export VIRTUAL_ENV=$DOWNSTREAM PATH=$DOWNSTREAM/bin:$PATH GREENMIM_DOWNSTREAM=1
        run_pytest downstream "$@" -m "downstream${MARKERS:+ and $MARKERS}"
    else
        say "could not make $DOWNSTREAM, see above"
        FAILED=1
    fi
else
    say 'left out the tests marked downstream: no wheel of mmcv 2.1 for this Python' \
        '(set GREENMIM_MMCV_WHEEL to one)'
    case ${CI:-} in 1 | true) FAILED=1 ;; esac
fi

python "$ROOT/tools/misc/summarise_tests.py" "$RESULTS"/*.xml
for name in main downstream; do
    [ ! -f "$RESULTS/$name.log" ] || echo "$name: $(tail -n 1 "$RESULTS/$name.log")"
done
echo "all: $SECONDS s, making the environments included"
# pytest answers 5 where its arguments select nothing: fine in one of the two
# environments, not in all of them.
selected=0
for code in "${CODES[@]}"; do
    case $code in 0) selected=1 ;; 5) ;; *) FAILED=1 ;; esac
done
[ "$FAILED" -eq 0 ] && [ "$selected" -eq 1 ]
