"""Steps in parts of like length: the cheapest division, and the gradient of the whole batch."""

import copy
from itertools import combinations

import pytest
import tiny
import torch
from accelerate.utils import DistributedType
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from recross_hf import ExampleTrainer, ExampleTrainingArguments
from recross_hf.models.collators import padded, padded_rows
from recross_hf.training import token_weights
from recross_hf.training.length_split import cheapest_parts, split_by_length

BUILDS = {"bart": (tiny.bart, tiny.tokenizer), "llama": (tiny.llama, tiny.causal_tokenizer)}
COST = 5  # of a part, in tokens: tiny batches are divided, too


def cost_of(parts, lengths):
    return sum(
        len(part) * sum(max(lengths[row][side] for row in part) for side in range(len(lengths[0]))) + COST
        for part in parts
    )


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 6)), min_size=1, max_size=7))
def test_no_other_division_of_the_rows_in_their_order_costs_less(lengths):
    parts = cheapest_parts(lengths, COST)
    assert sorted(row for part in parts for row in part) == [*range(len(lengths))]
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row][0])
    others = (
        [order[a:b] for a, b in zip((0, *cuts), (*cuts, len(order)), strict=True)]
        for number in range(len(order))
        for cuts in combinations(range(1, len(order)), number)
    )
    assert cost_of(parts, lengths) == min(cost_of(other, lengths) for other in others)


def test_rows_of_one_length_stay_together():
    assert cheapest_parts([(7,)] * 5, 0) == [[0, 1, 2, 3, 4]]


def batch_of(rows, apart):
    texts = [[*range(10, 10 + length)] for length, _ in rows]
    answers = [[*range(3, 3 + number)] for _, number in rows]
    if apart:
        return padded(texts, 1) | {"labels": padded_rows(answers, -100)}
    labels = [[-100] * (len(text) - len(answer)) + answer for text, answer in zip(texts, answers, strict=True)]
    return padded(texts, 1) | {"labels": padded_rows(labels, -100)}


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("apart", [True, False])
@given(rows=st.lists(st.tuples(st.integers(4, 40), st.integers(1, 4)), min_size=1, max_size=6))
def test_parts_have_each_row_without_the_padding_of_the_others(apart, multiple, rows):
    batch = batch_of(rows, apart)
    parts = split_by_length(batch, has_targets_apart=apart, multiple_of=multiple, part_cost=COST)

    def bare(found, name, fill):
        return sorted([token for token in row.tolist() if token != fill] for row in found[name])

    for name, fill in (("input_ids", 1), ("attention_mask", 0), ("labels", -100)):
        assert sorted(row for part in parts for row in bare(part, name, fill)) == bare(batch, name, fill)
    for part in parts if len(parts) > 1 else []:
        assert part["input_ids"].shape == part["attention_mask"].shape
        longest = int(part["attention_mask"].sum(dim=1).max())
        assert part["input_ids"].shape[1] == min(longest + -longest % multiple, batch["input_ids"].shape[1])
        assert (part["labels"] != -100).any(dim=1).all()


def test_what_is_not_known_to_be_rows_of_tokens_is_not_divided():
    rows = [(40, 2), (4, 1)]
    batch = batch_of(rows, True)
    assert len(split_by_length(batch, has_targets_apart=True, part_cost=COST)) == 2
    for other in (
        batch | {"weights": torch.ones(2)},
        {name: tensor for name, tensor in batch.items() if name != "attention_mask"},
        batch | {"labels": batch["labels"].clone().index_fill_(0, torch.tensor(1), -100)},
    ):
        assert split_by_length(other, has_targets_apart=True, part_cost=COST) == [other]


@pytest.fixture
def parts_computed(monkeypatch):
    """The number of parts of each batch, where batches may be divided into parts at any cost."""
    found = []

    def split(batch, **settings):
        parts = split_by_length(batch, part_cost=settings.pop("part_cost", 0), **settings)
        found.append(len(parts))
        return parts

    monkeypatch.setattr(token_weights, "split_by_length", split)
    return found


