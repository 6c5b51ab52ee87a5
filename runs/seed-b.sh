#!/usr/bin/env bash
# The action lab's report, from the hand-out's folder to its pages: schedules, and a fixed or learned prior.
#
#   DATA=bair runs/seed-b.sh                 both comparisons
#   DATA=bair runs/seed-b.sh prior           one of them: schedules, prior
#   LAB=1 DATA=bair runs/seed-b.sh           as the lab itself trained (docs/from-the-labs.md)
#
# The report's test PSNR: fixed prior 26.76, learned prior 27.42 dB.
# Hardware: one GPU; hours not measured (60,000 steps of 12 clips for each variant). With SCALE=short: two CPU cores, some
# ten minutes a variant.
#
# DATA is the hand-out's folder (processed_data/train, validate, test), or any folder of clips.
# SEEDS is how often each variant is trained. TOY=1 takes seconds, to see that everything works. Stopped or killed, the
# same command continues. The pages are $OUT/seed-b-*/index.html.
set -euo pipefail
DATA=${DATA:?the folder with processed_data/}
OUT=${OUT:-runs/seed-b}
SCALE=${SCALE:-${TOY:+tiny}}

[ -d "$OUT/pack" ] || foreframe data import "$DATA" "$OUT/pack"
[ $# -gt 0 ] || set -- schedules prior
for name in "$@"; do
  foreframe sweep "seed-b-$name${LAB:+-lab}" --data "$OUT/pack" --out "$OUT" --scale "${SCALE:-paper}" \
    --seeds "${SEEDS:-1}" ${TOY:+--samples 2 --clips 2 --workers 2 --threads 1}
done
