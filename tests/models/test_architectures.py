"""Decoder-only models, beside sequence-to-sequence ones: read, trained, generated from, indexed, adapted."""

import copy
import json

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    BertForMaskedLM,
    BertLMHeadModel,
    BertModel,
    ViTConfig,
    ViTModel,
)

from recross_hf import (
    AdaptationArguments,
    DenseRetriever,
    ExampleTrainer,
    ExampleTrainingArguments,
    MeanPooledEncoder,
    ReCrossPipeline,
    RetrievalAugmentedAdapter,
    SupervisionArguments,
    UpstreamIndex,
    load_examples,
    load_model,
    mine_supervision,
)
from recross_hf.hub.errors import ArtifactError
from recross_hf.models.adapters import check_peft_config
from recross_hf.models.architectures import DECODER_ONLY, SEQUENCE_TO_SEQUENCE, architecture_of
from recross_hf.models.collators import CausalCollator, pad_token_id, padded
from recross_hf.models.foreign import check_built_size
from recross_hf.models.generation import generate_texts

PLAIN, LLAMA, ENDING = tiny.causal_tokenizer(), tiny.causal_tokenizer("<s> $A"), tiny.tokenizer()
"""Tokenizers that add nothing, a start token, and start and end tokens; only the last has one for padding."""
END = PLAIN.eos_token_id
KINDS = {"gpt2": (tiny.gpt2, PLAIN), "llama": (tiny.llama, LLAMA), "gpt2-ending": (tiny.gpt2, ENDING)}


@pytest.fixture(scope="module", params=KINDS)
def causal(request):
    """A random decoder-only model, without dropout, and its tokenizer."""
    build, tokenizer = KINDS[request.param]
    return build(tokenizer, dropout=0.0), tokenizer


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def answering(request, examples, tmp_path_factory):
    """A tiny model after 60 steps on the tiny examples, and its tokenizer."""
    build, tokenizer = KINDS[request.param]
    model = build(tokenizer, dropout=0.0)
    trainer = trainer_of(
        model,
        tokenizer,
        tmp_path_factory.mktemp("answering"),
        train_dataset=examples,
        max_steps=60,
        learning_rate=5e-3,
        per_device_train_batch_size=16,
    )
    trainer.train()
    return model.eval(), tokenizer


def trainer_of(model, tokenizer, folder, *, train_dataset=None, **settings) -> ExampleTrainer:
    settings = {"max_target_length": 12, "per_device_eval_batch_size": 4, "logging_steps": 1} | settings
    args = ExampleTrainingArguments(
        output_dir=str(folder), use_cpu=True, disable_tqdm=True, save_strategy="no", **settings
    )
    return ExampleTrainer(model, args, processing_class=tokenizer, train_dataset=train_dataset)


def prompt(tokenizer, text: str) -> list[int]:
    """What a model reads of a text that is not too long."""
    ids = tokenizer(text + "\n")["input_ids"]
    return ids[:-1] if tokenizer is ENDING else ids


def answer_alone(model, tokenizer, text: str, **settings) -> str:
    """One answer, by the model's own `generate` without padding."""
    ids = torch.tensor([prompt(tokenizer, text)])
    output = model.generate(input_ids=ids, pad_token_id=pad_token_id(tokenizer), **settings)
    return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True).strip()


# ---- inputs and answers as tokens ------------------------------------------------------------------------------------


@given(st.text(max_size=40), st.integers(4, 60), st.sampled_from([PLAIN, LLAMA, ENDING]))
def test_an_input_ends_in_its_separator_whatever_its_length(text, max_length, tokenizer):
    (ids,) = DECODER_ONLY.prompt_ids(tokenizer, [text], max_length)
    whole = prompt(tokenizer, text)
    if len(whole) <= max_length:
        assert ids == whole
    else:
        assert max_length - 1 <= len(ids) <= max_length
        assert ids[:-1] == whole[: len(ids) - 1]
        assert tokenizer.decode(ids).endswith("\n")


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4), st.integers(1, 30))
def test_an_answer_ends_in_the_end_token_whatever_its_length(texts, max_length):
    for tokenizer in (PLAIN, LLAMA, ENDING):
        for text, ids in zip(texts, DECODER_ONLY.answer_ids(tokenizer, texts, max_length), strict=True):
            whole = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert ids == [*whole[: max_length - 1], END]


