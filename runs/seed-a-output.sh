#!/usr/bin/env bash
# Pose lab: the last layer clamped to [0, 1], or passed through a sigmoid.
#
# Hardware: one GPU; hours: not measured (60,500 steps of 12 clips for each variant). With SCALE=short: two CPU cores,
# some ten minutes a variant.
# The report prefers the clamp, and gives no figure.
#
#   DATA=dance runs/seed-a-output.sh
#
# DATA is the hand-out's folder (train/, val/); CUTS names frames where a new take begins. The validation take is cut into
# clips of 63 frames, so that there are intervals over clips; WINDOW=0 leaves it whole, as the lab scores it.
# SCALE=short trains narrower networks for a few steps; SEEDS is how many times each variant is trained; TOY=1 takes
# seconds, to see that everything works. Stopped or killed, the same command goes on. The page is $OUT/seed-a-output/index.html.
set -euo pipefail
DATA=${DATA:?the folder with train/ and val/}
OUT=${OUT:-runs/seed-a}
SCALE=${SCALE:-${TOY:+tiny}}

[ -d "$OUT/pack" ] || foreframe data import "$DATA" "$OUT/pack" --cuts ${CUTS:-630} --window "${WINDOW:-63}"
foreframe sweep seed-a-output --data "$OUT/pack" --out "$OUT" --scale "${SCALE:-paper}" --seeds "${SEEDS:-1}"   ${TOY:+--samples 2 --clips 2 --workers 2 --threads 1}
