#!/usr/bin/env bash
# What mmdetection/mim_dist_train.sh and mmsegmentation/mim_dist_train.sh share.

LIBRARY=$1
USAGE='mim_dist_train.sh CONFIG BACKBONE GPUS [arguments]'
CONFIG=${2:?CONFIG is missing: $USAGE}
BACKBONE=${3:?BACKBONE is missing: $USAGE}
GPUS=${4:?GPUS is missing: $USAGE}
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
LAUNCHER=pytorch
[ "$GPUS" != 0 ] || LAUNCHER=none

set -x

PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" \
mim train "$LIBRARY" "$CONFIG" \
    --launcher "$LAUNCHER" --gpus "$GPUS" \
    --cfg-options model.backbone.init_cfg.type=Pretrained \
    model.backbone.init_cfg.checkpoint="$BACKBONE" \
    model.backbone.init_cfg.prefix=backbone. \
    "${@:5}"