SETTINGS = {
    "plain": {},
    "accumulated": {"gradient_accumulation_steps": 2},
    "smoothed": {"label_smoothing_factor": 0.1},
    "summed": {"label_smoothing_factor": 0.1, "sum_token_loss": True},
    "multiple": {"pad_to_multiple_of": 16},
}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [*((kind, name) for kind in BUILDS for name in SETTINGS), ("lora", "accumulated")],
)
def test_a_divided_step_has_the_gradient_of_the_whole_batch(kind, settings, parts_computed, monkeypatch, tmp_path):
    settings = SETTINGS[settings]
    build, tokenizer_of = BUILDS["llama" if kind == "lora" else kind]
    tokenizer = tokenizer_of()
    model = build(tokenizer, dropout=0.0)
    if kind == "lora":
        torch.manual_seed(0)
        lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear", init_lora_weights=False)
        model = get_peft_model(model, lora)
    examples = tiny.examples()
    long = {"input": "one two three four five six seven eight " * 3, "references": ["red and blue"]}
    examples = examples.select(range(8)).map(lambda row, number: long if number % 3 == 0 else row, with_indices=True)

    def trained():
        args = ExampleTrainingArguments(
            output_dir=str(tmp_path), per_device_train_batch_size=4, max_steps=2, use_cpu=True, disable_tqdm=True,
            save_strategy="no", logging_steps=1, learning_rate=1e-2, optim="sgd", max_grad_norm=0.0, **settings
        )  # fmt: skip
        trainer = ExampleTrainer(copy.deepcopy(model), args, processing_class=tokenizer, train_dataset=examples)
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}, losses

    divided, losses = trained()
    assert max(parts_computed) > 1
    monkeypatch.setattr(token_weights, "split_by_length", lambda batch, **settings: [batch])
    whole, expected = trained()
    assert losses == pytest.approx(expected, rel=1e-4)
    start = dict(model.named_parameters())
    moved = max(float((whole[name] - start[name]).detach().abs().max()) for name in whole)
    for name in whole:
        assert torch.allclose(divided[name], whole[name], atol=1e-4 * moved), name


class WithTerm(ExampleTrainer):
    """A loss that is no mean over tokens."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = super().compute_loss(model, inputs, False, num_items_in_batch)
        return loss + sum((weight**2).sum() for weight in model.parameters())


def own_loss(outputs, labels, num_items_in_batch=None):
    return outputs["loss"]


def test_what_need_not_add_up_is_not_divided(parts_computed, tokenizer, bart, tmp_path):
    def trainer_of(made=ExampleTrainer, model=bart, compute_loss_func=None, **settings):
        args = ExampleTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], **settings)
        return made(model, args, processing_class=tokenizer, compute_loss_func=compute_loss_func)

    def num_parts(trainer):
        return len(trainer._parts_of(batch))

    batch = batch_of([(40, 2), (4, 1)], True)
    assert num_parts(trainer_of()) == 2
    others = [
        {"torch_compile": True},
        {"neftune_noise_alpha": 5.0},
        {"optim": "galore_adamw_layerwise"},
        {"optim": "adalomo"},
    ]
    assert [num_parts(trainer_of(**settings)) for settings in others] == [1] * len(others)
    assert num_parts(trainer_of(WithTerm)) == 1
    assert num_parts(trainer_of(compute_loss_func=own_loss)) == 1
    with_router = copy.deepcopy(bart)
    with_router.config.output_router_logits = True
    assert num_parts(trainer_of(model=with_router)) == 1
    several = trainer_of()
    several.accelerator.state._shared_state["distributed_type"] = DistributedType.MULTI_CPU
    try:
        assert num_parts(several) == 1
    finally:
        several.accelerator.state._shared_state["distributed_type"] = DistributedType.NO
    on_device = trainer_of()
    on_device.args.__dict__["_setup_devices"] = torch.device("meta")  # where `device` keeps it
    assert num_parts(on_device) == 1


def test_no_loss_is_weighed_by_a_step_that_is_over(tokenizer, examples, tmp_path):
    args = ExampleTrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, report_to=[], max_steps=1, save_strategy="no",
        gradient_accumulation_steps=2,
    )  # fmt: skip
    model = tiny.bart(tokenizer, dropout=0.0)
    trainer = ExampleTrainer(model, args, processing_class=tokenizer, train_dataset=examples)
    trainer.train()
    rows = trainer.tokenize(examples)
    batch = trainer.data_collator([rows[0], rows[1], rows[2]])
    in_training, in_evaluation = (
        float(trainer.compute_loss(model.train(mode), batch).detach()) for mode in (True, False)
    )
    assert in_training == pytest.approx(in_evaluation)


def test_a_row_without_tokens_keeps_a_place_of_its_own():
    batch = batch_of([(40, 2), (4, 1)], True)
    batch["attention_mask"][1] = 0
    assert [part["input_ids"].shape[1] for part in split_by_length(batch, has_targets_apart=True, part_cost=0)] == [
        40,
        1,
    ]
