#!/bin/bash
# mpilayer job scaling patches.h5 --run runs/scaling --nodes 2 --ntasks 16 \
#     --time 04:00:00 \
#     --environment 'source .venv/bin/activate
# [ -e patches.h5 ] ||
#   mpilayer data patches data/natural-sample.h5 -o patches.h5 --count 20000 --whiten' \
#     -o jobs/scaling.sh
#SBATCH --job-name=scaling
#SBATCH --nodes=2
#SBATCH --ntasks=16
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=1
#SBATCH --time=04:00:00
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
[ -e patches.h5 ] ||
  mpilayer data patches data/natural-sample.h5 -o patches.h5 --count 20000 --whiten

set -u
data=patches.h5
run=runs/scaling
export HYDRA_BINDING=${HYDRA_BINDING:-core} # MPICH; Open MPI binds by itself

exec mpilayer attend --mark sparse --requeues 5 --ranks 1,2,4,8,16 "$run" -- \
    mpiexec -n %ranks mpilayer sparse "$data" --run %run --replace \
        --threads "$SLURM_CPUS_PER_TASK" "$@"
