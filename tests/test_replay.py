"""The images that the discriminator sees again."""

from __future__ import annotations

import torch

from training.replay import ReplayBuffer


def batch(value: float, images: int = 2) -> torch.Tensor:
    return torch.full((images, 3, 4, 4), value)


def test_without_a_buffer_every_batch_is_handed_through():
    assert torch.equal(ReplayBuffer(0)(batch(0.5)), batch(0.5))


def test_until_it_is_full_the_batch_is_kept_and_shown():
    replay = ReplayBuffer(4)
    assert torch.equal(replay(batch(0.25)), batch(0.25)) and torch.equal(replay(batch(0.5)), batch(0.5))
    assert [image.mean().item() for image in replay.images] == [0.25, 0.25, 0.5, 0.5]


def test_once_full_half_of_the_images_shown_are_old_and_each_is_in_one_place_only():
    torch.manual_seed(0)
    replay, old = ReplayBuffer(50), 0
    for number in range(600):
        before = [image.mean().item() for image in replay.images]
        value = (number + 1) / 1024
        shown = replay(batch(value, 1)).mean().item()
        after = [image.mean().item() for image in replay.images]
        if number >= 50:
            old += shown != value
            assert sorted([*before, value]) == sorted([*after, shown])
    assert 0.4 < old / 550 < 0.6


def test_its_state_survives_a_checkpoint():
    replay, again = ReplayBuffer(4), ReplayBuffer(4)
    replay(batch(0.5))
    again.load_state_dict(replay.state_dict())
    assert torch.equal(torch.stack(again.images), torch.stack(replay.images))
    again.load_state_dict(ReplayBuffer(4).state_dict())
    assert again.images == []
