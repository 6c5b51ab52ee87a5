#!/usr/bin/env bash
# Action lab: a fixed prior N(0, I), or one learned from the past.
#
# Hardware: one GPU; hours: not measured (60,000 steps of 12 clips for each variant). With SCALE=short: two CPU cores,
# some ten minutes a variant.
# The report's test PSNR: fixed 26.76, learned 27.42 dB. Short scale on simulated clips, measured: docs/results/README.md.
#
#   DATA=bair runs/seed-b-prior.sh
#
# DATA is the hand-out's folder (processed_data/train, validate, test), or any folder of clips.
# SCALE=short trains narrower networks for a few steps; SEEDS is how many times each variant is trained; TOY=1 takes
# seconds, to see that everything works. Stopped or killed, the same command goes on. The page is $OUT/seed-b-prior/index.html.
set -euo pipefail
DATA=${DATA:?the folder with processed_data/}
OUT=${OUT:-runs/seed-b}
SCALE=${SCALE:-${TOY:+tiny}}

[ -d "$OUT/pack" ] || foreframe data import "$DATA" "$OUT/pack"
foreframe sweep seed-b-prior --data "$OUT/pack" --out "$OUT" --scale "${SCALE:-paper}" --seeds "${SEEDS:-1}"   ${TOY:+--samples 2 --clips 2 --workers 2 --threads 1}
