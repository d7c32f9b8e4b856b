#!/usr/bin/env bash
# bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
# On several nodes, run it on each with NNODES, NODE_RANK, MASTER_ADDR, PORT.
# Without a GPU, GPUS is the number of processes, which then talk through gloo.

USAGE='dist_test.sh CONFIG CHECKPOINT GPUS [arguments]'
CONFIG=${1:?CONFIG is missing: $USAGE}
CHECKPOINT=${2:?CHECKPOINT is missing: $USAGE}
GPUS=${3:?GPUS is missing: $USAGE}

exec bash "$(dirname "$0")/dist.sh" "$GPUS" test.py \
    "$CONFIG" "$CHECKPOINT" --launcher pytorch "${@:4}"
