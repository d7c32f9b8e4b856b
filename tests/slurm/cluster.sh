#!/usr/bin/env bash
# Copyright (c) greenmim authors. All rights reserved.
# A real Slurm of one node, this one, in a folder of its own:
#
#     bash tests/slurm/cluster.sh start FOLDER
#     export SLURM_CONF=FOLDER/slurm.conf   # then srun, sbatch, scontrol
#     bash tests/slurm/cluster.sh stop FOLDER
#
# For the superuser, with Debian's packages `slurm-wlm` and `munge`; nothing
# is installed, and nothing outside the folder is read or written. The path of
# the folder has to be short (sockets) and open to all (munge). The node has
# four processors, whatever the machine has, and two GPUs that are /dev/null.
# Jobs of the partition `urgent` preempt those of `P`, which are requeued.
set -euo pipefail

USAGE='cluster.sh start|stop FOLDER'
COMMAND=${1:?$USAGE}
FOLDER=$(realpath "${2:?FOLDER is missing: $USAGE}")
HOST=$(hostname -s)
DAEMONS='slurmd slurmctld munged' # in the order in which they are stopped

# free_ports NUMBER: print ports that nothing listens on.
free_ports() {
    python3 - "$1" <<'END'
import socket
import sys

listeners = [socket.create_server(('', 0)) for _ in range(int(sys.argv[1]))]
print(*[listener.getsockname()[1] for listener in listeners])
END
}

# wait_for SECONDS COMMAND: until the command succeeds.
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

write_configs() {
    local controller_port node_port
    read -r controller_port node_port <<<"$(free_ports 2)"
    mkdir -p "$FOLDER"/{state,spool}
    mknod "$FOLDER/gpu0" c 1 3
    mknod "$FOLDER/gpu1" c 1 3
    (umask 077 && head -c 128 /dev/urandom >"$FOLDER/munge.key")
    cat >"$FOLDER/gres.conf" <<END
NodeName=localhost Name=gpu File=$FOLDER/gpu[0-1]
END
    cat >"$FOLDER/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$controller_port
SlurmdPort=$node_port
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$FOLDER/munge.socket
StateSaveLocation=$FOLDER/state
SlurmdSpoolDir=$FOLDER/spool
SlurmctldPidFile=$FOLDER/slurmctld.pid
SlurmdPidFile=$FOLDER/slurmd.pid
SlurmctldLogFile=$FOLDER/slurmctld.log
SlurmdLogFile=$FOLDER/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
JobRequeue=1
KillWait=20
ReturnToService=2
NodeName=localhost NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$node_port CPUs=4 Gres=gpu:2
PartitionName=P Nodes=localhost Default=YES PriorityTier=1
PartitionName=urgent Nodes=localhost PriorityTier=2
END
}

start() {
    write_configs
    export SLURM_CONF=$FOLDER/slurm.conf
    # It warns of running as the superuser, and does not mind.
    munged --socket="$FOLDER/munge.socket" --key-file="$FOLDER/munge.key" \
        --pid-file="$FOLDER/munged.pid" --seed-file="$FOLDER/munged.seed" \
        --log-file="$FOLDER/munged.log" --num-threads=1
    slurmctld -c
    slurmd
    # One or two seconds; minutes where many processes share few cores.
    if ! wait_for 240 idle; then
        tail -n 20 "$FOLDER"/*.log >&2
        echo 'the node is not idle after 240 s, see the logs above' >&2
        exit 1
    fi
}

idle() { [ "$(sinfo -h -p P -o %t)" = idle ]; }

gone() { ! kill -0 "$1"; }

stop() {
    local daemon pid
    export SLURM_CONF=$FOLDER/slurm.conf
    scancel --full --signal=KILL --user=root || true
    wait_for 10 idle || true
    for daemon in $DAEMONS; do
        pid=$(cat "$FOLDER/$daemon.pid" 2>/dev/null) || continue
        kill "$pid" || continue
        wait_for 10 gone "$pid" || kill -KILL "$pid"
    done
}

case $COMMAND in
start) start ;;
stop) stop ;;
*)
    echo "$USAGE" >&2
    exit 2
    ;;
esac
