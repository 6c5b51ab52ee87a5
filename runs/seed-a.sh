#!/usr/bin/env bash
# The pose lab's report, from the hand-out's folder to its pages: forcing, KL annealing, optimisers, outputs.
#
#   DATA=LAB4_Dataset runs/seed-a.sh                 every comparison
#   DATA=LAB4_Dataset runs/seed-a.sh forcing kl      some of them: forcing, kl, optimizer, output
#   LAB=1 DATA=LAB4_Dataset runs/seed-a.sh           as the lab itself trained (docs/from-the-labs.md)
#
# The hand-out: 23,410 training frames are 1,463 windows of 16 side by side; validation is one take of 630 frames.
# Hardware: one GPU; hours not measured (12,100 steps of 12 clips for each variant of forcing and kl, 60,500 for those of
# optimizer and output). With SCALE=short: two CPU cores, some ten minutes a variant.
#
# For other folders of that form: CUTS names frames at which a new take begins, WINDOW cuts takes into clips.
# SEEDS is how often each variant is trained. TOY=1 takes seconds, to see that everything works. Stopped or killed, the
# same command continues. The pages are $OUT/seed-a-*/index.html.
set -euo pipefail
DATA=${DATA:?the folder with train/ and val/}
OUT=${OUT:-runs/seed-a}
SCALE=${SCALE:-${TOY:+tiny}}

[ -d "$OUT/pack" ] || foreframe data import "$DATA" "$OUT/pack" ${CUTS:+--cuts $CUTS} ${WINDOW:+--window "$WINDOW"}
[ $# -gt 0 ] || set -- forcing kl optimizer output
for name in "$@"; do
  foreframe sweep "seed-a-$name${LAB:+-lab}" --data "$OUT/pack" --out "$OUT" --scale "${SCALE:-paper}" \
    --seeds "${SEEDS:-1}" ${TOY:+--samples 2 --clips 2 --workers 2 --threads 1}
done
