#!/bin/bash
# mpilayer job sparse patches.h5 --run runs/sparse --nodes 2 --ntasks 16 \
#     --launcher srun \
#     --environment 'source .venv/bin/activate
# [ -e patches.h5 ] ||
#   mpilayer data patches data/natural-sample.h5 -o patches.h5 --count 20000 --whiten' \
#     -o jobs/sparse.sh
#SBATCH --job-name=sparse
#SBATCH --nodes=2
#SBATCH --ntasks=16
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
run=runs/sparse

exec mpilayer attend --mark sparse --requeues 5 "$run" -- \
    srun --mpi=pmi2 --kill-on-bad-exit=1 --ntasks="$SLURM_NTASKS" \
        --cpus-per-task="$SLURM_CPUS_PER_TASK" --cpu-bind=cores \
        mpilayer sparse "$data" --run "$run" --resume auto \
        --threads "$SLURM_CPUS_PER_TASK" "$@"
