#!/bin/bash
# mpilayer job finetune data/mnist-sample.h5 --run runs/async --ntasks 4 --epochs 15 \
#     --minibatch 100 \
#     --environment 'source .venv/bin/activate
# # When jobs/async.sh has ended: sbatch --dependency=afterok:JOB jobs/finetune.sh' \
#     -o jobs/finetune.sh
#SBATCH --job-name=finetune-async
#SBATCH --nodes=1
#SBATCH --ntasks=4
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
# If your cluster asks for it: fill in, and take one # away.
##SBATCH --partition=NAME
##SBATCH --account=NAME
##SBATCH --mem=8G

# shellcheck disable=SC1091,SC2016
source .venv/bin/activate
# When jobs/async.sh has ended: sbatch --dependency=afterok:JOB jobs/finetune.sh

set -u
data=data/mnist-sample.h5
run=runs/async
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
export OPENBLAS_NUM_THREADS=$OMP_NUM_THREADS MKL_NUM_THREADS=$OMP_NUM_THREADS
export BLIS_NUM_THREADS=$OMP_NUM_THREADS
export HYDRA_BINDING=${HYDRA_BINDING:-core} # MPICH; Open MPI binds by itself

say() { echo "job $SLURM_JOB_ID, $(date '+%F %T'): $*" >&2; }

# SLURM tells this shell alone that time runs short (USR1) or that the job must end
# (TERM). Both go to the ranks as USR1: save, and end.
child='' heard=''
hear() {
    heard+=" $1"
    say "received $1"
    [ -z "$child" ] || kill -USR1 "$child" 2>/dev/null
}
trap 'hear USR1' USR1
trap 'hear TERM' TERM

# Run a command to its end. 'wait' returns early for a trap: then wait again.
attend() {
    local before status
    [ -z "$heard" ] || return 75
    "$@" &
    child=$!
    until
        before=$heard
        wait "$child"
        status=$?
        [ "$heard" = "$before" ]
    do :; done
    child=''
    return "$status"
}

# A command that has come to its end leaves a mark in the run directory.
marked() { grep -qsx "$1" "$2/complete"; }

# End the job unless the mark is there: exit status 0 alone is no proof of success.
# 75 asks for another start, which goes on where this one has saved.
conclude() {
    local status=$1 starts=${SLURM_RESTART_COUNT:-0} most=5
    ! marked "$2" "$3" || return 0
    case "$status:$heard" in
    *TERM*) say "$2 was told to end: exit status $status" ;;
    75:*)
        if [ "$starts" -ge "$most" ]; then
            say "$2 has saved, but not ended in $starts requeues; submit it to go on"
            exit 75
        fi
        trap '' USR1 TERM
        say "$2 has saved; requeue $((starts + 1)) of $most"
        scontrol requeue "$SLURM_JOB_ID" || say "not requeued; submit it to go on"
        ;;
    *) say "$2 has failed: exit status $status, and no mark of its end in $3" ;;
    esac
    exit "$((status ? status : 1))"
}

attend mpiexec -n "$SLURM_NTASKS" mpilayer finetune "$run" --data "$data" \
    --resume auto --threads "$OMP_NUM_THREADS" --epochs 15 --minibatch 100 "$@"

conclude "$?" finetune "$run"
