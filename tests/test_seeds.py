from __future__ import annotations

import torch

from foreframe.seeds import generator, permutation


def draw(*key):
    return torch.rand(4, generator=generator(*key))


def test_a_draw_depends_on_its_whole_key_and_nothing_else():
    assert torch.equal(draw(1, "noise", 3, 0), draw(1, "noise", 3, 0))
    for other in ((2, "noise", 3, 0), (1, "coins", 3, 0), (1, "noise", 4, 0), (1, "noise", 3, 1)):
        assert not torch.equal(draw(1, "noise", 3, 0), draw(*other))


def test_the_generator_is_the_same_on_every_machine():
    assert generator(1, "noise", 3).initial_seed() == 4276873455189182467


def test_an_epochs_order_is_a_permutation_of_its_own():
    first, second = permutation(1, 0, 50), permutation(1, 1, 50)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(50))
    assert not torch.equal(first, second)
