#!/usr/bin/env bash
# What mmdetection/mim_slurm_train.sh and mmsegmentation/mim_slurm_train.sh
# share.

LIBRARY=$1
USAGE='mim_slurm_train.sh PARTITION CONFIG BACKBONE [arguments]'
PARTITION=${2:?PARTITION is missing: $USAGE}
CONFIG=${3:?CONFIG is missing: $USAGE}
BACKBONE=${4:?BACKBONE is missing: $USAGE}
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
CPUS_PER_TASK=${CPUS_PER_TASK:-5}
SRUN_ARGS=${SRUN_ARGS:-""}
ROOT=$(cd "$(dirname "$0")/../.." && pwd)

set -x

PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" \
mim train "$LIBRARY" "$CONFIG" \
    --launcher slurm --gpus "$GPUS" \
    --gpus-per-node "$GPUS_PER_NODE" \
    --cpus-per-task "$CPUS_PER_TASK" \
    --partition "$PARTITION" \
    --srun-args "$SRUN_ARGS" \
    --cfg-options model.backbone.init_cfg.type=Pretrained \
    model.backbone.init_cfg.checkpoint="$BACKBONE" \
    model.backbone.init_cfg.prefix=backbone. \
    "${@:5}"
