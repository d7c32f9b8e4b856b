#!/usr/bin/env bash
# bash tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# On several nodes, run it on each with NNODES, NODE_RANK, MASTER_ADDR, PORT.
# Without a GPU, GPUS is the number of processes, which then talk through gloo.

CONFIG=${1:?CONFIG is missing: dist_train.sh CONFIG GPUS [arguments]}
GPUS=${2:?GPUS is missing: dist_train.sh CONFIG GPUS [arguments]}
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
    "$ROOT/tools/train.py" \
    "$CONFIG" \
    --launcher pytorch "${@:3}"
