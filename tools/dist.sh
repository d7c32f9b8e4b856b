#!/usr/bin/env bash
# What dist_train.sh and dist_test.sh share: GPUS TOOL [arguments of the tool].

ROOT=$(cd "$(dirname "$0")/.." && pwd)

# On one machine torchrun finds a free port, so that two jobs do not meet.
NODES=(--standalone)
if [ "${NNODES:-1}" != 1 ] || [ -n "${PORT:-}" ]; then
    NODES=(--nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}"
        --master_addr="${MASTER_ADDR:-127.0.0.1}"
        --master_port="${PORT:-29500}")
fi

PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" \
torchrun "${NODES[@]}" --nproc_per_node="$1" "$ROOT/tools/$2" "${@:3}"
