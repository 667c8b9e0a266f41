"""Weights of a checkpoint in half precision, which a pipeline computes with in float32 and stores as they were."""

import json

import pytest
import tiny
import torch
from decoders import decoder
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM

from recross_hf import MeanPooledEncoder, ReCrossPipeline, UpstreamIndex
from recross_hf.models.adapters import with_new_adapter
from recross_hf.models.exact_weights import exact_dtype, stored_bytes, stored_weights
from recross_hf.models.loading import load_model
from recross_hf.models.shared_weights import base_alone
from recross_hf.pipeline import saving

HALVES = [torch.bfloat16, torch.float16]


def dtypes_in(folder):
    return {value.dtype for value in load_file(folder / "model.safetensors").values()}


def are_equal(one, other):
    own, others = one.state_dict(), other.state_dict()
    return own.keys() == others.keys() and all(torch.equal(value, others[name]) for name, value in own.items())


@pytest.fixture(params=HALVES)
def checkpoint(request, tokenizer, tmp_path):
    """A folder with a BART whose embeddings are shared, in half precision."""
    tiny.bart(tokenizer, dropout=0.0).to(request.param).save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_a_pipeline_stores_a_checkpoint_in_its_own_precision(checkpoint, tokenizer, examples, tmp_path):
    model = load_model(checkpoint)
    assert model.dtype == torch.float32
    built = ReCrossPipeline.build(model, tokenizer, examples, tmp_path / "built")
    stored, own = tmp_path / "built" / "upstream_model" / "model.safetensors", checkpoint / "model.safetensors"
    assert load_file(stored).keys() == load_file(own).keys()
    assert dtypes_in(stored.parent) == dtypes_in(checkpoint) != {torch.float32}
    assert stored.stat().st_size <= own.stat().st_size + 256

    # The model is the same to the bit, here and for plain tools, and so are index and answers.
    opened = ReCrossPipeline.from_pretrained(tmp_path / "built", device="cpu")
    assert opened.upstream_model.dtype == torch.float32 and are_equal(opened.upstream_model, model)
    assert are_equal(AutoModelForSeq2SeqLM.from_pretrained(stored.parent), model)
    UpstreamIndex.build(examples, MeanPooledEncoder(model, tokenizer), tmp_path / "index")
    assert (tmp_path / "built/index/index.json").read_bytes() == (tmp_path / "index/index.json").read_bytes()
    inputs = examples["input"][::7]
    assert len(opened.index) == len(examples) and opened(inputs) == built(inputs)
    # Nothing was changed, so that files are copied.
    assert not opened.parts.is_modified("upstream_model")
    opened.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "upstream_model" / "model.safetensors").read_bytes() == stored.read_bytes()


def test_what_was_trained_in_float32_stays_so(checkpoint, tokenizer, examples, queries, tmp_path):
    model = load_model(checkpoint)
    built = ReCrossPipeline.build(model, tokenizer, examples, tmp_path / "built")
    fast = {"max_steps": 1, "num_retrieved": 4, "use_cpu": True, "disable_tqdm": True, "gate": "off"}
    adapted = built.adapt(queries, learning_rate=1e-3, **fast)
    adapted.save_pretrained(tmp_path / "adapted")
    assert dtypes_in(tmp_path / "adapted" / "adapted_model") == {torch.float32}
    assert dtypes_in(tmp_path / "adapted" / "upstream_model") == dtypes_in(checkpoint)
    opened = ReCrossPipeline.from_pretrained(tmp_path / "adapted", device="cpu")
    assert are_equal(opened.adapted_model, adapted.adapted_model)


def test_the_base_of_an_adapter_is_stored_in_its_own_precision(checkpoint, tokenizer, examples, tmp_path):
    peft_config = LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, init_lora_weights=False)
    model = with_new_adapter(load_model(checkpoint), peft_config, seed=0)
    ReCrossPipeline.build(model, tokenizer, examples, tmp_path / "built")
    assert dtypes_in(tmp_path / "built" / "base_model") == dtypes_in(checkpoint)
    adapter = load_file(tmp_path / "built" / "upstream_model" / "adapter_model.safetensors")
    assert {value.dtype for value in adapter.values()} == {torch.float32}
    opened = ReCrossPipeline.from_pretrained(tmp_path / "built", device="cpu")
    assert are_equal(opened.upstream_model, model) and len(opened.index) == len(examples)


