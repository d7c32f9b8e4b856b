#!/usr/bin/env bash
# bash tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# On several nodes, run it on each with NNODES, NODE_RANK, MASTER_ADDR, PORT.
# Without a GPU, GPUS is the number of processes, which then talk through gloo.

CONFIG=${1:?CONFIG is missing: dist_train.sh CONFIG GPUS [arguments]}
GPUS=${2:?GPUS is missing: dist_train.sh CONFIG GPUS [arguments]}

exec bash "$(dirname "$0")/dist.sh" "$GPUS" train.py \
    "$CONFIG" --launcher pytorch "${@:3}"
