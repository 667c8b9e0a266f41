import copy
import re

import numpy as np
import pytest
import tiny
import torch
from contents import same, weights
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Seq2SeqTrainingArguments, TrainerCallback

from recross_hf import (
    AdaptationArguments,
    DenseRetriever,
    ExampleTrainer,
    RandomRetriever,
    Reranker,
    RetrievalAugmentedAdapter,
    Retriever,
)
from recross_hf.adaptation.results import adaptation_results
from recross_hf.reranking.selection import by_task

METHODS = ["full", "lora"]


def lora() -> LoraConfig:
    return LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, lora_alpha=64)


@pytest.fixture
def make_adapter(bart, tokenizer, index, queries, tmp_path):
    def make(
        model=bart,
        *,
        method="full",
        folder="adapted",
        retriever=None,
        reranker=None,
        eval_dataset=None,
        callbacks=None,
        **settings,
    ):
        settings = {"max_steps": 4, "learning_rate": 1e-2, "num_retrieved": 12, "max_target_length": 10} | settings
        return RetrievalAugmentedAdapter(
            model,
            AdaptationArguments(output_dir=str(tmp_path / folder), use_cpu=True, disable_tqdm=True, **settings),
            retriever=retriever or DenseRetriever(index),
            reranker=reranker,
            query_dataset=queries,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            peft_config=lora() if method == "lora" else None,
            callbacks=callbacks,
        )

    return make


def trained(adapter: RetrievalAugmentedAdapter, **kwargs) -> dict[str, torch.Tensor]:
    adapter.train(**kwargs)
    return weights(adapter.model)


class NoRetriever(Retriever):
    def rank(self, inputs, num_retrieved):
        raise AssertionError("nothing should be retrieved")


# ---- what it learns from ---------------------------------------------------------------------------------------------


def test_it_trains_on_what_the_retriever_finds_for_the_queries(make_adapter, index, queries):
    adapter = make_adapter(max_steps=3)
    assert adapter.retrieved is None
    adapter.train()
    assert adapter.retrieved.to_list() == DenseRetriever(index).retrieve(queries, 12).to_list()
    assert adapter.query_dataset["input"][:] == queries
    decoded = adapter.processing_class.batch_decode(
        [item["input_ids"] for item in adapter.train_dataset], skip_special_tokens=True
    )
    assert decoded == adapter.retrieved["input"][:]


def test_what_was_retrieved_before_training_is_kept(make_adapter, examples):
    adapter = make_adapter(retriever=RandomRetriever(examples, seed=5))
    found = adapter.retrieve()
    adapter.retriever = NoRetriever(examples)
    adapter.train()
    assert adapter.retrieved is found


class LongestFirst(Reranker):
    def rank(self, queries, candidates):
        return np.array([len(candidate) for candidate in candidates])


def test_a_reranker_chooses_among_more_than_are_trained_on(make_adapter, index, queries, tmp_path):
    adapter = make_adapter(reranker=LongestFirst(), num_retrieved=9, upsampling_ratio=1.5, max_steps=1)
    adapter.train()
    found = DenseRetriever(index).retrieve(queries, 14)
    assert adapter.retrieved.to_list() == LongestFirst().rerank(queries, found, 9).to_list()
    assert len(adapter.train_dataset) == 9
    adapter.save_model()
    adapter.create_model_card()
    saved = Dataset.from_parquet(str(tmp_path / "adapted" / "retrieved.parquet"))
    assert {"rank", "query", "distance", "score"} <= set(saved.column_names)


def test_whole_tasks_can_be_selected_with_and_without_a_reranker(make_adapter, index, queries):
    found = DenseRetriever(index).retrieve(queries, 24)
    settings = {"num_retrieved": 12, "upsampling_ratio": 2.0, "select_by": "task"}
    assert not make_adapter(**settings | {"upsampling_ratio": 1.0}).selects
    by_vote = by_task(found, np.zeros(24), 12).remove_columns("score")
    assert by_vote["id"][:] != found["id"][:12]
    assert make_adapter(**settings).retrieve().to_list() == by_vote.to_list()
    reranked = make_adapter(reranker=LongestFirst(), **settings).retrieve()
    assert reranked.to_list() == LongestFirst().rerank(queries, found, 12, select=by_task).to_list()