def test_room_is_needed_for_input_and_answer(causal):
    model, tokenizer = causal
    with pytest.raises(ValueError, match=r"shorter than the 128 positions .* found a longest answer of 128 tokens"):
        architecture_of(model).longest_prompt(model, tokenizer, 128)
    with pytest.raises(ValueError, match=r"an input of at least \d tokens, its separator among them, found 1"):
        DECODER_ONLY.prompt_ids(tokenizer, ["x"], architecture_of(model).longest_prompt(model, tokenizer, 127))


@pytest.mark.parametrize(("multiple", "length"), [(None, 128), (1, 128), (7, 126), (48, 96), (64, 128)])
def test_input_and_answer_keep_to_the_positions_with_their_padding(multiple, length, causal, tmp_path):
    model, tokenizer = causal
    columns = {"input": ["word " * 500], "references": [["answer after answer"]]}
    examples = load_examples(Dataset.from_dict(columns))
    trainer = trainer_of(
        copy.deepcopy(model),
        tokenizer,
        tmp_path,
        train_dataset=examples,
        max_target_length=12,
        pad_to_multiple_of=multiple,
    )
    found = trainer.data_collator([trainer.train_dataset[0]])["input_ids"].shape[1]
    assert found == length if multiple not in (None, 1) else found in (length - 1, length)
    trainer.train()
    with pytest.raises(ValueError, match=r"answers shorter than the 96 positions"):
        architecture_of(model).longest_prompt(model, tokenizer, 96, pad_to_multiple_of=48)


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9), min_size=1)), min_size=1)
)
def test_a_batch_gives_its_prompts_and_answers_back(pairs):
    batch = CausalCollator(PLAIN)([{"input_ids": prompt_ids, "labels": answer} for prompt_ids, answer in pairs])
    prompts = DECODER_ONLY.prompts_of(batch, pad=END)
    expected = padded([prompt_ids for prompt_ids, _ in pairs], END, "left")
    assert all(torch.equal(prompts[name], expected[name]) for name in expected)
    labels = DECODER_ONLY.answers_of(batch)
    assert [row[row >= 0].tolist() for row in labels] == [answer for _, answer in pairs]
    assert labels.shape[1] == max(len(answer) for _, answer in pairs)
    unlabelled = CausalCollator(PLAIN)([{"input_ids": prompt_ids} for prompt_ids, _ in pairs])
    assert set(unlabelled) == {"input_ids", "attention_mask"}
    assert torch.equal(DECODER_ONLY.prompts_of(unlabelled, pad=END)["input_ids"], expected["input_ids"])


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_the_answers_alone(smoothing, causal, examples, tmp_path):
    model, tokenizer = causal
    some = examples.select([0, 13, 26, 39])
    losses = []
    for row in some:
        answer = [*tokenizer(row["references"][0], add_special_tokens=False)["input_ids"], END]
        ids = prompt(tokenizer, row["input"]) + answer
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -len(answer) - 1 : -1]
        losses += torch.nn.functional.cross_entropy(
            logits, torch.tensor(answer), label_smoothing=smoothing, reduction="none"
        ).tolist()
    for summed in (False, True):
        trainer = trainer_of(model, tokenizer, tmp_path, sum_token_loss=summed, label_smoothing_factor=smoothing)
        items = trainer.tokenize(some)
        batch = trainer.data_collator([items[row] for row in range(4)])
        assert (batch["labels"] != -100).sum() == len(losses)
        assert (batch["labels"] == END).sum() == 4  # padding, which may be the same token, is no target
        loss = trainer.compute_loss(model.train(), dict(batch)).item()
        model.eval()
        assert loss == pytest.approx(sum(losses) if summed else np.mean(losses), rel=1e-4)
        assert trainer.evaluate(some)["eval_loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_a_long_input_does_not_cut_its_answer(causal, tmp_path):
    model, tokenizer = causal
    columns = {"input": ["word " * 500, "short", "?"], "references": [["the answer"]] * 3}
    examples = load_examples(Dataset.from_dict(columns))
    trainer = trainer_of(copy.deepcopy(model), tokenizer, tmp_path, train_dataset=examples, max_target_length=20)
    items = trainer.tokenize(examples)
    whole = DECODER_ONLY.answer_ids(tokenizer, ["the answer"], 100)[0]
    assert [items[row]["labels"] for row in range(3)] == [whole] * 3
    assert len(items[0]["input_ids"]) in (107, 108)  # of 128 positions, less twenty
    batch = trainer.data_collator([items[row] for row in range(3)])
    assert batch["input_ids"].shape[1] == len(items[0]["input_ids"]) + len(whole)
    trainer.train()
    assert np.isfinite(trainer.evaluate(examples)["eval_loss"])


def test_accumulated_gradients_are_those_of_a_larger_batch(tmp_path):
    data = {
        "input": ["Add one.", "What is up?", "Which?", "x"],
        "references": [["abcd"], ["efgh"], ["ijkl"], ["mnop"]],
    }
    norms = []
    for batch_size, steps in ((4, 1), (1, 4)):
        trainer = trainer_of(
            tiny.gpt2(PLAIN, dropout=0.0),
            PLAIN,
            tmp_path,
            train_dataset=load_examples(Dataset.from_dict(data)),
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=steps,
            max_steps=1,
        )
        trainer.train()
        norms += [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)


def test_a_trained_model_knows_its_examples(answering, examples, tmp_path):
    model, tokenizer = answering
    metrics = trainer_of(model, tokenizer, tmp_path).evaluate(examples)
    assert metrics["eval_exact_match"] > 90
    assert metrics["eval_loss"] < 0.3


def test_the_tokenizer_stays_as_it_is(answering, tmp_path):
    model, tokenizer = answering
    assert tokenizer.pad_token_id is None
    assert tokenizer.padding_side == "right"
    assert model.generation_config.pad_token_id is None
    trainer_of(model, tokenizer, tmp_path).save_model()
    assert type(tokenizer).from_pretrained(tmp_path).pad_token_id is None


# ---- generation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_answers_are_those_of_generate_prompt_by_prompt(settings, answering, examples):
    model, tokenizer = answering
    inputs = [*examples.shuffle(seed=1)["input"][:12], "x", "Who was it that came in here, and why?"]
    expected = [answer_alone(model, tokenizer, text, max_new_tokens=8, **settings) for text in inputs]
    assert len(set(expected)) > 3
    for token_budget in (1, 150, 10_000):
        found = generate_texts(model, tokenizer, inputs, token_budget=token_budget, max_new_tokens=8, **settings)
        assert found == expected


def test_padding_is_named_where_the_tokenizer_has_none(causal, monkeypatch):
    model, tokenizer = causal
    pads, generate = [], model.generate
    monkeypatch.setattr(model, "generate", lambda **kwargs: pads.append(kwargs["pad_token_id"]) or generate(**kwargs))
    generate_texts(model, tokenizer, ["one", "another one"], max_new_tokens=2)
    assert pads == [ENDING.pad_token_id if tokenizer is ENDING else END]  # else `generate` warns, batch after batch


def test_predictions_are_answers_in_the_order_of_the_data(answering, examples, tmp_path):
    model, tokenizer = answering
    some = examples.shuffle(seed=0).select(range(13))
    trainer = trainer_of(model, tokenizer, tmp_path)
    output = trainer.predict(some)
    alone = [answer_alone(model, tokenizer, text, max_new_tokens=12) for text in some["input"]]
    assert trainer.decode(output.predictions) == alone
    assert trainer.decode(output.label_ids) == [accepted[0] for accepted in some["references"]]
    unlabelled = trainer.predict(some.remove_columns("references"))
    assert unlabelled.label_ids is None
    assert not {"test_soft_em", "test_loss"} & set(unlabelled.metrics)
    assert trainer.decode(unlabelled.predictions) == alone


def test_compute_metrics_sees_answers_in_the_order_of_the_data(answering, examples, tmp_path):
    model, tokenizer = answering
    seen = []
    trainer = trainer_of(model, tokenizer, tmp_path)
    trainer.compute_metrics = lambda found: seen.extend(trainer.decode(found.label_ids)) or {"rows": len(seen)}
    assert trainer.evaluate(examples)["eval_rows"] == len(examples)
    assert seen == [accepted[0] for accepted in examples["references"]]


def test_answers_may_be_as_long_as_is_asked_for(tmp_path, examples):
    model = tiny.gpt2(PLAIN)
    model.lm_head = torch.nn.Linear(32, len(PLAIN))
    torch.nn.init.zeros_(model.lm_head.weight)
    with torch.no_grad():
        model.lm_head.bias.copy_(torch.arange(len(PLAIN)) == 40)  # it says one token and never stops
    for longest in (5, 33):
        trainer = trainer_of(model, PLAIN, tmp_path, max_target_length=longest)
        predictions = trainer.predict(examples.select(range(10))).predictions
        assert (predictions == 40).sum(axis=1).tolist() == [longest] * 10


# ---- vectors and indexes ---------------------------------------------------------------------------------------------


def test_vectors_are_the_mean_of_the_last_layer_of_each_text_alone(causal):
    model, tokenizer = causal
    texts = ["short", "Is the review good? It was a lovely film.", "", "Add one and three. " * 4, "word " * 300]
    encoder = MeanPooledEncoder(model, tokenizer, max_length=40)
    expected = []
    for ids in DECODER_ONLY.prompt_ids(tokenizer, texts, 40):
        with torch.no_grad():
            hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
        expected.append(hidden.mean(dim=0).numpy())
    for token_budget in (1, 60, 10_000):
        encoder.token_budget = token_budget
        vectors = encoder.encode(texts)
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-2
    assert encoder.encode([]).shape == (0, 32) == (0, vectors.shape[1])
    assert MeanPooledEncoder(model, tokenizer).max_length == 128


def test_a_weighted_mean_counts_the_nth_token_n_times_whatever_the_batch(causal):
    model, tokenizer = causal
    encoder = MeanPooledEncoder(model, tokenizer, pooling="weighted_mean")
    texts = ["yes", "Is the review good? It was a lovely film.", "Add one and three."]
    for text, vector in zip(texts, encoder.encode(texts), strict=True):
        ids = torch.tensor(DECODER_ONLY.prompt_ids(tokenizer, [text], 128))
        with torch.inference_mode():
            states = model.base_model(input_ids=ids).last_hidden_state[0]
        weights = torch.arange(1, len(states) + 1)[:, None]
        np.testing.assert_allclose(vector, (states * weights).sum(dim=0) / weights.sum(), rtol=1e-4, atol=1e-5)
    again = MeanPooledEncoder.from_settings(model, tokenizer, encoder.settings)
    assert again.identity() == encoder.identity() != MeanPooledEncoder(model, tokenizer).identity()
    with pytest.raises(ValueError, match="`pooling` must be 'mean' or 'weighted_mean', found 'max'"):
        MeanPooledEncoder(model, tokenizer, pooling="max")


def test_the_identity_says_how_inputs_are_read_where_that_is_more_than_the_tokenizer_says(causal, encoder, tmp_path):
    model, tokenizer = causal
    identity = MeanPooledEncoder(model, tokenizer).identity()
    assert set(identity) - set(encoder.identity()) == {"separator"}
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert MeanPooledEncoder.from_pretrained(tmp_path, device="cpu").identity() == identity


def test_an_index_is_built_opened_and_searched(causal, examples, tmp_path):
    model, tokenizer = causal
    encoder = MeanPooledEncoder(model, tokenizer)
    UpstreamIndex.build(examples, encoder, tmp_path)
    index = UpstreamIndex.from_pretrained(tmp_path, encoder=MeanPooledEncoder(copy.deepcopy(model), tokenizer))
    inputs = examples["input"][::7]
    retrieved = DenseRetriever(index).retrieve(inputs, len(inputs))
    assert retrieved["input"][:] == inputs
    np.testing.assert_allclose(retrieved["distance"][:], 0.0, atol=1e-3)


# ---- adaptation and pipelines ----------------------------------------------------------------------------------------


def lora(task_type: str = "CAUSAL_LM") -> LoraConfig:
    return LoraConfig(task_type=task_type, r=4, lora_alpha=64)


@pytest.fixture(scope="module")
def built_folder(answering, examples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    ReCrossPipeline.build(*answering, examples, folder, adaptation={"max_input_length": 64, "max_target_length": 8})
    return folder


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("method", ["full", "lora"])
def test_an_adapter_trains_evaluates_and_saves(method, causal, examples, tmp_path):
    model, tokenizer = causal
    index = UpstreamIndex.build(examples, MeanPooledEncoder(model, tokenizer), tmp_path / "index")
    args = AdaptationArguments(
        output_dir=str(tmp_path / "adapted"), use_cpu=True, disable_tqdm=True, max_steps=25, learning_rate=1e-2
    )
    args.num_retrieved, args.max_target_length = 12, 10
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapter = RetrievalAugmentedAdapter(
        model,
        args,
        retriever=DenseRetriever(index),
        query_dataset=tiny.queries(),
        eval_dataset=examples.select(range(5)),
        processing_class=tokenizer,
        peft_config=lora() if method == "lora" else None,
    )
    retrieved = adapter.retrieve()
    loss = adapter.evaluate(retrieved)["eval_loss"]
    adapter.train()
    assert adapter.evaluate(retrieved)["eval_loss"] < 0.8 * loss
    assert 0 <= adapter.evaluate()["eval_exact_match"] <= adapter.scores["eval"]["soft_em"] <= 100
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    adapter.save_model()
    adapter.create_model_card()
    card = (tmp_path / "adapted" / "README.md").read_text()
    assert "import AutoModelForCausalLM, AutoTokenizer" in card
    assert 'tokenizer("an input of the task\\n", return_tensors="pt")' in card
    assert "Seq2Seq" not in card


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("peft_config", [None, lora()], ids=["full", "lora"])
def test_a_pipeline_is_built_adapted_saved_and_loaded(peft_config, built_folder, answering, examples, tmp_path):
    pipeline = ReCrossPipeline.from_pretrained(built_folder)
    inputs = examples["input"][::5]
    expected = [answer_alone(*answering, text, max_new_tokens=8) for text in inputs]
    assert pipeline(inputs) == expected
    assert pipeline(inputs[1]) == expected[1]
    settings = {"output_dir": str(tmp_path / "out"), "use_cpu": True, "disable_tqdm": True}
    adapted = pipeline.adapt(
        tiny.queries(), peft_config=peft_config, num_retrieved=12, max_steps=4, learning_rate=1e-2, **settings
    )
    answers = adapted(inputs)
    adapted.save_pretrained(tmp_path / "saved")
    assert ReCrossPipeline.from_pretrained(tmp_path / "saved")(inputs) == answers


@pytest.mark.parametrize("first", ["pissa_niter_4", "corda", "lora_ga"])
def test_first_weights_that_change_the_base_anew_each_time_are_refused(first, bart):
    config = LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=["q_proj"])
    config.init_lora_weights = first
    with pytest.raises(
        ValueError, match=f"first weights that leave the base as it is, found init_lora_weights={first!r}"
    ):
        check_peft_config(bart, config)


def test_a_peft_config_of_the_other_kind_is_refused(causal, bart, tokenizer, index, tmp_path):
    args = AdaptationArguments(output_dir=str(tmp_path), use_cpu=True)
    rest = {"retriever": DenseRetriever(index), "query_dataset": tiny.queries()}
    for model, its_tokenizer, task_type, expected in (
        (*causal, "SEQ_2_SEQ_LM", "CAUSAL_LM"),
        (bart, tokenizer, "CAUSAL_LM", "SEQ_2_SEQ_LM"),
    ):
        with pytest.raises(ValueError, match=f"with task_type='{expected}', which suits .*, found .*{task_type}"):
            RetrievalAugmentedAdapter(model, args, **rest, processing_class=its_tokenizer, peft_config=lora(task_type))


# ---- kinds of models -------------------------------------------------------------------------------------------------


def test_either_kind_is_loaded_by_its_configuration(any_model, causal, tmp_path):
    for model, architecture in ((any_model, SEQUENCE_TO_SEQUENCE), (causal[0], DECODER_ONLY)):
        copy.deepcopy(model).to(torch.bfloat16).save_pretrained(tmp_path / "half")
        model.save_pretrained(tmp_path / "model")
        loaded = load_model(tmp_path / "model")
        assert type(loaded) is type(model)
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
        assert architecture_of(loaded) is architecture_of(model) is architecture
        assert load_model(tmp_path / "half").dtype == torch.float32
        assert load_model(tmp_path / "half", dtype=torch.bfloat16).dtype == torch.bfloat16


def test_other_models_are_refused(tokenizer, tmp_path):
    masked = BertForMaskedLM(tiny.bert_config(tokenizer))
    masked.save_pretrained(tmp_path)
    with pytest.raises(TypeError, match=r"such as BART\) or a decoder-only one .*, found BertForMaskedLM in .*grows"):
        load_model(tmp_path)
    vision = ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8))
    for model in (masked, BertModel(tiny.bert_config(tokenizer)), vision):
        with pytest.raises(TypeError, match=f"decoder-only one .*, found {type(model).__name__}"):
            architecture_of(model)
    decoder = BertLMHeadModel(tiny.bert_config(tokenizer, is_decoder=True))
    assert architecture_of(decoder) is DECODER_ONLY


