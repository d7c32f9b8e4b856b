#!/usr/bin/env bash
# A batch job of Slurm that runs until the training is done, however often
# it is interrupted. From the checkout, with what differs from the lines below:
#
#     sbatch --partition=PARTITION --nodes=2 tools/slurm_job.sh CONFIG \
#         [arguments of tools/train.py]
#
# SIGUSR1 comes two minutes before the time is over, SIGTERM when a job of
# higher priority or the administrator takes the nodes. Either way the run is
# saved, the job goes back into the queue and resumes when it is its turn.
#SBATCH --job-name=greenmim
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gres=gpu:8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append

CONFIG=${1:?CONFIG is missing: sbatch tools/slurm_job.sh CONFIG [arguments]}

# Since Slurm 22.05 srun does not take the cores from sbatch.
PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" \
srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    python -u tools/train.py "$CONFIG" --resume --launcher slurm "${@:2}"
CODE=$?

# The exit code of a run that was saved upon a signal. One that failed, or was
# lost, stays where it is: the next attempt could fail alike.
if [ "$CODE" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$CODE"
