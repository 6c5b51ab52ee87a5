"""The pose lab: a dancer at 32x64, one frame in, and a pose picture for every frame to come."""

from __future__ import annotations

from dataclasses import replace

from foreframe.data.loading.augment import AugmentConfig
from foreframe.losses import LossConfig
from foreframe.models import pose_unet
from foreframe.models.pose_cvae import Config
from foreframe.recipe import OptimizerConfig, TrainConfig
from foreframe.schedules import BetaSchedule, ForcingSchedule, RateSchedule

LAB_EPOCH = 121
"""Steps in the pose lab's epoch: its 1,463 windows in batches of 12, the last incomplete batch dropped."""


def pose_dance() -> TrainConfig[Config]:
    """The pose lab's network and settings on its dance clips, with the known faults of its training repaired.

    AdamW 5e-4, batch 12, windows of 16 frames side by side, ten cycles of beta, gradients clipped at norm 1,
    500 epochs; teacher forcing begins at 0.3 and decays from epoch 10; the KL is a mean over z's 24,576 numbers as
    the error is a mean over 6,144 pixels. Unlike the lab: a draw of forcing for each clip and step, activations where
    the lab has identities, prediction draws z from N(0, I) and never sees the target.
    """
    return TrainConfig(
        model=Config(),
        context=1,
        horizon=15,
        eval_horizon=-1,
        steps=500 * LAB_EPOCH,
        batch=12,
        windows="tiled",
        epoch_steps=0,
        optimizer=OptimizerConfig(kind="adamw", lr=5e-4, weight_decay=0.01, clip_norm=1.0),
        beta=BetaSchedule(kind="cyclical", cycles=10, ratio=1.0, unit="epoch"),
        forcing=ForcingSchedule(kind="linear", initial=0.3, start=10, decay=0.1, unit="epoch"),
        loss=LossConfig(latents="mean"),
        validate_every=1210,
        save_every=605,
    )


def pose_dance_lab() -> TrainConfig[Config]:
    """The pose lab's own run, its choices kept: see docs/from-the-labs.md before believing its scores.

    As `pose-dance` with one draw of forcing an epoch, two modules whose LeakyReLU(True) is the identity, log variances
    clamped at 20, weight decay 1e-5, and a learning rate that falls once an epoch by a cosine to a tenth.
    """
    dance = pose_dance()
    return replace(
        dance,
        model=replace(dance.model, identity_activations=True, logvar_limit=20.0),
        optimizer=replace(dance.optimizer, weight_decay=1e-5),
        rate=RateSchedule(kind="cosine", floor=0.1, unit="epoch"),
        forcing=replace(dance.forcing, coin="epoch"),
    )


def pose_dance_template() -> TrainConfig[Config]:
    """The course's template for the pose lab with its defaults: KL summed over 24,576 numbers, 70 epochs of batch 2.

    Adam 1e-3 that falls to a tenth at epochs 2 and 5, teacher forcing from 1.0. At beta 1 the summed KL outweighs a
    mean over pixels by four orders: z becomes noise, and the model a deterministic picture of the pose.
    """
    lab = pose_dance_lab()
    return replace(
        lab,
        steps=70 * 731,
        batch=2,
        optimizer=OptimizerConfig(kind="adam", lr=1e-3, clip_norm=1.0),
        rate=RateSchedule(kind="multi-step", milestones=(2, 5), gamma=0.1, unit="epoch"),
        forcing=replace(lab.forcing, initial=1.0),
        loss=LossConfig(latents="sum"),
    )


def pose_dance_unet() -> TrainConfig[pose_unet.Config]:
    """A CVAE at several scales for the same dance clips: sized for some minutes on one CPU core.

    A training clip is one reference frame and two more, up to 60 frames apart: the scene behind the person has to be
    filled in, and nothing can be copied. beta is that of pixels with a noise of 0.03, 2 * 0.03^2 / 6,144 (a mean over
    pixels, a sum over z). Little is left for z to say once the pose is known: it settles at hundredths of a nat a
    frame, which the log says. Bending the clips more (`augment`) wakes it.
    """
    return TrainConfig(
        model=pose_unet.Config(),
        context=1,
        horizon=2,
        eval_horizon=-1,
        steps=7000,
        batch=4,
        stride=60,
        optimizer=OptimizerConfig(kind="adamw", lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01, clip_norm=1.0),
        rate=RateSchedule(kind="cosine", warmup=200, floor=0.02),
        beta=BetaSchedule(stop=3e-7),
        forcing=ForcingSchedule(initial=0.0),
        loss=LossConfig(steps="mean"),
        augment=AugmentConfig(flip=True, shift=4.0, scale=0.1),
        ema=0.999,
        validate_every=1000,
        save_every=500,
    )
