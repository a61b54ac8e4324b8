#!/bin/bash
# mpilayer job pretrain data/mnist-sample.h5 --run runs/async --ntasks 4 \
#     --schedule async --code linear --minibatch 50 --learning-rate 0.1,0.1,0.1,0.005 \
#     --environment 'source .venv/bin/activate' -o jobs/async.sh
#SBATCH --job-name=pretrain-async
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

set -u
data=data/mnist-sample.h5
run=runs/async
export HYDRA_BINDING=${HYDRA_BINDING:-core} # MPICH; Open MPI binds by itself

exec mpilayer attend --mark pretrain --requeues 5 "$run" -- \
    mpiexec -n "$SLURM_NTASKS" mpilayer pretrain "$data" --run "$run" --resume auto \
        --threads "$SLURM_CPUS_PER_TASK" --schedule async --minibatch 50 \
        --learning-rate 0.1,0.1,0.1,0.005 --code linear "$@"