def test_what_is_drawn_at_random_is_not_selected_from(make_adapter, examples):
    settings = {"num_retrieved": 12, "upsampling_ratio": 2.0, "select_by": "task"}
    adapter = make_adapter(retriever=RandomRetriever(examples, seed=5), **settings)
    assert adapter.retrieve()["id"][:] == RandomRetriever(examples, seed=5).retrieve(["any"], 12)["id"][:]


@pytest.mark.parametrize("uses_inputs", [True, False])
def test_a_retriever_of_ones_own_says_whether_there_is_something_to_select(uses_inputs, make_adapter, examples):
    own = type("Own", (NoRetriever,), {"uses_inputs": uses_inputs})(examples)
    settings = {"num_retrieved": 12, "upsampling_ratio": 2.0, "select_by": "task"}
    assert make_adapter(retriever=own, **settings).selects is uses_inputs


def test_it_says_how_long_retrieving_and_reranking_took(make_adapter):
    dense, reranking = make_adapter(), make_adapter(reranker=LongestFirst())
    assert dense.seconds == reranking.seconds == {}
    dense.retrieve()
    reranking.retrieve()
    assert list(dense.seconds) == ["retrieve"]
    assert list(reranking.seconds) == ["retrieve", "rerank"]
    assert all(duration > 0 for duration in reranking.seconds.values())


@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss_on_the_retrieved_examples(method, make_adapter):
    adapter = make_adapter(method=method, max_steps=25)
    retrieved = adapter.retrieve()
    before = adapter.evaluate(retrieved)["eval_loss"]
    adapter.train()
    assert adapter.evaluate(retrieved)["eval_loss"] < 0.8 * before


# ---- the caller's model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", [True, False])
def test_the_callers_model_stays_as_it_is(method, mode, make_adapter, tokenizer, examples):
    model = tiny.bart(tokenizer, seed=3).train(mode)
    before = weights(model)
    configs = copy.deepcopy((model.config.to_dict(), model.generation_config.to_dict()))
    adapter = make_adapter(model, method=method, eval_dataset=examples.select(range(4)))
    adapter.train()
    adapter.evaluate()
    adapted = adapter.model.merge_and_unload() if method == "lora" else adapter.model
    assert same(weights(model), before)
    assert not same(weights(adapted), before)
    assert (model.config.to_dict(), model.generation_config.to_dict()) == configs
    assert model.training == mode
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not hasattr(model, "peft_config")


def test_lora_trains_the_adapter_alone(make_adapter, bart):
    adapter = make_adapter(method="lora")
    names = {name for name, parameter in adapter.model.named_parameters() if parameter.requires_grad}
    assert names
    assert all("lora_" in name for name in names)
    before = weights(adapter.model)
    after = trained(adapter)
    assert {name for name in before if not torch.equal(before[name], after[name])} <= names
    assert any(not torch.equal(before[name], after[name]) for name in names)
    base = adapter.model.unload()
    assert same(weights(base), weights(bart))


def test_a_saved_lora_adapter_loads_with_plain_peft(make_adapter, bart, tokenizer, tmp_path):
    adapter = make_adapter(method="lora")
    adapter.train()
    adapter.save_model()
    assert not (tmp_path / "adapted" / "model.safetensors").exists()
    loaded = PeftModel.from_pretrained(copy.deepcopy(bart), tmp_path / "adapted").eval()
    batch = tokenizer(["Is it good?"], return_tensors="pt") | {"decoder_input_ids": torch.tensor([[2, 0, 9]])}
    with torch.no_grad():
        adapted, original = adapter.model.eval()(**batch).logits, bart(**batch).logits
        assert torch.equal(loaded(**batch).logits, adapted)
    assert (adapted - original).abs().max() > 1e-3


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_alone_decides_the_run(method, make_adapter, examples):
    first = trained(make_adapter(method=method, seed=1))
    assert same(trained(make_adapter(method=method, seed=1)), first)
    assert not same(trained(make_adapter(method=method, seed=2)), first)
    evaluated = make_adapter(method=method, seed=1)
    evaluated.evaluate(examples.select(range(4)))
    assert same(trained(evaluated), first)


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_is_the_unbroken_run(method, make_adapter, examples, tmp_path):
    saving = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "method": method}
    unbroken = make_adapter(**saving)
    expected = trained(unbroken)
    resumed = make_adapter(folder="resumed", retriever=NoRetriever(examples), **saving)
    checkpoint = tmp_path / "adapted" / "checkpoint-3"
    assert same(trained(resumed, resume_from_checkpoint=str(checkpoint)), expected)
    assert resumed.retrieved.to_list() == unbroken.retrieved.to_list()
    assert resumed.state.global_step == 6
    again = make_adapter(folder="adapted", retriever=NoRetriever(examples), **saving | {"max_steps": 7})
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 7


