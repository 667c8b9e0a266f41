"""Whatever the settings and the step, a training that was killed and resumed is the one that was not."""

import copy
import math
import tempfile

import numpy as np
import pytest
import torch
from accelerate import Accelerator, skip_first_batches
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from transformers import TrainerCallback

from recross_hf import (
    AdaptationArguments,
    DenseRetriever,
    ExampleTrainer,
    ExampleTrainingArguments,
    RetrievalAugmentedAdapter,
)
from recross_hf.training._compat import loader_of_this_process
from recross_hf.training.mixture_sampler import MixtureBatchSampler


class Killed(Exception):
    pass


class KillAt(TrainerCallback):
    """Ends a run with a step, before the checkpoint of that step is written."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


# ---- batches -----------------------------------------------------------------------------------------------------------

MIXTURES = st.fixed_dictionaries(
    {
        "token_budget": st.none() | st.integers(40, 200),
        "batch_size": st.integers(1, 7),
        "max_examples_per_task": st.none() | st.integers(1, 9),
        "temperature": st.sampled_from([1.0, 2.0, 10.0]),
        "seed": st.integers(0, 2**32 - 1),
    }
)


@given(
    data=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(0, 3)), min_size=3, max_size=40),
    mixture=MIXTURES,
    processes=st.integers(1, 3),
    accumulation=st.integers(1, 4),
)
def test_the_batches_after_any_step_are_those_of_the_unbroken_run(data, mixture, processes, accumulation):
    inputs, targets, tasks = (np.array(values) for values in zip(*data, strict=True))
    tasks = np.unique(tasks, return_inverse=True)[1]
    mixture = dict(mixture)
    sizes = np.minimum(np.bincount(tasks), mixture["max_examples_per_task"] or len(tasks))
    processes = min(processes, int(sizes.sum()))
    accelerator, num_epochs = Accelerator(cpu=True), 3
    for process in range(processes):

        def loader(process=process):
            sampler = MixtureBatchSampler(
                inputs, targets, tasks, num_processes=processes, process_index=process, **mixture
            )
            rows = torch.utils.data.DataLoader(range(len(tasks)), batch_sampler=sampler, collate_fn=tuple)
            return loader_of_this_process(accelerator, rows, non_blocking=False)

        unbroken, whole = loader(), []
        for epoch in range(num_epochs):
            unbroken.set_epoch(epoch)
            whole.append(list(unbroken))
        steps = math.ceil(len(unbroken) / accumulation)
        assert {len(batches) for batches in whole} == {len(unbroken)}
        for step in range(num_epochs * steps):
            epoch, seen = step // steps, step % steps * accumulation
            resumed = loader()
            resumed.set_epoch(epoch)
            assert list(skip_first_batches(resumed, seen) if seen else resumed) == whole[epoch][seen:]
            if epoch + 1 < num_epochs:
                resumed.set_epoch(epoch + 1)
                assert list(resumed) == whole[epoch + 1]


# ---- weights -----------------------------------------------------------------------------------------------------------


@st.composite
def runs(draw):
    """The settings of a run, and the step that it is killed with: from the first checkpoint on, up to the last step."""
    max_steps = draw(st.integers(2, 6))
    save_steps = draw(st.integers(1, max_steps - 1))
    return {
        "max_steps": max_steps,
        "save_steps": save_steps,
        "per_device_train_batch_size": draw(st.integers(1, 5)),
        "gradient_accumulation_steps": draw(st.integers(1, 3)),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "data_seed": draw(st.none() | st.integers(0, 2**31 - 1)),
    }, draw(st.integers(save_steps + 1, max_steps))


def trained(make, resume, **kwargs):
    trainer = make(**kwargs)
    trainer.train(resume_from_checkpoint=resume)
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}, trainer.state.global_step


def check_resumed(make, killed_at):
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as broken:
        expected, steps = trained(make, None, folder=whole)
        with pytest.raises(Killed):
            trained(make, None, folder=broken, callbacks=[KillAt(killed_at)])
        weights, resumed_steps = trained(make, True, folder=broken)
    assert resumed_steps == steps
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def common(settings, folder):
    of_all = {"save_strategy": "steps", "learning_rate": 1e-2, "max_target_length": 8, "max_input_length": 16}
    return {"output_dir": folder, "use_cpu": True, "disable_tqdm": True, **of_all, **settings}


@settings(max_examples=3, phases=[Phase.generate])  # each is three trainings: a failing one is not made smaller
@given(
    run=runs(),
    mixture=st.sampled_from([{}, {"token_budget": 60}, {"mixing_temperature": 3.0, "max_examples_per_task": 3}]),
)
def test_an_upstream_training_killed_at_any_step_resumes_to_the_same_weights(run, mixture, bart, tokenizer, examples):
    chosen, killed_at = run

    def make(folder, callbacks=None):
        args = ExampleTrainingArguments(**common(chosen | mixture, folder))
        few = examples.select(range(0, len(examples), 3))
        return ExampleTrainer(
            copy.deepcopy(bart), args, train_dataset=few, processing_class=tokenizer, callbacks=callbacks
        )

    check_resumed(make, killed_at)


@settings(max_examples=3, phases=[Phase.generate])  # each is three trainings: a failing one is not made smaller
@given(run=runs(), num_retrieved=st.integers(8, 12), safety_gate=st.booleans())
def test_an_adaptation_killed_at_any_step_resumes_to_the_same_weights(
    run, num_retrieved, safety_gate, bart, tokenizer, index, queries
):
    chosen, killed_at = run

    def make(folder, callbacks=None):
        args = AdaptationArguments(
            **common(chosen, folder), num_retrieved=num_retrieved, safety_gate=safety_gate, gate_fraction=0.3
        )
        return RetrievalAugmentedAdapter(
            bart,
            args,
            retriever=DenseRetriever(index),
            query_dataset=queries,
            processing_class=tokenizer,
            callbacks=callbacks,
        )

    check_resumed(make, killed_at)
