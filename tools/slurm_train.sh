#!/usr/bin/env bash
# GPUS_PER_NODE=8 GPUS=16 bash tools/slurm_train.sh PARTITION JOB CONFIG \
#     [arguments of tools/train.py]
# SRUN_ARGS holds further arguments of srun, CPUS_PER_TASK the cores of each.

USAGE='slurm_train.sh PARTITION JOB CONFIG [arguments]'
PARTITION=${1:?PARTITION is missing: $USAGE}
JOB_NAME=${2:?JOB is missing: $USAGE}
CONFIG=${3:?CONFIG is missing: $USAGE}
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
CPUS_PER_TASK=${CPUS_PER_TASK:-5}
SRUN_ARGS=${SRUN_ARGS:-""}
ROOT=$(cd "$(dirname "$0")/.." && pwd)

set -x

# SRUN_ARGS is several words.
# shellcheck disable=SC2086
PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" \
srun -p "$PARTITION" \
    --job-name="$JOB_NAME" \
    --gres=gpu:"$GPUS_PER_NODE" \
    --ntasks="$GPUS" \
    --ntasks-per-node="$GPUS_PER_NODE" \
    --cpus-per-task="$CPUS_PER_TASK" \
    --kill-on-bad-exit=1 \
    $SRUN_ARGS \
    python -u "$ROOT/tools/train.py" "$CONFIG" --launcher slurm "${@:4}"
