#!/usr/bin/env bash
# The action lab's task: BAIR robot pushing, 2 frames in, 10 out, fixed and learned prior, and whether the
# actions are obeyed.
#
# Hardware: one GPU. Hours: a few (60,000 steps of 12 clips for each preset). The labs report 26.76 dB (fixed)
# and 27.42 dB (learned) on their test clips, each frame's PSNR per channel (metric psnr-channel).
#
#   DATA=bair OUT=runs/bair runs/bair.sh
#
# DATA is the hand-out's folder (processed_data/train, validate, test). SPLIT is the split to train on. TOY=1
# takes a few steps of a narrow DCGAN, to see that everything works.
set -euo pipefail
DATA=${DATA:?the folder with processed_data/}
OUT=${OUT:-runs/bair}
SPLIT=${SPLIT:-train}
TOY=${TOY:+--steps 4 --batch 2 --validate-every 0 --log-every 2 --model.backbone dcgan --model.width 8}

foreframe data import "$DATA" "$OUT/pack"
for preset in svg-bair-fixed svg-bair-learned; do
  foreframe train "$preset" --data "$OUT/pack" --run "$OUT/$preset" --split "$SPLIT" $TOY
  for conditions in true shuffled; do
    foreframe evaluate "$OUT/$preset" --split test --conditions "$conditions" --metrics psnr psnr-channel ssim \
      --json "$OUT/$preset-$conditions.json"
  done
  foreframe rollout "$OUT/$preset" --split test --samples 3 --out "$OUT/$preset-rollout"
done
