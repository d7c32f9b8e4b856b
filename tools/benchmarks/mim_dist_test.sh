#!/usr/bin/env bash
# What mmdetection/mim_dist_test.sh and mmsegmentation/mim_dist_test.sh share.

LIBRARY=$1
USAGE='mim_dist_test.sh CONFIG CHECKPOINT GPUS [arguments]'
CONFIG=${2:?CONFIG is missing: $USAGE}
CHECKPOINT=${3:?CHECKPOINT is missing: $USAGE}
GPUS=${4:?GPUS is missing: $USAGE}
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
LAUNCHER=pytorch
[ "$GPUS" != 0 ] || LAUNCHER=none

set -x

PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" \
mim test "$LIBRARY" "$CONFIG" \
    --checkpoint "$CHECKPOINT" \
    --launcher "$LAUNCHER" --gpus "$GPUS" \
    "${@:5}"
