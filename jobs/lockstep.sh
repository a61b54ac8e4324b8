#!/bin/bash
# mpilayer job pretrain data/mnist-sample.h5 --run runs/lockstep --ntasks 4 \
#     --cpus-per-task 2 --code linear --minibatch 50 --learning-rate 0.1,0.1,0.1,0.005 \
#     --environment 'source .venv/bin/activate' -o jobs/lockstep.sh
#SBATCH --job-name=pretrain-lockstep
#SBATCH --nodes=1
#SBATCH --ntasks=4
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=2
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
run=runs/lockstep
# A rank's threads must not share one core, to which Open MPI would bind them.
export PRTE_MCA_hwloc_default_binding_policy=none
export OMPI_MCA_hwloc_base_binding_policy=none

exec mpilayer attend --mark pretrain --requeues 5 "$run" -- \
    mpiexec -n "$SLURM_NTASKS" mpilayer pretrain "$data" --run "$run" --resume auto \
        --threads "$SLURM_CPUS_PER_TASK" --minibatch 50 \
        --learning-rate 0.1,0.1,0.1,0.005 --code linear "$@"
