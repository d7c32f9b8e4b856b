#!/usr/bin/env bash
# GPUS_PER_NODE=8 GPUS=16 bash tools/slurm_train.sh PARTITION JOB CONFIG \
#     [arguments of tools/train.py]
# SRUN_ARGS holds further arguments of srun, CPUS_PER_TASK the cores of each.

USAGE='slurm_train.sh PARTITION JOB CONFIG [arguments]'
PARTITION=${1:?PARTITION is missing: $USAGE}
JOB=${2:?JOB is missing: $USAGE}
CONFIG=${3:?CONFIG is missing: $USAGE}

exec bash "$(dirname "$0")/slurm.sh" "$PARTITION" "$JOB" train.py \
    "$CONFIG" --launcher slurm "${@:4}"