def test_a_run_is_not_resumed_for_other_queries_or_numbers(make_adapter):
    saving = {"save_strategy": "steps", "save_steps": 2}
    make_adapter(**saving).train()
    for changed in ({"num_retrieved": 11}, {"upsampling_ratio": 3.0}, {"per_device_train_batch_size": 2}):
        name, value = next(iter(changed.items()))
        with pytest.raises(ValueError, match=f"that made the batches of .*, found `{name}` {value} in place of"):
            make_adapter(**saving | changed).train(resume_from_checkpoint=True)
    other = make_adapter(**saving)
    other.query_dataset = other.query_dataset.select([0, 1])
    with pytest.raises(ValueError, match=r"found `queries` \d+ in place of \d+"):
        other.train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="Expected the checkpoint of an adapter"):
        make_adapter(method="lora", **saving).train(resume_from_checkpoint=True)


def test_decoding_that_the_model_ships_is_said_with_the_adaptation(make_adapter, examples, tmp_path):
    model = copy.deepcopy(make_adapter().model)
    model.generation_config.update(repetition_penalty=1.2, do_sample=True, temperature=3.0)
    adapter = make_adapter(model, generation_num_beams=2, eval_dataset=examples.select(range(6)), gate="strict")
    adapter.train()
    first = adapter.evaluate()["eval_loss"], adapter.predict(examples).predictions.tolist()
    assert (adapter.evaluate()["eval_loss"], adapter.predict(examples).predictions.tolist()) == first
    expected = {"num_beams": 2, "repetition_penalty": 1.2}
    assert adaptation_results(adapter.adaptation, adapter.retrieved, task="t", seconds={})["decoding"] == expected
    settings = adapter.adaptation.settings
    assert (adapter.adaptation.decoding, settings["generation_num_beams"]) == (expected, 2)
    adapter.create_model_card()
    card = (tmp_path / "adapted" / "README.md").read_text()
    assert "| `decoding: repetition_penalty` | 1.2 |" in card


def test_the_gate_judges_greedy_answers(make_adapter, answering_bart, monkeypatch):
    sampler = copy.deepcopy(answering_bart)
    sampler.generation_config.update(do_sample=True, temperature=9.0)
    verdicts = []
    for model in (answering_bart, sampler, sampler):
        adapter = make_adapter(model, gate="strict", num_retrieved=24)
        adapter.train()
        verdicts.append(adapter.gate)
    assert verdicts[0] == verdicts[1] == verdicts[2]


