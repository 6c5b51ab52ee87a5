"""Flags of the two labs and of SVG's scripts, answered with ours; docs/from-the-labs.md has the same table."""

from __future__ import annotations

from collections.abc import Sequence

from foreframe.errors import UsageError

SAME = "the same"
ROWS: tuple[tuple[str, str], ...] = (
    ("seed device", SAME),
    ("niter num_epoch", "--epochs N, or --steps"),
    ("epoch_size", "--epoch-steps"),
    ("batch_size", "--batch"),
    ("lr", "--optimizer.lr"),
    ("beta1", "--optimizer.betas, a pair"),
    ("optimizer optim", "--optimizer.kind adam, adamw or sgd"),
    ("tfr", "--forcing.initial, with --forcing.kind linear or constant"),
    ("tfr_sde tfr_start_decay_epoch", "--forcing.start, with --forcing.unit epoch"),
    ("tfr_d_step tfr_decay_step", "--forcing.decay, with --forcing.unit epoch"),
    ("tfr_lower_bound", "--forcing.floor"),
    ("kl_anneal_type kl_anneal_cyclical", "--beta.kind cyclical, monotonic or constant, with --beta.unit epoch"),
    (
        "kl_anneal_cycle",
        "--beta.cycles; as the action lab rounds where they do not divide the epochs: --beta.integer-periods",
    ),
    (
        "kl_anneal_ratio",
        "--beta.ratio: cyclical ratio; monotonic 10 ratio / epochs (pose lab) or ratio / 2 (action lab); a result "
        "above 1 is --beta.ratio 1 --beta.stop 1/ratio",
    ),
    ("beta", "--beta.stop (unused by the action lab)"),
    ("n_past", "--context"),
    ("n_future", "--horizon"),
    ("n_eval", "--eval-horizon, n_eval minus n_past"),
    ("train_vi_len", "--horizon, one less: 15"),
    ("val_vi_len", "--eval-horizon, one less; -1: to the end of the shortest clip"),
    ("rnn_size", "--model.rnn-size"),
    ("z_dim", "--model.z-dim"),
    ("g_dim", "--model.g-dim"),
    ("posterior_rnn_layers", "--model.posterior-layers"),
    ("predictor_rnn_layers", "--model.predictor-layers"),
    ("prior_rnn_layers", "--model.prior-layers"),
    ("F_dim", "--model.f-dim"),
    ("L_dim", "--model.l-dim"),
    ("N_dim", "--model.n-dim"),
    ("D_out_dim", "--model.d-out"),
    ("model", "--model.backbone vgg or dcgan"),
    ("last_frame_skip", "--model.skip last-frame; without it the code of SVG and the lab is --model.skip svg"),
    ("DR data_root dataset", "--data"),
    ("save_root log_dir name", "--run"),
    ("model_dir ckpt_path", "foreframe resume RUN"),
    ("model_path test", "foreframe evaluate RUN"),
    ("nsample", "--samples of foreframe evaluate"),
    ("N", "--clips of foreframe evaluate"),
    ("frame_H frame_W image_width", "--size of foreframe data import"),
    ("per_save", "--save-every, in steps"),
    ("store_visualization", "nothing: each validation leaves a GIF in RUN/media"),
    ("fast_train fast_partial fast_train_epoch", "--steps or --max-minutes"),
    ("partial", "nothing: import a smaller folder"),
    ("cuda gpu", "--device cuda; which one: CUDA_VISIBLE_DEVICES"),
    ("num_workers data_threads", "nothing: clips are memory-mapped"),
    ("num_threads", "--threads"),
    ("channels num_digits", "nothing: they follow from the clips"),
)
"""(flags there, what they are here)."""
HERE = {flag.casefold(): here for flags, here in ROWS for flag in flags.split() if here != SAME}


def refuse(arguments: Sequence[str]) -> None:
    """Raises UsageError where arguments are flags of the labs, each answered with ours on a line of its own."""
    found = {}
    for argument in arguments:
        flag = argument.partition("=")[0]
        name = flag.removeprefix("--").replace("-", "_").casefold()
        if flag.startswith("--") and name in HERE:
            found[flag] = HERE[name]
    if found:
        raise UsageError("\n".join(f"{flag} is a flag of the labs; here it is {here}" for flag, here in found.items()))
