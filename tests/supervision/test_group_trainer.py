import copy
import math

import pytest
import tiny
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import BertModel

from recross_hf import SupervisionArguments
from recross_hf.supervision.group_trainer import GroupTrainer

WAYS = {"all": {}, "decoder": {"trainable_parameters": "decoder"}, "lora": {}}


def lora() -> LoraConfig:
    return LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, lora_alpha=64)


def arguments(**settings) -> SupervisionArguments:
    return SupervisionArguments(**{"learning_rate": 1e-3, "max_target_length": 10} | settings)


def group_trainer(model, tokenizer, way: str = "all", **settings) -> GroupTrainer:
    peft_config = lora() if way == "lora" else None
    return GroupTrainer(model, tokenizer, arguments(**WAYS[way] | settings), peft_config=peft_config)


@pytest.fixture(scope="module")
def held_out() -> Dataset:
    """Inputs and answers of many lengths."""
    return tiny.examples().shuffle(seed=3).select(range(9))


@pytest.fixture(scope="module")
def group() -> Dataset:
    return tiny.examples().shuffle(seed=4).select(range(7))


def token_losses(model, tokenizer, example) -> torch.Tensor:
    """Of one example alone, without padding."""
    inputs = tokenizer([example["input"]], return_tensors="pt", truncation=True, max_length=96)
    labels = tokenizer(text_target=[example["references"][0]], return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model(**inputs, labels=labels).logits
    return -logits[0].log_softmax(dim=-1).gather(1, labels[0][:, None])[:, 0]


def mean_loss(model, tokenizer, examples) -> float:
    losses = [token_losses(model, tokenizer, example).mean() for example in examples]
    return float(torch.stack(losses).mean())


def fine_tuned(model, tokenizer, examples, args, trainable: str = ""):
    """The plain way: a copy, a new optimizer, and the loss that the model itself computes."""
    model = copy.deepcopy(model).eval()
    parameters = [weight for name, weight in model.named_parameters() if trainable in name and weight.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=args.learning_rate, weight_decay=0.0)
    size = args.per_device_train_batch_size
    for start in list(range(0, len(examples), size)) * args.num_train_epochs:
        rows = examples.select(range(start, min(start + size, len(examples))))
        batch = tokenizer(rows["input"][:], padding=True, return_tensors="pt")
        labels = tokenizer(
            text_target=[answers[0] for answers in rows["references"]], padding=True, return_tensors="pt"
        )
        model(**batch, labels=labels.input_ids.masked_fill(labels.attention_mask == 0, -100)).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, args.max_grad_norm)
        optimizer.step()
        model.zero_grad()
    return model


def state_of(model) -> dict:
    return {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "flags": {name: value.requires_grad for name, value in model.named_parameters()},
        "training": {name: module.training for name, module in model.named_modules()},
        "gradients": [name for name, value in model.named_parameters() if value.grad is not None],
        "modules": {name: type(module) for name, module in model.named_modules()},
        "attributes": set(vars(model)),
        "config": model.config.to_dict(),
    }


def check_same(one: dict, other: dict) -> None:
    assert one["weights"].keys() == other["weights"].keys()
    assert all(torch.equal(value, other["weights"][name]) for name, value in one["weights"].items())
    for name in one.keys() - {"weights"}:
        assert one[name] == other[name], name


# ---- the losses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trainable", ["", "decoder"])
def test_the_loss_after_a_group_is_that_of_a_copy_fine_tuned_plainly(trainable, any_model, tokenizer, group, held_out):
    args = arguments(trainable_parameters=trainable or None, num_train_epochs=2)
    with GroupTrainer(any_model, tokenizer, args) as trainer:
        found = trainer.loss_after(trainer.tokenize(group), trainer.batches(trainer.tokenize(held_out)))
    plain = fine_tuned(any_model, tokenizer, group, args, trainable)
    assert found == pytest.approx(mean_loss(plain, tokenizer, held_out), abs=1e-5)
    assert abs(found - mean_loss(any_model, tokenizer, held_out)) > 1e-2