def test_there_must_be_a_checkpoint_to_resume_from(make_adapter, tmp_path):
    (tmp_path / "adapted").mkdir()
    with pytest.raises(
        ValueError, match=r"No checkpoint to resume from in .*adapted: expected a checkpoint-\* folder"
    ):
        make_adapter().train(resume_from_checkpoint=True)
    (tmp_path / "trainer_state.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"Expected retrieved\.parquet in .*this is no checkpoint"):
        make_adapter().train(resume_from_checkpoint=str(tmp_path))


def test_callbacks_are_called(make_adapter):
    class Steps(TrainerCallback):
        count = 0

        def on_step_end(self, args, state, control, **kwargs):
            self.count += 1

    steps = Steps()
    make_adapter(max_steps=3, callbacks=[steps]).train()
    assert steps.count == 3


# ---- scores, files, card -----------------------------------------------------------------------------------------------


def test_scores_are_kept_by_prefix(make_adapter, answering_bart, examples, tokenizer):
    test = examples.select(range(3, 16))
    adapter = make_adapter(answering_bart, eval_dataset=test)
    metrics = adapter.evaluate(metric_key_prefix="base")
    adapter.train()
    adapter.evaluate(examples.select(range(5)), metric_key_prefix="adapted")
    scores = {name: metrics[f"base_{name}"] for name in ("soft_em", "exact_match")}
    assert adapter.scores["base"] == {**scores, "n": 13}
    assert adapter.scores["adapted"]["n"] == 5
    plain = ExampleTrainer(copy.deepcopy(answering_bart), adapter.args, processing_class=tokenizer).evaluate(test)
    assert {name: plain[f"eval_{name}"] for name in scores} == scores
    assert scores["soft_em"] > 0


def test_scores_of_named_evaluation_sets_count_their_own_examples(make_adapter, examples):
    adapter = make_adapter(
        eval_dataset={"sum": examples.select(range(24, 30)), "colour": examples.select(range(12, 20))}
    )
    adapter.evaluate()
    assert {prefix: scores["n"] for prefix, scores in adapter.scores.items()} == {
        "eval_sum": 6,
        "eval_colour": 8,
        "eval": 14,
    }


def test_the_retrieved_examples_are_saved_with_the_model_and_each_checkpoint(make_adapter, tmp_path):
    adapter = make_adapter(max_steps=2, save_strategy="steps", save_steps=1)
    adapter.train()
    adapter.save_model()
    for folder in (tmp_path / "adapted", tmp_path / "adapted" / "checkpoint-1"):
        assert Dataset.from_parquet(str(folder / "retrieved.parquet")).to_list() == adapter.retrieved.to_list()
    suffixes = {path.suffix for path in (tmp_path / "adapted").iterdir() if path.is_file()}
    assert suffixes == {".json", ".parquet", ".safetensors"}


@pytest.mark.parametrize("method", METHODS)
def test_the_card_says_how_the_model_was_made(method, make_adapter, bart, examples, tmp_path):
    bart.save_pretrained(tmp_path / "the-base")
    model = type(bart).from_pretrained(tmp_path / "the-base")
    adapter = make_adapter(model, method=method, eval_dataset=examples.select(range(4)))
    adapter.evaluate(metric_key_prefix="base")
    adapter.train()
    adapter.create_model_card()
    card = (tmp_path / "adapted" / "README.md").read_text()
    assert str(tmp_path) not in card  # a path of this machine is of no use to a reader
    assert "This model is `the-base` adapted to an unseen task" in card
    assert "4 of its inputs selected 12 examples" in card
    assert f"library_name: {'peft' if method == 'lora' else 'transformers'}" in card
    assert ("from peft import PeftModel" in card) == (method == "lora")
    base = adapter.scores["base"]
    assert re.search(
        rf"\| upstream \| \S.* \| 4 \| {base['soft_em']:.2f} \(.*\) \| {base['exact_match']:.2f} \(", card
    )
    for task in set(adapter.retrieved["task"]):
        assert f"| {task} | " in card
    assert "| `num_retrieved` | 12 |" in card
    assert "| `learning_rate` | 0.01 |" in card


def test_a_card_without_evaluation_has_no_results(make_adapter, examples, tmp_path):
    adapter = make_adapter(max_steps=1)
    adapter.train()
    adapter.create_model_card(model_name="my-model")
    card = (tmp_path / "adapted" / "README.md").read_text()
    assert "It was not evaluated" in card
    assert "model-index" not in card
    assert "# my-model" in card


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_retrieved_or_adapted_is_said_before_the_work(
    bart, tokenizer, index, queries, tmp_path, caplog
):
    args = AdaptationArguments(output_dir=str(tmp_path), use_cpu=True, num_retrieved=100)
    good = {"retriever": DenseRetriever(index), "query_dataset": queries, "processing_class": tokenizer}
    RetrievalAugmentedAdapter(bart, args, **good)
    assert "at most the 48 upstream examples that may be retrieved, found 100: examples will repeat" in caplog.text
    for modules in (["qqq"], ["q_proj", "qqq"]):
        config = lora()
        config.target_modules = set(modules)
        with pytest.raises(
            ValueError, match=r"`target_modules` that Bart\w+ has, such as .*q_proj.*, found 'qqq'\. Name some"
        ):
            RetrievalAugmentedAdapter(bart, args, **good, peft_config=config)


def test_wrong_types_are_refused(bart, tokenizer, index, examples, queries, tmp_path):
    args = AdaptationArguments(output_dir=str(tmp_path), use_cpu=True)
    good = {"retriever": DenseRetriever(index), "query_dataset": queries, "processing_class": tokenizer}
    plain = Seq2SeqTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(TypeError, match="`args` to be an AdaptationArguments, found Seq2SeqTrainingArguments"):
        RetrievalAugmentedAdapter(bart, plain, **good)
    with pytest.raises(
        TypeError, match=r"Retriever, found UpstreamIndex. For an index, pass `DenseRetriever\(index\)`"
    ):
        RetrievalAugmentedAdapter(bart, args, **good | {"retriever": index})
    with pytest.raises(TypeError, match=r"`reranker` to be a Reranker, found HashEncoder\. Subclass `Reranker`"):
        RetrievalAugmentedAdapter(bart, args, **good, reranker=tiny.HashEncoder())
    with pytest.raises(
        TypeError, match="no `train_dataset` to pass: the examples to train on come from the retriever"
    ):
        RetrievalAugmentedAdapter(bart, args, **good, train_dataset=examples)
    with pytest.raises(ValueError, match=r"Expected no `peft_config` .* beside a model that has an adapter"):
        RetrievalAugmentedAdapter(get_peft_model(copy.deepcopy(bart), lora()), args, **good, peft_config=lora())
    with pytest.raises(ValueError, match="at least one example, found none"):
        RetrievalAugmentedAdapter(bart, args, **good | {"query_dataset": []})
    for model in ("facebook/bart-base", None):
        with pytest.raises(TypeError, match=rf"`model` to be a loaded model, found {type(model).__name__}\. Load it"):
            RetrievalAugmentedAdapter(model, args, **good)
    with pytest.raises(TypeError, match=r"the model's tokenizer, found str\. Load it with `AutoTokenizer"):
        RetrievalAugmentedAdapter(bart, args, **good | {"processing_class": "facebook/bart-base"})
    with pytest.raises(ValueError, match="Expected `processing_class`, the model's tokenizer, found None"):
        RetrievalAugmentedAdapter(bart, args, **good | {"processing_class": None})
    with pytest.raises(TypeError, match=r"`retriever` to be a Retriever, found NoneType\. For an index"):
        RetrievalAugmentedAdapter(bart, args, **good | {"retriever": None})
    with pytest.raises(TypeError, match="`retriever` to be a Retriever, found"):
        RetrievalAugmentedAdapter(bart, args, **good | {"retriever": DenseRetriever})
    with pytest.raises(TypeError, match=r"`peft_config` .*found dict"):
        RetrievalAugmentedAdapter(bart, args, **good, peft_config={"r": 4})


def test_a_model_whose_weights_are_frozen_is_told(make_adapter, bart):
    with pytest.raises(ValueError, match="found all of them frozen"):
        make_adapter(copy.deepcopy(bart).requires_grad_(False)).train()


def test_an_adapter_of_the_defaults_follows_the_paper(bart, tokenizer, index, queries, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    adapter = RetrievalAugmentedAdapter(
        bart, retriever=DenseRetriever(index), query_dataset=queries, processing_class=tokenizer
    )
    assert (adapter.args.num_retrieved, adapter.args.learning_rate) == (512, 1e-6)


def test_weights_in_half_precision_are_trained_in_single(make_adapter, bart):
    """Steps of 1e-6 would round to nothing."""
    half = copy.deepcopy(bart).bfloat16()
    adapter = make_adapter(model=half, learning_rate=1e-6)
    before = copy.deepcopy(adapter.model.state_dict())
    adapter.train()
    changed = [not torch.equal(value, before[name]) for name, value in adapter.model.state_dict().items()]
    assert all(parameter.dtype == torch.float32 for parameter in adapter.model.parameters())
    assert np.mean(changed) > 0.9
    assert half.dtype == torch.bfloat16


def test_weights_that_are_no_numbers_are_told_before_anything_is_retrieved(make_adapter, bart, examples):
    model = copy.deepcopy(bart)
    with torch.no_grad():
        model.get_encoder().layers[0].fc1.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"found NaN or infinity in model\.encoder\.layers\.0\.fc1\.weight"):
        make_adapter(model, retriever=NoRetriever(examples)).train()
