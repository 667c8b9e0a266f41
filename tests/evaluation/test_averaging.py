"""Averaged adapters: the mean of the changes, and a method that makes it."""

import copy

import pytest
import tiny
import torch
from evaluation_cases import ADAPTATION, task
from peft import LoraConfig, get_peft_model

from recross_hf import DenseRetriever, Method, RandomRetriever, evaluate_methods
from recross_hf.evaluation.averaging import average_adapters, lora_state
from recross_hf.evaluation.cells import CellKey
from recross_hf.evaluation.computation import compute_cell
from recross_hf.evaluation.run import prepare_evaluation


def random_lora(base, seed, **settings):
    model = get_peft_model(
        copy.deepcopy(base), LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], **settings)
    )
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return model


def changed(model):
    """The weights that an adapter makes of the base's."""
    return model.merge_and_unload().state_dict()


def test_the_mean_is_that_of_the_changes_of_different_ranks():
    base = tiny.llama(tiny.causal_tokenizer())
    settings = [{"r": 2, "lora_alpha": 8}, {"r": 4, "lora_alpha": 4}, {"r": 2, "lora_alpha": 2, "use_rslora": True}]
    models = [random_lora(base, seed, **of_model) for seed, of_model in enumerate(settings)]
    expected = [changed(copy.deepcopy(model)) for model in models]
    averaged = average_adapters(models[0], [lora_state(model) for model in models[1:]])
    assert [*averaged.peft_config] == ["mean"] and averaged.active_adapter == "mean"
    found = changed(averaged)
    for name in base.state_dict():
        mean = torch.stack([of_model[name] for of_model in expected]).mean(dim=0)
        assert torch.allclose(found[name], mean, atol=1e-5), name
    moved = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.allclose(found[moved], base.state_dict()[moved], atol=1e-2)


def test_what_is_no_lora_is_refused():
    with pytest.raises(ValueError, match="Expected adapters of LoRA to average, found LlamaForCausalLM"):
        lora_state(tiny.llama(tiny.causal_tokenizer()))


def test_parts_of_a_query_set_adapt_apart(pipeline, tmp_path):
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=2)
    dense = DenseRetriever(pipeline.index)
    by = [Method("one", dense, peft_config=lora), Method("two", dense, peft_config=lora, num_adapters=2)]
    settings = ADAPTATION | {"learning_rate": 5e-2}
    results = evaluate_methods(
        pipeline, [task("film", "film", 1)], by, tmp_path, settings=settings, show_progress=False
    )
    one, two = results.cells[:2]
    assert (one.error, two.error) == (None, None)
    assert (one.num_queries, two.num_queries, one.num_retrieved, two.num_retrieved) == (4, 4, 8, 8)
    assert len(two.details["parts"]) == 2 and "parts" not in one.details
    assert two.details["settings"]["method"]["num_adapters"] == 2
    assert "num_adapters" not in one.details["settings"]["method"]
    assert sum(two.retrieved_tasks.values()) == pytest.approx(1)
    with pytest.raises(ValueError, match="a `peft_config` for the 2 adapters to average"):
        Method("x", dense, num_adapters=2)
    with pytest.raises(ValueError, match=r"of 1 to 16 adapters, one for an input at the most, found num_adapters=17"):
        Method("x", dense, peft_config=lora, num_adapters=17)


@pytest.mark.parametrize("settings", [{"use_rslora": True}, {"init_lora_weights": "pissa"}])
def test_all_adapters_may_be_scaled_and_begun_in_another_way(settings):
    torch.manual_seed(1)
    base = tiny.llama(tiny.causal_tokenizer())
    models = [random_lora(base, seed, r=3, lora_alpha=8, **settings) for seed in range(3)]
    expected = [changed(copy.deepcopy(model)) for model in models]
    found = changed(average_adapters(models[0], [lora_state(model) for model in models[1:]]))
    for name in base.state_dict():
        mean = torch.stack([of_model[name] for of_model in expected]).mean(dim=0)
        assert torch.allclose(found[name], mean, atol=1e-4), name


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"bias": "lora_only"}, {"modules_to_save": ["lm_head"]}])
def test_what_the_mean_would_lose_is_refused(settings):
    model = random_lora(tiny.llama(tiny.causal_tokenizer()), 0, **settings)
    with pytest.raises(ValueError, match=f"Expected plain LoRA of adapters to average, found {next(iter(settings))}="):
        lora_state(model)


def test_each_part_of_a_query_set_draws_examples_of_its_own(pipeline, tmp_path):
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=2)
    upstream = pipeline.index.dataset
    drawn = Method("two", lambda seed: RandomRetriever(upstream, seed=seed), peft_config=lora, num_adapters=2)
    tasks = [task("film", "film", 1)]
    run = prepare_evaluation(pipeline, tasks, [drawn], tmp_path, settings=ADAPTATION)
    found = compute_cell(run, CellKey("two", "film", 0))["retrieved"]["id"]
    assert len(found) == 8 and set(found[:4]) != set(found[4:])