def test_lora_is_trained_as_peft_would(bart, tokenizer, group, held_out):
    args = arguments(learning_rate=1e-2, seed=5)
    with GroupTrainer(bart, tokenizer, args, peft_config=lora()) as trainer:
        batches = trainer.batches(trainer.tokenize(held_out))
        before, found = float(trainer.losses(batches).mean()), trainer.loss_after(trainer.tokenize(group), batches)
        assert all(".lora_" in name for name, weight in bart.named_parameters() if weight.requires_grad)
    torch.manual_seed(5)
    plain = fine_tuned(get_peft_model(copy.deepcopy(bart), lora()), tokenizer, group, args)
    assert found == pytest.approx(mean_loss(plain, tokenizer, held_out), abs=1e-5)
    assert before == pytest.approx(mean_loss(bart, tokenizer, held_out), abs=1e-5)
    assert abs(found - before) > 1e-2


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("make", [tiny.gpt2, tiny.llama])
def test_a_decoder_only_model_learns_its_answers_as_a_copy_fine_tuned_plainly(make, bf16, group, held_out):
    tokenizer = tiny.causal_tokenizer("<s> $A")
    model = make(tokenizer)
    args = arguments(num_train_epochs=2, bf16=bf16, per_device_train_batch_size=3)
    with GroupTrainer(model, tokenizer, args) as trainer:
        found = trainer.loss_after(trainer.tokenize(group), trainer.batches(trainer.tokenize(held_out)))
    plain = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=args.learning_rate, weight_decay=0.0)
    rows = [_joined(tokenizer, example) for example in group]
    for start in [0, 3, 6] * 2:
        chosen = rows[start : start + 3]
        total = sum(len(answer) for _, answer in chosen)
        sum(_loss(plain, *row).sum() / total for row in chosen).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), args.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        expected = [float(_loss(plain, *_joined(tokenizer, example)).mean()) for example in held_out]
        before = [float(_loss(model, *_joined(tokenizer, example)).mean()) for example in held_out]
    assert found == pytest.approx(sum(expected) / len(expected), abs=2e-2 if bf16 else 1e-5)
    assert abs(found - sum(before) / len(before)) > 5e-2


def _joined(tokenizer, example) -> tuple[list[int], list[int]]:
    prompt = tokenizer(example["input"] + "\n")["input_ids"]
    answer = tokenizer(example["references"][0], add_special_tokens=False)["input_ids"]
    return prompt, [*answer, tokenizer.eos_token_id]


def _loss(model, prompt, answer) -> torch.Tensor:
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="none")


@pytest.mark.parametrize("sum_token_loss", [False, True])
def test_examples_count_alike_or_by_their_tokens(sum_token_loss, any_model, tokenizer, held_out):
    losses = [token_losses(any_model, tokenizer, example) for example in held_out]
    assert len({len(values) for values in losses}) > 1
    expected = sum(float(values.sum() if sum_token_loss else values.mean()) for values in losses) / len(losses)
    with group_trainer(any_model, tokenizer, sum_token_loss=sum_token_loss) as trainer:
        assert float(trainer.losses(trainer.batches(trainer.tokenize(held_out))).mean()) == pytest.approx(
            expected, rel=1e-5
        )


