#!/usr/bin/env bash
# bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
# On several nodes, run it on each with NNODES, NODE_RANK, MASTER_ADDR, PORT.
# Without a GPU, GPUS is the number of processes, which then talk through gloo.

USAGE='dist_test.sh CONFIG CHECKPOINT GPUS [arguments]'
CONFIG=${1:?CONFIG is missing: $USAGE}
CHECKPOINT=${2:?CHECKPOINT is missing: $USAGE}
GPUS=${3:?GPUS is missing: $USAGE}
NNODES=${NNODES:-1}
NODE_RANK=${NODE_RANK:-0}
PORT=${PORT:-29500}
MASTER_ADDR=${MASTER_ADDR:-"127.0.0.1"}
ROOT=$(cd "$(dirname "$0")/.." && pwd)

PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" \
torchrun \
    --nnodes="$NNODES" \
    --node_rank="$NODE_RANK" \
    --master_addr="$MASTER_ADDR" \
    --nproc_per_node="$GPUS" \
    --master_port="$PORT" \
    "$ROOT/tools/test.py" \
    "$CONFIG" \
    "$CHECKPOINT" \
    --launcher pytorch "${@:4}"