def test_an_adapter_of_a_pipeline_that_an_earlier_version_stored_goes_on_the_same_weights(
    checkpoint, tokenizer, examples, queries, tmp_path, monkeypatch
):
    built = ReCrossPipeline.build(load_model(checkpoint), tokenizer, examples, tmp_path / "built")
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=2)
    fast = {"max_steps": 1, "num_retrieved": 4, "use_cpu": True, "disable_tqdm": True, "gate": "off"}
    with monkeypatch.context() as earlier:
        earlier.setattr(saving, "stored_weights", lambda model: model.state_dict())
        built.adapt(queries, peft_config=lora, **fast).save_pretrained(tmp_path / "earlier")
    assert dtypes_in(tmp_path / "earlier" / "upstream_model") == {torch.float32}
    opened = ReCrossPipeline.from_pretrained(tmp_path / "built", device="cpu")
    opened.add_adapted("earlier", tmp_path / "earlier")
    expected = ReCrossPipeline.from_pretrained(tmp_path / "earlier", device="cpu")(queries)
    assert opened.adapted_as("earlier")(queries) == expected


def test_an_adapter_on_another_architecture_whose_weights_have_other_names_is_refused(examples, queries, tmp_path):
    tokenizer = tiny.causal_tokenizer()
    for family in ("llama", "opt"):
        ReCrossPipeline.build(decoder(family, tokenizer), tokenizer, examples, tmp_path / family)
    own, other = (ReCrossPipeline.from_pretrained(tmp_path / family, device="cpu") for family in ("llama", "opt"))
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"])
    fast = {"max_steps": 1, "num_retrieved": 4, "use_cpu": True, "disable_tqdm": True, "gate": "off"}
    other.adapt(queries, peft_config=lora, **fast).save_pretrained(tmp_path / "adapted")
    with pytest.raises(ValueError, match="found one on other weights"):
        own.add_adapted("other", tmp_path / "adapted")


@pytest.mark.parametrize("dtype", HALVES)
def test_one_number_that_needs_more_keeps_all_weights_as_they_are(dtype, tokenizer):
    model = tiny.bart(tokenizer).to(dtype).float()
    assert {value.dtype for value in stored_weights(model).values()} == {dtype}
    assert are_equal(model, tiny.bart(tokenizer).to(dtype).float())  # it is not changed
    with torch.no_grad():
        model.get_input_embeddings().weight[5, 3] = 1 + 2**-12
    assert {value.dtype for value in stored_weights(model).values()} == {torch.float32}


@pytest.mark.parametrize("is_half", [True, False])
@pytest.mark.parametrize("is_peft", [True, False])
def test_a_plan_knows_what_is_stored(is_half, is_peft, tokenizer, tmp_path):
    model = tiny.bart(tokenizer)
    model = model.bfloat16().float() if is_half else model
    if is_peft:
        model = with_new_adapter(model, LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, init_lora_weights=False), seed=0)
    base, adapter = base_alone(model), get_peft_model_state_dict(model) if is_peft else {}
    base.save_pretrained(tmp_path, state_dict=stored_weights(base))
    stored = sum(value.nbytes for value in [*load_file(tmp_path / "model.safetensors").values(), *adapter.values()])
    buffers = sum(value.numel() for value in base.buffers()) * (2 if is_half else 4)
    assert stored_bytes(model) == stored - buffers


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, -0.0, 2.0**100], torch.bfloat16),
        ([1.0, 1 + 2**-10], torch.float16),
        ([1 + 2**-10, 2.0**100], None),
        ([1.0, float("nan")], None),
        ([0.1], None),
    ],
)
def test_the_precision_holds_each_number_to_the_bit(values, expected):
    weights = [torch.tensor(values), torch.arange(3)]
    assert exact_dtype(weights) == expected
    if expected is not None:
        again = weights[0].to(expected).float()
        assert torch.equal(again.view(torch.int32), weights[0].view(torch.int32))


def test_the_configuration_says_what_the_model_computes_in(checkpoint, tokenizer, examples, tmp_path):
    ReCrossPipeline.build(load_model(checkpoint), tokenizer, examples, tmp_path / "built")
    assert json.loads((tmp_path / "built" / "upstream_model" / "config.json").read_text())["dtype"] == "float32"