def test_a_tokenizer_without_an_end_token_is_refused(examples, tmp_path):
    endless = copy.deepcopy(PLAIN)
    endless.eos_token = None
    with pytest.raises(ValueError, match=r"with an end-of-sequence token, found none.*Set `tokenizer\.eos_token`"):
        trainer_of(tiny.gpt2(PLAIN), endless, tmp_path)


def test_supervision_is_mined_with_a_decoder_only_model(causal, examples, tmp_path):
    model, tokenizer = causal
    index = UpstreamIndex.build(examples, MeanPooledEncoder(model, tokenizer), tmp_path / "index")
    args = SupervisionArguments(
        num_queries=2, num_held_out=4, num_candidates=8, num_labelled=4, group_size=4, num_query_sets=2
    )
    peft_config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pairs = mine_supervision(
        model, tokenizer, DenseRetriever(index), examples, tmp_path / "mined", args, peft_config=peft_config
    )
    assert {"query", "candidate", "label"} <= set(
        pairs["train"].column_names if "train" in pairs else pairs.column_names
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("changes", [{"encoder_ffn_dim": 60_000}, {"max_position_embeddings": 1 << 21}])
def test_a_configuration_that_asks_for_more_than_the_weights_hold_is_refused_before_it_is_built(
    changes, bart, tmp_path
):
    """Each size alone is harmless; what it is multiplied with is not."""
    bart.save_pretrained(tmp_path)
    before = torch.random.get_rng_state()
    assert torch.equal(load_model(tmp_path).lm_head.weight, bart.lm_head.weight)
    assert torch.equal(torch.random.get_rng_state(), before)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"d_model": 512} | changes))
    with pytest.raises(
        ArtifactError, match=r"Expected weights of about [\d,]+ numbers in .*, found 6\d,\d{3}\. The configuration"
    ):
        load_model(tmp_path)


