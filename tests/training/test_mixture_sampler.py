import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recross_hf.training.mixture_sampler import MixtureBatchSampler, like_length_batches, mixture_counts, mixture_rows

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=8).map(np.array)
TEMPERATURES = st.one_of(st.just(1.0), st.floats(1, 50))


# ---- how many ------------------------------------------------------------------------------------------------------


@given(SIZES, st.none() | st.integers(1, 70), TEMPERATURES)
def test_an_epoch_is_as_long_whatever_the_temperature_and_no_task_is_missing(sizes, limit, temperature):
    counts = mixture_counts(sizes, max_examples_per_task=limit, temperature=temperature)
    limited = np.minimum(sizes, limit or 10**9)
    assert counts.sum() == limited.sum()
    assert counts.min() >= 1
    if temperature == 1:
        assert counts.tolist() == limited.tolist()
    larger = np.argsort(-limited, kind="stable")
    assert all(counts[one] + 1 >= counts[other] for one, other in itertools.pairwise(larger))


@given(SIZES, TEMPERATURES)
def test_shares_are_those_of_the_formula_but_for_rounding(sizes, temperature):
    sizes = sizes + 300  # so that no task is raised to one example
    counts = mixture_counts(sizes, temperature=temperature)
    weights = sizes ** (1 / temperature)
    np.testing.assert_allclose(counts, sizes.sum() * weights / weights.sum(), atol=1.001)


def test_a_high_temperature_is_even_and_the_limit_comes_before_it():
    assert mixture_counts(np.array([1000, 10, 10]), temperature=1e9).tolist() == [340, 340, 340]
    assert mixture_counts(np.array([1000, 16, 4]), max_examples_per_task=64, temperature=2.0).tolist() == [48, 24, 12]
    assert mixture_counts(np.array([10**6, 1, 1]), temperature=1.0).tolist() == [10**6, 1, 1]


# ---- which -----------------------------------------------------------------------------------------------------------


@given(SIZES, st.none() | st.integers(1, 30), TEMPERATURES, st.integers(0, 5), st.integers(1, 4))
def test_rows_take_turns_over_epochs(sizes, limit, temperature, seed, epochs):
    tasks = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    counts = mixture_counts(sizes, max_examples_per_task=limit, temperature=temperature)
    drawn = [mixture_rows(tasks, counts, seed=seed, epoch=epoch) for epoch in range(epochs)]
    for rows in drawn:
        assert np.bincount(tasks[rows], minlength=len(sizes)).tolist() == counts.tolist()
    times = np.bincount(np.concatenate(drawn), minlength=len(tasks))
    for task in range(len(sizes)):
        assert np.ptp(times[tasks == task]) <= 1


def test_other_rows_of_a_large_task_come_in_the_next_epoch_and_seeds_differ():
    tasks = np.repeat([0, 1], [100, 5])
    counts = mixture_counts(np.array([100, 5]), max_examples_per_task=20)
    one, two = (set(mixture_rows(tasks, counts, seed=0, epoch=epoch)) for epoch in (0, 1))
    assert one & two == set(range(100, 105))
    assert set(mixture_rows(tasks, counts, seed=1, epoch=0)) != one


# ---- batches -----------------------------------------------------------------------------------------------------------


def padded(rows, inputs, targets) -> int:
    return len(rows) * int(inputs[rows].max() + targets[rows].max())


@st.composite
def lengths(draw):
    number = draw(st.integers(1, 80))
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    return generator.integers(1, 60, number), generator.integers(1, draw(st.integers(2, 30)), number)


@given(lengths(), st.integers(90, 400), st.integers(1, 10))
def test_batches_hold_every_row_once_within_the_budget(found, budget, window):
    inputs, targets = found
    rows = np.random.default_rng(0).permutation(len(inputs))
    batches = like_length_batches(rows, inputs, targets, budget, window_batches=window)
    assert sorted(np.concatenate(batches)) == list(range(len(inputs)))
    assert max(padded(batch, inputs, targets) for batch in batches) <= budget


