import re

import pytest
import tiny
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    BertModel,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
)

from recross_hf import ExampleTrainer, ExampleTrainingArguments, warm_start_seq2seq
from recross_hf.models.generation import generate_texts
from recross_hf.models.warm_start import freeze


@pytest.fixture(scope="module")
def bert_folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    BertModel(tiny.bert_config(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_both_halves_start_from_the_first_layers_of_the_encoder(bert_folder):
    bert = BertModel.from_pretrained(bert_folder).state_dict()
    model, _ = warm_start_seq2seq(bert_folder, encoder_layers=1, decoder_layers=2)
    assert (len(model.encoder.encoder.layer), len(model.decoder.bert.encoder.layer)) == (1, 2)
    encoder = model.encoder.state_dict()
    assert encoder
    assert all(torch.equal(bert[name], value) for name, value in encoder.items())
    decoder = model.decoder.bert.state_dict()
    copied = [name for name in decoder if "crossattention" not in name]
    assert any("layer.1" in name for name in copied)
    assert all(torch.equal(bert[name], decoder[name]) for name in copied)
    assert any("crossattention" in name for name in decoder)
    everything, _ = warm_start_seq2seq(bert_folder)
    assert len(everything.encoder.encoder.layer) == 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, set()),
        ({"freeze_embeddings": True}, {"encoder.embeddings.word", "decoder.bert.embeddings.word"}),
        ({"freeze_encoder_layers": 1}, {"encoder.encoder.layer.0."}),
    ],
)
def test_only_what_was_asked_for_is_frozen(settings, expected, bert_folder):
    model, _ = warm_start_seq2seq(bert_folder, **settings)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert all(name.startswith(tuple(expected)) for name in frozen)
    assert all(any(name.startswith(prefix) for name in frozen) for prefix in expected)


@pytest.mark.parametrize("build", [tiny.bart, tiny.t5, tiny.gpt2])
def test_any_model_keeps_what_is_frozen(build, tokenizer):
    model = build(tokenizer)
    freeze(model, embeddings=True, encoder_layers=1)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    layers = {name for name in frozen if re.search(r"\b(layers|block|h)\.0\.", name)}
    assert layers and all(not name.startswith(("model.decoder", "decoder")) for name in layers)
    assert len(frozen - layers) == 1  # the embeddings


def frozen_by(model, **settings):
    """The parameters that `freeze` keeps from being trained, those left out that never are (sinusoids)."""
    before = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    freeze(model, **settings)
    return before - {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_layers_that_see_are_not_those_that_read(tokenizer):
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    text = {"vocab_size": len(tokenizer), "num_hidden_layers": 2, "num_key_value_heads": 1, "head_dim": 8}
    vision = {"num_hidden_layers": 3, "image_size": 8, "patch_size": 4}
    config = Gemma3Config(text_config=shape | text, vision_config=shape | vision, mm_tokens_per_image=4)
    frozen = frozen_by(Gemma3ForConditionalGeneration(config), embeddings=True, encoder_layers=1)
    layers = {name for name in frozen if name.startswith("model.language_model.layers.0.")}
    assert layers
    assert frozen - layers == {"model.language_model.embed_tokens.weight"}


@pytest.mark.parametrize("shared", [True, False])
def test_embeddings_of_a_decoder_of_its_own_are_kept_too(shared, tokenizer):
    config = MarianConfig(
        vocab_size=len(tokenizer),
        decoder_vocab_size=len(tokenizer),
        share_encoder_decoder_embeddings=shared,
        pad_token_id=tokenizer.pad_token_id,
        d_model=16,
        **dict.fromkeys(("encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads"), 1),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 16),
    )
    words = {"shared.weight"} if shared else {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    assert frozen_by(MarianMTModel(config), embeddings=True) == {f"model.{name}" for name in words}


@pytest.mark.parametrize("number", [-1, 3])
def test_layers_that_there_are_not_cannot_be_frozen(number, bert_folder):
    with pytest.raises(
        ValueError,
        match=f"from 0 to 2 layers to freeze, as many as read the input, found {number}. Set `encoder_layers`",
    ):
        warm_start_seq2seq(bert_folder, freeze_encoder_layers=number)


def test_layers_that_are_in_no_list_are_not_guessed_and_nothing_is_frozen(tokenizer):
    model = tiny.bart(tokenizer)
    model.model.encoder.layers = torch.nn.Sequential(*model.model.encoder.layers)
    with pytest.raises(
        ValueError, match=r"layers are in a `torch.nn.ModuleList`, .*found none in BartEncoder\. Freeze"
    ):
        freeze(model, embeddings=True, encoder_layers=1)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_it_trains_answers_and_is_saved_as_any_model(bert_folder, examples, tmp_path):
    model, tokenizer = warm_start_seq2seq(bert_folder, max_new_tokens=7, freeze_embeddings=True)
    assert model.dtype == torch.float32
    frozen = model.encoder.get_input_embeddings().weight.clone()
    args = ExampleTrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, max_steps=12, learning_rate=1e-2, logging_steps=3, save_strategy="no"
    )
    trainer = ExampleTrainer(model, args, train_dataset=examples, processing_class=tokenizer)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.1
    assert torch.equal(model.encoder.get_input_embeddings().weight, frozen)
    trainer.save_model(str(tmp_path / "saved"))
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved")
    inputs = examples["input"][:6]
    assert generate_texts(loaded, tokenizer, inputs) == generate_texts(model.eval(), tokenizer, inputs)


def test_the_longest_answer_is_in_the_generation_configuration(bert_folder):
    model, tokenizer = warm_start_seq2seq(bert_folder, max_new_tokens=7)
    model.generation_config.eos_token_id = None  # it never stops by itself
    ids = tokenizer(["What?"], return_tensors="pt")["input_ids"]
    output = model.generate(input_ids=ids)
    assert output.shape == (1, 8)
    assert output[0, 0] == tokenizer.cls_token_id


def test_a_tokenizer_that_is_not_berts_is_refused(bert_folder, tokenizer, tmp_path):
    BertModel.from_pretrained(bert_folder).save_pretrained(tmp_path)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"to have cls, sep and pad tokens, found .*Choose a BERT-like encoder"):
        warm_start_seq2seq(str(tmp_path))