def test_what_a_folder_has_not_and_types_that_there_are_not_are_refused(bart, tmp_path):
    bart.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`revision` of a repository on the Hub, found 'v2' of the folder"):
        load_model(tmp_path, revision="v2")
    with pytest.raises(ValueError, match=r"Expected `dtype` to be .* found 'float99'"):
        load_model(tmp_path, dtype="float99")
    assert load_model(tmp_path, dtype="float16").dtype == torch.float16


def test_a_configuration_that_passed_is_not_built_again_and_another_one_or_other_weights_are(
    bart, tmp_path, monkeypatch
):
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    folder = tmp_path / "model"
    bart.save_pretrained(folder)
    built = []
    from_config = AutoModelForSeq2SeqLM.from_config
    monkeypatch.setattr(
        AutoModelForSeq2SeqLM, "from_config", lambda *args, **kwargs: built.append(1) or from_config(*args, **kwargs)
    )
    config = AutoConfig.from_pretrained(folder)
    for _ in range(3):
        check_built_size(AutoModelForSeq2SeqLM, config, folder)
    assert len(built) == 1
    config.d_model, config.encoder_ffn_dim = 512, 60_000
    for _ in range(2):
        with pytest.raises(ArtifactError, match="Expected weights of about"):
            check_built_size(AutoModelForSeq2SeqLM, config, folder)
    assert len(built) == 3
    config = AutoConfig.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    save_file({"shared.weight": torch.zeros(2, 16)}, folder / "model.safetensors")
    check_built_size(AutoModelForSeq2SeqLM, config, folder)
    assert len(built) == 4


def test_a_model_that_is_neither_here_nor_to_be_had_is_told(tmp_path):
    for name in (tmp_path / "none", str(tmp_path / "none"), "./none"):
        with pytest.raises(
            FileNotFoundError, match=r"Expected the folder of a model, found none at .*none\. Name a folder"
        ):
            load_model(name)
    with pytest.raises(OSError, match="No folder org/none is here, and the Hub gave no such model"):
        load_model("org/none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"Expected a model with config\.json in .*empty, found none.*upstream_model"
    ):
        load_model(tmp_path / "empty")
