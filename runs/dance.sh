#!/usr/bin/env bash
# The pose lab's task, by the lab's network and by ours: one frame in, the whole validation take out.
#
# Hardware: two CPU cores. Hours: 0.5 for pose-dance-unet; pose-dance needs a GPU to get far (60,500 steps).
# Expected: see docs/results/README.md.
#
#   DATA=dance OUT=runs/dance runs/dance.sh
#
# DATA is the hand-out's folder (train/, val/); CUTS names frames where a new take begins. TOY=1 takes a few
# steps of each, to see that everything works.
set -euo pipefail
DATA=${DATA:?the folder with train/ and val/}
OUT=${OUT:-runs/dance}
CUTS=${CUTS:-630}
TOY=${TOY:+--steps 4 --batch 2 --validate-every 0 --log-every 2}
HORIZON=${TOY:+20}

foreframe data import "$DATA" "$OUT/pack" --cuts $CUTS
foreframe data show "$OUT/pack" --out "$OUT/clips.html"
for preset in pose-dance-unet pose-dance; do
  foreframe train "$preset" --data "$OUT/pack" --run "$OUT/$preset" ${MINUTES:+--max-minutes "$MINUTES"} $TOY
  for mode in prediction reconstruction; do
    foreframe evaluate "$OUT/$preset" --split val --mode "$mode" --checkpoint newest --horizon "${HORIZON:-600}" \
      --json "$OUT/$preset-$mode.json"
  done
  foreframe rollout "$OUT/$preset" --split val --checkpoint newest --horizon "${HORIZON:--1}" --out "$OUT/$preset-rollout"
done
