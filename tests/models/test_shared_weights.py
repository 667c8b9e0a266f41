"""Adapters on a base whose weights are somebody else's, too."""

import copy

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers.trainer_utils import set_seed

from recross_hf.adaptation.model_copy import adaptable_copy
from recross_hf.models.adapters import merged_in_place
from recross_hf.models.shared_weights import can_share, on_shared_weights

SETTINGS = {"task_type": "CAUSAL_LM", "r": 2, "target_modules": "all-linear"}


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture
def model(tokenizer):
    return tiny.llama(tokenizer, dropout=0.0)


@pytest.fixture(params=["new", "going on"])
def adapted(request, model):
    """A model with an adapter that has learned something, and the model that it was copied from."""
    if request.param == "new":
        return adaptable_copy(model, LoraConfig(**SETTINGS, init_lora_weights=False), 0), model
    set_seed(0)
    upstream = get_peft_model(model, LoraConfig(**SETTINGS, init_lora_weights=False))
    return adaptable_copy(upstream, None, 0), upstream


def places(model):
    """Where each weight lies, by the name that it has without an adapter."""
    return {
        name.replace(".base_layer", "").removeprefix("base_model.model."): weight.data_ptr()
        for name, weight in model.named_parameters()
    }


def test_frozen_weights_are_shared_and_trained_ones_are_not(adapted):
    copied, model = adapted
    where, theirs = places(copied), places(model)
    trained = {
        name.replace(".base_layer", "").removeprefix("base_model.model.")
        for name, weight in copied.named_parameters()
        if weight.requires_grad
    }
    assert trained and all("lora_" in name for name in trained)
    shared = {name for name, place in where.items() if theirs.get(name) == place}
    assert shared == where.keys() - trained


@pytest.mark.parametrize("way", ["merge_and_unload", "merge_adapter"])
def test_merging_leaves_the_model_that_was_copied(way, adapted, tokenizer):
    copied, model = adapted
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs = tokenizer(["it is late"], return_tensors="pt")
    expected = copied.eval()(**inputs).logits
    merged = getattr(copied, way)() or copied
    torch.testing.assert_close(merged(**inputs).logits, expected, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not {*places(merged).values()} & {*places(model).values()}


def test_a_copy_of_the_copy_is_guarded_as_well(model):
    copied = copy.deepcopy(adaptable_copy(model, LoraConfig(**SETTINGS, init_lora_weights=False), 0))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copied.merge_and_unload()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("was_merged", ["merged still", "merged and taken out"])
def test_an_adapter_that_somebody_had_merged_is_left_as_it_is(was_merged, model):
    upstream = get_peft_model(model, LoraConfig(**SETTINGS, init_lora_weights=False))
    upstream = adaptable_copy(upstream, None, 0)
    upstream.merge_adapter()
    if was_merged == "merged and taken out":
        upstream.unmerge_adapter()
    before = {name: value.clone() for name, value in upstream.state_dict().items()}
    copied = adaptable_copy(upstream, None, 0)
    copied.merge_and_unload()
    assert all(torch.equal(value, before[name]) for name, value in upstream.state_dict().items())


def test_weights_of_the_base_in_an_adapters_file_are_not_written_into_it(model, tmp_path):
    get_peft_model(copy.deepcopy(model), LoraConfig(**SETTINGS, init_lora_weights=False)).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    changed = torch.zeros_like(model.model.embed_tokens.weight)
    save_file(load_file(file) | {"base_model.model.model.embed_tokens.weight": changed}, file)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    opened = on_shared_weights(model, tmp_path)
    assert torch.equal(opened.get_base_model().model.embed_tokens.weight, changed)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "own", [{"use_dora": True}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}, {"init_lora_weights": "pissa"}]
)
def test_an_adapter_that_changes_more_has_a_base_of_its_own(own, model):
    copied = adaptable_copy(model, LoraConfig(**SETTINGS | own), 0)
    assert not {*places(copied).values()} & {*places(model).values()}


def test_all_weights_are_copied(model):
    assert not {*places(adaptable_copy(model, None, 0)).values()} & {*places(model).values()}


def test_weights_that_are_more_than_their_values_are_not_shared(model):
    class Packed(torch.nn.Parameter):
        pass

    assert can_share(model)
    model.lm_head.weight = Packed(model.lm_head.weight.data)
    assert not can_share(model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_merge_is_in_float32_or_finer(dtype, model):
    adapted = get_peft_model(model.to(dtype), LoraConfig(**SETTINGS, init_lora_weights=False))
    merged = merged_in_place(adapted, is_named=True)
    assert merged.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
