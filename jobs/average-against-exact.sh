#!/bin/bash
# mpilayer job compare patches.h5 --run runs/average-against-exact --ntasks 8 \
#     --environment 'source .venv/bin/activate
# [ -e patches.h5 ] ||
#   mpilayer data patches data/natural-sample.h5 -o patches.h5 --count 20000 --whiten' \
#     -o jobs/average-against-exact.sh
#SBATCH --job-name=compare-average-against-exact
#SBATCH --nodes=1
#SBATCH --ntasks=8
#SBATCH --ntasks-per-node=8
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
[ -e patches.h5 ] ||
  mpilayer data patches data/natural-sample.h5 -o patches.h5 --count 20000 --whiten

set -u
data=patches.h5
run=runs/average-against-exact
export HYDRA_BINDING=${HYDRA_BINDING:-core} # MPICH; Open MPI binds by itself

exec mpilayer attend --mark compare --requeues 5 "$run" -- \
    mpiexec -n "$SLURM_NTASKS" mpilayer compare "$data" --run "$run" --resume auto \
        --threads "$SLURM_CPUS_PER_TASK" "$@"
