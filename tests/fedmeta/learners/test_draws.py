"""Draws that a task makes itself: SplitMix64 as published, even, independent of company, the same under vmap."""

import torch

from fedmeta.gradients import vectorised
from fedmeta.learners.draws import _mix, normal, permutation, task_seed, uniform

MASK = 2**64 - 1


def splitmix64(state, count):
    """The reference in Python's own integers (Steele et al. 2014, figure 16)."""
    words = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        words.append(z ^ (z >> 31))
    return words


def test_the_generator_is_splitmix64():
    places = torch.arange(1, 6) * -7046029254386353131
    ours = [int(word) & MASK for word in _mix(1234567 + places)]
    assert ours == splitmix64(1234567, 5)
    assert ours[0] == 6457827717110365317  # the first word of seed 1234567, as its implementations print it


def test_normal_draws_are_standard_and_streams_do_not_resemble_each_other():
    seed = task_seed(torch.randn(5, 6, generator=torch.Generator().manual_seed(0)))
    one, two = normal(seed, 0, 40_000), normal(seed, 1, 40_000)
    assert abs(one.mean()) < 0.02 and abs(one.std() - 1) < 0.02 and abs((one**4).mean() - 3) < 0.15
    assert abs(torch.corrcoef(torch.stack([one, two]))[0, 1]) < 0.02
    assert torch.equal(one[:7], normal(seed, 0, 7))
    assert uniform(seed, 2, 40_000).histc(10, 0, 1).sub(4000).abs().max() < 300


def test_a_task_has_its_own_seed_alone_and_in_company():
    tasks = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(1))
    alone = torch.stack([normal(task_seed(task), 3, 5) for task in tasks])
    assert len({int(task_seed(task)) for task in tasks}) == 4
    assert int(task_seed(tasks[0])) != int(task_seed(tasks[0].flip(0)))
    with vectorised():
        together = torch.vmap(lambda task: normal(task_seed(task), 3, 5))(tasks)
    assert torch.equal(alone, together)
    orders = torch.vmap(lambda task: permutation(task_seed(task), 0, 6))(tasks)
    assert all(sorted(order.tolist()) == list(range(6)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) > 1
