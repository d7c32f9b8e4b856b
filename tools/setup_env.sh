# Copyright (c) greenmim authors. All rights reserved.
# The Python environment of the commands that set themselves up.
#
#     source tools/setup_env.sh
#     use_environment runtime|test|lint
#
# An environment that is active and has everything that the level needs is
# used as it is; otherwise one is made in `.venv` of the checkout. Nothing is
# installed anywhere else. Afterwards `python`, `mim` and this checkout's greenmim
# come from that environment. If the calling shell has not activated it,
# GREENMIM_ACTIVATE is the line that does.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
LEVELS='runtime test lint' # each one includes those before it

say() { echo "[greenmim] $*" >&2; }
die() {
    say "$*"
    exit 1
}

# level_extras LEVEL: the extras of setup.cfg that a level needs.
level_extras() {
    case $1 in
    runtime) ;;
    test) echo mmselfsup test ;;
    lint) echo mmselfsup test lint docs ;;
    *) die "unknown level '$1'; expected one of: $LEVELS" ;;
    esac
}

# find_python: print an interpreter that can make an environment.
find_python() {
    local name found=
    for name in python3 python python3.13 python3.12 python3.11 python3.10 python3.9; do
        "$name" -c '' 2>/dev/null || continue
        if ! "$name" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info < (3, 14))'; then
            found+=" $("$name" -V 2>&1);"
        elif ! "$name" -c 'import ensurepip, venv' 2>/dev/null; then
            found+=" $("$name" -V) without venv (Debian, Ubuntu: apt install python3-venv);"
        else
            echo "$name"
            return
        fi
    done
    die "Python 3.9 to 3.13 with its venv module is needed. Found:${found:- no Python.}"
}

# pip_install ARGUMENTS: install into .venv and print the large downloads.
pip_install() {
    local log=$VENV/install.log
    if ! (
        set -o pipefail
        "$VENV/bin/python" -m pip install --disable-pip-version-check --progress-bar off "$@" 2>&1 |
            tee -a "$log" | sed -n -u 's/^ *\(Downloading .*[0-9] [MG]B)\).*/    \1/p' >&2
    ); then
        tail -n 15 "$log" >&2
        die "pip failed, see above and $log (is there a network?). The same command resumes here."
    fi
}

# find_problems PYTHON EXTRAS: print what an environment lacks; it fails then.
find_problems() {
    local report
    # shellcheck disable=SC2086
    report=$("$1" -m greenmim $2 2>&1) && return
    grep -A1 -F '[!!]' <<<"$report" || tail -n 3 <<<"$report"
    return 1
}

# use_headless_opencv: mmengine requires the desktop build of OpenCV, which
# loads libGL.
use_headless_opencv() {
    ! "$VENV/bin/python" -c 'import cv2' 2>/dev/null || return 0
    say 'no libGL here, taking the headless build of OpenCV'
    "$VENV/bin/python" -m pip uninstall -q -y opencv-python
    pip_install --no-deps --force-reinstall opencv-python-headless
}

# build_venv LEVEL: make .venv, or complete one that was interrupted.
build_venv() {
    local extras python problems pinned
    extras=$(level_extras "$1") || exit 1
    if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        python=$(find_python) || exit 1
        say "making $VENV with $("$python" -V)"
        rm -rf "$VENV" # an unfinished one
        "$python" -m venv "$VENV" || die "'$python -m venv $VENV' failed"
    fi
    say "installing into $VENV (at first 3 GB of downloads, 5 GB on the disk, some minutes)"
    pinned=(-c "$ROOT/requirements/constraints.txt")
    pip_install 'pip>=21.3' # the first with editable installs of setup.cfg
    pip_install "${pinned[@]}" torch torchvision
    pip_install "${pinned[@]}" -e "$ROOT[openmmlab${extras:+,${extras// /,}}]"
    use_headless_opencv
    problems=$(find_problems "$VENV/bin/python" "$extras") || die "$VENV does not work: $problems"
}

# use_own_environment LEVEL: use .venv, brought up to date.
use_own_environment() {
    local key level
    key=$( (cat "$ROOT/setup.cfg" "$ROOT"/requirements/*.txt && echo "$ROOT") | cksum)
    # Two commands that start together must not install at the same time.
    if command -v flock >/dev/null; then
        exec 9<"$ROOT"
        flock -n 9 || say 'waiting for another command that uses pip here'
        flock 9
    fi
    if [ "$(cat "$VENV/$1.stamp" 2>/dev/null)" != "$key" ]; then
        build_venv "$1"
        for level in $LEVELS; do
            echo "$key" >"$VENV/$level.stamp"
            [ "$level" != "$1" ] || break
        done
    fi
    exec 9<&-
    [ "${VIRTUAL_ENV:-}" = "$VENV" ] ||
        export GREENMIM_ACTIVATE="source $(printf %q "$VENV")/bin/activate"
    export VIRTUAL_ENV=$VENV PATH=$VENV/bin:$PATH
    unset PYTHONHOME
    say "using $VENV"
}

# use_environment LEVEL
use_environment() {
    local extras problems active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
    extras=$(level_extras "$1") || exit 1
    export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
    if [ -n "$active" ] && [ "$active" != "$VENV" ]; then
        if problems=$(find_problems python "$extras"); then
            say "using the active environment $active"
            return
        fi
        say "the active environment $active is not complete:"
        sed 's/^/    /' <<<"$problems" >&2
    fi
    use_own_environment "$1"
}