def mixture(number: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lengths as of real mixtures: long and short inputs, mostly short answers; and tasks."""
    generator = np.random.default_rng(seed)
    inputs = np.clip(generator.lognormal(4, 0.8, number), 5, 512).astype(int)
    targets = np.clip(generator.lognormal(1.5, 1.0, number), 2, 64).astype(int)
    return inputs, targets, generator.integers(0, 5, number)


def test_little_is_padding_and_batches_are_nearly_full():
    inputs, targets, tasks = mixture()
    batches = list(MixtureBatchSampler(inputs, targets, tasks, token_budget=2048))
    tokens = sum(padded(batch, inputs, targets) for batch in batches)
    assert (inputs.sum() + targets.sum()) / tokens > 0.85
    assert tokens / (2048 * len(batches)) > 0.93
    plain = np.array_split(np.random.default_rng(0).permutation(4000), 500)
    assert (inputs.sum() + targets.sum()) / sum(padded(batch, inputs, targets) for batch in plain) < 0.6


def test_batches_mix_tasks_and_their_order_is_random():
    inputs, targets, tasks = mixture()
    batches = list(MixtureBatchSampler(inputs, targets, tasks, token_budget=2048))
    assert np.mean([len(set(tasks[batch])) for batch in batches if len(batch) >= 20]) > 4
    longest = np.array([inputs[batch].max() for batch in batches[1:]])
    assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 0.2


@given(lengths(), st.integers(1, 4), st.none() | st.integers(150, 500), TEMPERATURES, st.none() | st.integers(2, 9))
def test_epochs_and_processes_have_as_many_batches(found, processes, budget, temperature, limit):
    inputs, targets = (np.concatenate([lengths_, lengths_[:1], lengths_[:1], lengths_[:1]]) for lengths_ in found)
    tasks = np.arange(len(inputs)) % 3
    settings = {"token_budget": budget, "batch_size": 7, "temperature": temperature, "max_examples_per_task": limit}
    samplers = [
        MixtureBatchSampler(inputs, targets, tasks, **settings, num_processes=processes, process_index=process)
        for process in range(processes)
    ]
    for epoch in range(3):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        dealt = [list(sampler) for sampler in samplers]
        assert {len(batches) for batches in dealt} == {len(sampler) for sampler in samplers}
        assert dealt == [list(sampler) for sampler in samplers]
        batches = [np.array(batch) for batch in itertools.chain(*dealt)]
        assert all(len(batch) for batch in batches)
        assert max(len(batch) for batch in batches) <= 7 or budget
        assert max(padded(batch, inputs, targets) for batch in batches) <= (budget or 10**9)
        rows = np.bincount(np.concatenate(batches), minlength=len(inputs))
        whole = np.bincount(mixture_rows(tasks, samplers[0].counts, seed=0, epoch=epoch), minlength=len(inputs))
        assert (rows <= whole).all()
        if epoch == 0 and samplers[0].num_rows % processes == 0:
            assert (rows == whole).all()


def test_without_limits_every_epoch_has_every_row_once_in_other_batches():
    inputs, targets, tasks = mixture(300)
    sampler = MixtureBatchSampler(inputs, targets, tasks, token_budget=2048, seed=3)
    seen = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert sorted(itertools.chain(*batches)) == list(range(300))
        seen.append({tuple(sorted(batch)) for batch in batches})
    assert len(seen[0] & seen[1]) < len(seen[0]) / 4
    other = MixtureBatchSampler(inputs, targets, tasks, token_budget=2048, seed=4)
    assert {tuple(sorted(batch)) for batch in other} != seen[0]


def test_no_row_is_left_out_although_epochs_differ():
    inputs, targets, tasks = mixture(20_000)
    sampler = MixtureBatchSampler(inputs, targets, tasks, token_budget=600)
    left_out = []
    for epoch in range(6):
        sampler.set_epoch(epoch)
        left_out.append(20_000 - sum(map(len, sampler)))
    assert left_out == [0] * 6


@pytest.mark.parametrize("processes", [1, 3])
def test_every_process_begins_with_one_of_the_longest_batches(processes):
    inputs, targets, tasks = mixture(500)
    samplers = [
        MixtureBatchSampler(inputs, targets, tasks, token_budget=1024, num_processes=processes, process_index=process)
        for process in range(processes)
    ]
    dealt = [list(sampler) for sampler in samplers]
    longest = [inputs[batch].max() + targets[batch].max() for batch in itertools.chain(*dealt)]
    first = [inputs[batches[0]].max() + targets[batches[0]].max() for batches in dealt]
    assert sorted(first) == sorted(longest)[-processes:]


def test_padding_to_a_multiple_counts():
    inputs, targets, tasks = mixture(300)
    rounded = [-(-array // 64) * 64 for array in (inputs, targets)]
    sampler = MixtureBatchSampler(inputs, targets, tasks, token_budget=1024, pad_to_multiple_of=64)
    assert 800 < max(padded(batch, *rounded) for batch in sampler) <= 1024


def test_a_budget_that_holds_no_batch_and_idle_processes_are_refused():
    ones = np.ones(3, dtype=int)
    with pytest.raises(
        ValueError, match=r"`token_budget` to hold the longest example, of 16 tokens .* found 15. Raise"
    ):
        MixtureBatchSampler(7 * ones, ones, 0 * ones, token_budget=15, pad_to_multiple_of=8)
    with pytest.raises(ValueError, match="an example for each of the 4 processes, found 3 in an epoch"):
        MixtureBatchSampler(ones, ones, 0 * ones, num_processes=4)
