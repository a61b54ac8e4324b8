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
export HYDRA_BINDING=${HYDRA_BINDING:-core} # MPICH; Open MPI binds by itself

exec mpilayer attend --mark finetune --requeues 5 "$run" -- \
    mpiexec -n "$SLURM_NTASKS" mpilayer finetune "$run" --data "$data" --resume auto \
        --threads "$SLURM_CPUS_PER_TASK" --epochs 15 --minibatch 100 "$@"