@pytest.mark.parametrize("way", WAYS)
def test_how_texts_are_batched_does_not_change_the_loss(way, bart, tokenizer, group, held_out):
    found = []
    for token_budget in (1, 60, 10_000):
        with group_trainer(bart, tokenizer, way) as trainer:
            trainer.token_budget = token_budget
            batches = trainer.batches(trainer.tokenize(held_out))
            found.append(
                (
                    len(batches),
                    float(trainer.losses(batches).mean()),
                    trainer.loss_after(trainer.tokenize(group), batches),
                )
            )
    assert len({number for number, _, _ in found}) == 3
    for _, *losses in found[1:]:
        assert losses == pytest.approx(found[0][1:], abs=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_no_group_leaves_a_trace_for_the_next(way, bart, tokenizer, group, held_out):
    model = copy.deepcopy(bart).train()  # dropout would show, too
    with group_trainer(model, tokenizer, way, learning_rate=1e-2) as trainer:
        batches, items = trainer.batches(trainer.tokenize(held_out)), trainer.tokenize(group)
        groups = (items[:3], items[3:], items[2:5])
        first = [trainer.loss_after(members, batches) for members in groups]
        again = [trainer.loss_after(members, batches) for members in reversed(groups)]
        base = float(trainer.losses(batches).mean())
    assert again[::-1] == first
    assert len({*first, base}) == 4
    with group_trainer(model, tokenizer, way, learning_rate=1e-2) as trainer:
        assert trainer.loss_after(trainer.tokenize(group)[:3], trainer.batches(trainer.tokenize(held_out))) == first[0]


def test_a_frozen_encoder_reads_each_text_once(any_model, tokenizer, group, held_out):
    read = []
    hook = any_model.get_encoder().register_forward_hook(lambda *_: read.append(1))
    try:
        with group_trainer(any_model, tokenizer, "decoder") as trainer:
            assert trainer.encoder_is_frozen
            items, batches = trainer.tokenize(group), trainer.batches(trainer.tokenize(held_out))
            assert read
            read.clear()
            trainer.loss_after(items[:4], batches)
            assert not read
        with group_trainer(any_model, tokenizer) as trainer:
            assert not trainer.encoder_is_frozen
            trainer.loss_after(trainer.tokenize(group)[:2], trainer.batches(trainer.tokenize(held_out))[:1])
            assert len(read) == 2
    finally:
        hook.remove()


@pytest.mark.parametrize("way", WAYS)
def test_a_group_that_diverges_says_so_and_harms_no_other(way, bart, tokenizer, group, held_out):
    with group_trainer(bart, tokenizer, way, learning_rate=1e38) as trainer:
        batches = trainer.batches(trainer.tokenize(held_out))
        before = float(trainer.losses(batches).mean())
        assert not math.isfinite(trainer.loss_after(trainer.tokenize(group), batches))
        assert float(trainer.losses(batches).mean()) == before
    with group_trainer(bart, tokenizer, way) as trainer:
        batches, items = trainer.batches(trainer.tokenize(held_out)), trainer.tokenize(group)
        expected = trainer.loss_after(items, batches)
        hook = bart.lm_head.register_forward_hook(lambda module, inputs, logits: logits * math.nan)
        assert math.isnan(trainer.loss_after(items, batches))  # weights and moments are NaN in between
        hook.remove()
        assert trainer.loss_after(items, batches) == expected


# ---- the caller's model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("interrupted", [True, False])
def test_the_model_is_as_before(way, mode, interrupted, tokenizer, group, held_out):
    model = tiny.bart(tokenizer, seed=3).train(mode)
    model.model.encoder.layers[0].requires_grad_(False)
    before, random_state = state_of(model), torch.get_rng_state()
    calls = []

    def interrupt(*_):
        calls.append(1)
        if interrupted and len(calls) == 3:
            raise KeyboardInterrupt

    hook = model.lm_head.register_forward_hook(interrupt)
    for _ in range(2):
        calls.clear()
        try:
            with group_trainer(model, tokenizer, way) as trainer:
                trainer.loss_after(trainer.tokenize(group), trainer.batches(trainer.tokenize(held_out)))
        except KeyboardInterrupt:
            assert interrupted
        assert (len(calls) == 3) == interrupted
        check_same(state_of(model), before)
    hook.remove()
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_step_that_was_interrupted_leaves_no_gradient_for_the_next_group(tokenizer, group, held_out):
    model = tiny.bart(tokenizer)
    with group_trainer(model, tokenizer) as trainer:
        batches, items = trainer.batches(trainer.tokenize(held_out)), trainer.tokenize(group)
        expected = trainer.loss_after(items, batches)

        def interrupt(weight):
            raise KeyboardInterrupt

        hook = model.model.encoder.layers[0].fc1.weight.register_post_accumulate_grad_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            trainer.loss_after(items, batches)
        hook.remove()
        assert trainer.loss_after(items, batches) == expected


def test_the_configuration_of_an_adapter_stays_as_it_is(bart, tokenizer):
    config = lora()
    before = copy.deepcopy(config.to_dict())
    with GroupTrainer(bart, tokenizer, arguments(), peft_config=config):
        pass
    assert config.to_dict() == before


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_fine_tuned_is_refused(bart, tokenizer, held_out):
    with pytest.raises(
        ValueError,
        match=r"found 'encodr', which matches none\. Names begin with: model\.shared\.weight, model\.encoder",
    ):
        GroupTrainer(bart, tokenizer, arguments(trainable_parameters="encodr"))
    with pytest.raises(TypeError, match=r"found a PEFT model\. Pass its base model and `peft_config`"):
        GroupTrainer(get_peft_model(copy.deepcopy(bart), lora()), tokenizer, arguments())
    with pytest.raises(TypeError, match=r"Expected a sequence-to-sequence model .*, found BertModel"):
        GroupTrainer(BertModel(tiny.bert_config(tokenizer)), tokenizer, arguments())


def test_the_side_of_padding_changes_nothing(bart, tokenizer, held_out):
    left = copy.deepcopy(tokenizer)
    left.padding_side = "left"
    losses = []
    for side in (tokenizer, left):
        with group_trainer(bart, side) as trainer:
            losses.append(trainer.losses(trainer.batches(trainer.tokenize(held_out))))
    assert losses[0].tolist() == losses[1].tolist()


def test_a_mirrored_model_is_as_far_on_the_other_side(bart, tokenizer, group):
    with group_trainer(bart, tokenizer) as trainer:
        before = [weight.detach().clone() for weight in trainer.parameters]
        with trainer.learned(trainer.tokenize(group)):
            learned = [weight.detach().clone() for weight in trainer.parameters]
            trainer.mirror()
            for start, there, here in zip(before, learned, trainer.parameters, strict=True):
                torch.testing.assert_close(here - start, start - there)
            assert any((here != start).any() for start, here in zip(before, trainer.parameters, strict=True))
        assert all((here == start).all() for start, here in zip(before, trainer.parameters, strict=True))
