"""Adapters of many tasks on one base: added, switched, mixed in a batch, refused."""

import copy
import json
import shutil

import pytest
import tiny
import torch
from chat_templates import CHATML, chat_tokenizer
from peft import LoraConfig, PeftModel, get_peft_model

from recross_hf import ReCrossPipeline
from recross_hf.hub.errors import ArtifactError
from recross_hf.models.chat import set_chat_format
from recross_hf.models.generation import generate_texts

INPUTS = [row["input"] for row in tiny.examples().select(range(0, 48, 4))]
COMMIT, OTHER = "0123456789abcdef0123456789abcdef01234567", "f" * 40
ADAPTATION = {"max_input_length": 64, "max_target_length": 8}
BUILDS = {
    "bart": (tiny.bart, "SEQ_2_SEQ_LM", "fc1", {"q_proj", "v_proj"}),
    "llama": (tiny.llama, "CAUSAL_LM", "up_proj", {"q_proj", "down_proj"}),
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(scope="module", params=BUILDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return BUILDS[kind][0](tiny.tokenizer(), dropout=0.0)


@pytest.fixture(scope="module")
def built(model, examples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    ReCrossPipeline.build(model, tiny.tokenizer(), examples, folder, adaptation=ADAPTATION)
    return folder


@pytest.fixture(scope="module")
def adapters(kind, model, tmp_path_factory):
    """Folders of three adapters, of other ranks and modules."""
    folder = tmp_path_factory.mktemp("adapters")
    _, task_type, other, some = BUILDS[kind]
    for name, rank, modules in (("billing", 2, some), ("delivery", 4, some), ("bugs", 8, {other})):
        torch.manual_seed(rank)
        config = LoraConfig(
            task_type=task_type, r=rank, target_modules=modules, init_lora_weights=False, lora_alpha=32
        )
        get_peft_model(copy.deepcopy(model), config).save_pretrained(folder / name)
    return folder


@pytest.fixture
def pipeline(built, adapters):
    pipeline = ReCrossPipeline.from_pretrained(built, device="cpu")
    for name in ("billing", "delivery", "bugs"):
        pipeline.add_adapted(name, adapters / name)
    return pipeline


def alone(model, folder, **settings):
    """What an adapter answers by plain PEFT."""
    plain = PeftModel.from_pretrained(copy.deepcopy(model), folder).eval()
    return generate_texts(plain, tiny.tokenizer(), INPUTS, max_input_length=64, max_new_tokens=8, **settings)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_tasks_answer_as_they_would_alone_one_by_one_or_mixed(num_beams, pipeline, model, adapters):
    beams = {"num_beams": num_beams}
    expected = {name: alone(model, adapters / name, **beams) for name in ("billing", "delivery", "bugs")}
    base = pipeline(INPUTS, **beams)
    assert len({tuple(answers) for answers in (*expected.values(), base)}) == 4
    for name in ("billing", "bugs", "delivery", "billing"):
        assert pipeline.adapted_as(name)(INPUTS, **beams) == expected[name]
    names = ["billing", "bugs", "__base__", "delivery"] * 3
    pipeline.adapted_as("delivery")(INPUTS[0])  # what is active does not matter
    mixed = pipeline(INPUTS, adapter_names=names, **beams)
    answers = expected | {"__base__": base}
    assert mixed == [answers[name][row] for row, name in enumerate(names)]
    assert pipeline(INPUTS, **beams) == base  # the pipeline's own model is as it was
    assert pipeline(INPUTS[1], adapter_names=["bugs"], **beams) == expected["bugs"][1]


def test_the_tasks_share_the_weights_of_one_base(pipeline):
    own = {weight.data_ptr() for weight in pipeline.upstream_model.parameters()}
    shared = pipeline.adapted_as("bugs").model
    weights = {name: weight for name, weight in shared.named_parameters() if "lora_" not in name}
    assert {weight.data_ptr() for weight in weights.values()} == own
    assert not any(weight.requires_grad for weight in shared.parameters())
    assert not any("lora_" in name for name, _ in pipeline.upstream_model.named_parameters())
    assert all(weight.requires_grad for weight in pipeline.upstream_model.parameters())


def test_adapted_pipelines_are_added_from_memory_or_their_folder(pipeline, kind, queries, tmp_path):
    config = LoraConfig(task_type=BUILDS[kind][1], r=2, lora_alpha=32)
    settings = {"num_retrieved": 12, "max_steps": 4, "use_cpu": True, "disable_tqdm": True, "learning_rate": 1e-2}
    adapted = pipeline.adapt(queries, peft_config=config, max_target_length=3, **settings)
    assert adapted.adapter_names == []
    expected = adapted(INPUTS)
    pipeline.add_adapted("memory", adapted)
    adapted.save_pretrained(tmp_path / "saved")
    pipeline.add_adapted("folder", tmp_path / "saved")
    assert pipeline.adapted_as("memory")(INPUTS) == pipeline.adapted_as("folder")(INPUTS) == expected
    whole = pipeline.adapt(queries, **settings)
    with pytest.raises(
        ValueError, match=r"Expected a LoRA adapter in .*, found a whole model\. Adapt with `peft_config`"
    ):
        pipeline.add_adapted("whole", whole)
    whole.save_pretrained(tmp_path / "whole")
    with pytest.raises(ValueError, match="found a pipeline without one"):
        pipeline.add_adapted("whole", tmp_path / "whole")
    content = bytearray((tmp_path / "saved" / "adapted_model" / "adapter_model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "saved" / "adapted_model" / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match="is not the file that was saved"):
        pipeline.add_adapted("spoilt", tmp_path / "saved")


def test_on_an_upstream_adapter_the_tasks_are_on_its_base(kind, model, adapters, examples, queries, tmp_path):
    upstream = PeftModel.from_pretrained(copy.deepcopy(model), adapters / "delivery").eval()
    pipeline = ReCrossPipeline.build(upstream, tiny.tokenizer(), examples, tmp_path / "built", adaptation=ADAPTATION)
    settings = {"num_retrieved": 12, "max_steps": 4, "use_cpu": True, "disable_tqdm": True, "learning_rate": 1e-2}
    further = pipeline.adapt(queries, **settings)
    pipeline.add_adapted("further", further)
    pipeline.add_adapted("billing", adapters / "billing")
    assert pipeline.adapted_as("further")(INPUTS) == further(INPUTS)
    assert pipeline.adapted_as("billing")(INPUTS) == alone(model, adapters / "billing")
    assert pipeline(INPUTS) == alone(model, adapters / "delivery")
    config = LoraConfig(task_type=BUILDS[kind][1], r=2)
    merged = pipeline.adapt(queries, peft_config=config, upstream_adapter="merge", **settings)
    merged.save_pretrained(tmp_path / "merged")
    for source in (merged, tmp_path / "merged"):
        with pytest.raises(ValueError, match=r"found one on base and upstream adapter merged"):
            pipeline.add_adapted("merged", source)


def test_an_adapter_is_removed_and_replaced(pipeline, adapters, model):
    with pytest.raises(ValueError, match="that no other adapter has, found 'billing'"):
        pipeline.add_adapted("billing", adapters / "bugs")
    pipeline.remove_adapted("billing")
    pipeline.add_adapted("billing", adapters / "bugs")
    assert pipeline.adapted_as("billing")(INPUTS) == alone(model, adapters / "bugs")
    for name in ("billing", "delivery", "bugs"):
        pipeline.remove_adapted(name)
    assert pipeline.adapter_names == []
    assert pipeline(INPUTS[:2], adapter_names=["__base__"] * 2) == pipeline(INPUTS[:2])


def test_wrong_names_are_told_with_the_nearest(pipeline, adapters):
    message = r"\(billing, delivery, bugs\), found 'biling'\. Did you mean billing\? Add it with `add_adapted`"
    for ask in (
        lambda: pipeline.adapted_as("biling"),
        lambda: pipeline(INPUTS[:2], adapter_names=["bugs", "biling"]),
        lambda: pipeline.remove_adapted("biling"),
    ):
        with pytest.raises(ValueError, match=message):
            ask()
    with pytest.raises(ValueError, match=r"a name for each of the 3 inputs, found 2\. Repeat a name"):
        pipeline(INPUTS[:3], adapter_names=["bugs", "bugs"])
    with pytest.raises(ValueError, match="a name for each of the 12 inputs, found 'bugs'"):
        pipeline(INPUTS, adapter_names="bugs")
    with pytest.raises(ValueError, match=r"letters, digits and underscores, found 'a\.b'"):
        pipeline.add_adapted("a.b", adapters / "bugs")
    with pytest.raises(ValueError, match=r"found no adapter_config\.json"):
        pipeline.add_adapted("none", adapters)


def test_an_adapter_of_another_base_is_refused(pipeline, kind, adapters, built, examples, queries, tmp_path):
    tokenizer = tiny.tokenizer()
    before = pipeline.adapted_as("bugs")(INPUTS)
    # By its shapes.
    other = BUILDS[kind][0](tokenizer)
    other.config.hidden_size = 48
    config = LoraConfig(task_type=BUILDS[kind][1], target_modules={"q_proj"})
    wide = {"bart": {"d_model": 48}, "llama": {"hidden_size": 48}}[kind]
    get_peft_model(type(other)(type(other.config)(**other.config.to_dict() | wide)), config).save_pretrained(
        tmp_path / "wide"
    )
    with pytest.raises(ValueError, match="found one of other modules or shapes, which is on another base"):
        pipeline.add_adapted("wide", tmp_path / "wide")
    # By the checksums of its pipeline, or its weights in memory.
    torch.manual_seed(5)
    for weight in other.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    elsewhere = ReCrossPipeline.build(other.eval(), tokenizer, examples, tmp_path / "elsewhere", adaptation=ADAPTATION)
    settings = {"num_retrieved": 12, "max_steps": 1, "use_cpu": True, "disable_tqdm": True}
    adapted = elsewhere.adapt(queries, peft_config=LoraConfig(task_type=BUILDS[kind][1], r=2), **settings)
    adapted.save_pretrained(tmp_path / "adapted")
    for source in (adapted, tmp_path / "adapted"):
        with pytest.raises(ValueError, match="found one on other weights"):
            pipeline.add_adapted("elsewhere", source)
    assert pipeline.adapter_names == ["billing", "delivery", "bugs"]
    assert pipeline.adapted_as("bugs")(INPUTS) == before


def test_a_base_that_has_moved_on_the_hub_is_noticed(built, adapters, tmp_path):
    pipeline = ReCrossPipeline.from_pretrained(built, device="cpu")
    pipeline.upstream_model.name_or_path = pipeline.upstream_model.config._name_or_path = "org/base"
    pipeline.upstream_model.config._commit_hash = COMMIT
    folder = shutil.copytree(adapters / "billing", tmp_path / "adapter")
    settings = json.loads((folder / "adapter_config.json").read_text())

    def add(name, **base):
        (folder / "adapter_config.json").write_text(json.dumps(settings | base))
        pipeline.add_adapted(name, folder)

    with pytest.raises(ValueError, match=f"at commit {COMMIT}, found one on commit {OTHER}: the base has moved"):
        add("moved", base_model_name_or_path="org/base", revision=OTHER)
    with pytest.raises(ValueError, match="to be on org/base, the base of this pipeline, found one on org/other"):
        add("other", base_model_name_or_path="org/other", revision=COMMIT)
    add("same", base_model_name_or_path="org/base", revision=COMMIT)
    add("unknown", base_model_name_or_path="org/base", revision=None)
    assert pipeline.adapter_names == ["same", "unknown"]


# Those that take their first weights out of the base's would change the base below the other adapters.
@pytest.mark.parametrize(
    "setting", [{"use_dora": True}, *({"init_lora_weights": name} for name in ("pissa", "olora"))], ids=str
)
def test_what_is_no_plain_lora_is_refused(setting, pipeline, kind, model, tmp_path):
    expected = pipeline.adapted_as("bugs")(INPUTS)
    _, task_type, _, some = BUILDS[kind]
    config = LoraConfig(task_type=task_type, target_modules=some, r=2, **setting)
    get_peft_model(copy.deepcopy(model), config).save_pretrained(tmp_path / "other")
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=f"Expected plain LoRA of the adapter .*, found {name}={value!r}"):
        pipeline.add_adapted("other", tmp_path / "other")
    assert pipeline.adapted_as("bugs")(INPUTS) == expected


def test_an_adapter_of_embeddings_is_refused_and_leaves_the_others(pipeline, kind, model, adapters, tmp_path):
    expected = pipeline.adapted_as("bugs")(INPUTS)
    embeddings = {"bart": "shared", "llama": "embed_tokens"}[kind]
    config = LoraConfig(task_type=BUILDS[kind][1], target_modules={embeddings, "q_proj"})
    plain = get_peft_model(copy.deepcopy(model), config)
    plain.save_pretrained(tmp_path / "embeddings", save_embedding_layers=False)
    with pytest.raises(ValueError, match="found one that changes embeddings, which does not mix with others"):
        pipeline.add_adapted("embeddings", tmp_path / "embeddings")
    assert pipeline.adapter_names == ["billing", "delivery", "bugs"]
    assert pipeline.adapted_as("bugs")(INPUTS) == expected


def test_an_adapter_that_was_trained_on_other_prompts_is_refused(examples, queries, tmp_path):
    tokenizer = chat_tokenizer(CHATML)
    model = tiny.llama(tokenizer, dropout=0.0)
    pipeline = ReCrossPipeline.build(model, tokenizer, examples, tmp_path / "built", adaptation=ADAPTATION)
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")
    adapted = pipeline.adapt(queries, peft_config=config, num_retrieved=4, max_steps=1, disable_tqdm=True)
    adapted.save_pretrained(tmp_path / "adapted")
    adapted.adapted_model.save_pretrained(tmp_path / "alone")
    tokenizer.save_pretrained(tmp_path / "alone")
    other = chat_tokenizer(CHATML)
    set_chat_format(other, system_prompt="Answer in French.")
    french = ReCrossPipeline.build(model, other, examples, tmp_path / "french", adaptation=ADAPTATION)
    for source in (adapted, tmp_path / "adapted", tmp_path / "alone"):
        pipeline.add_adapted(f"task{len(pipeline.adapter_names)}", source)
        with pytest.raises(ValueError, match=r"another chat template or system prompt \(`system_prompt` Answ"):
            french.add_adapted("task", source)
    assert not french.adapter_names
    # One that was written before templates were read was trained without.
    path = tmp_path / "adapted" / "recross.json"
    manifest = json.loads(path.read_text())
    del manifest["encoder"]["chat_template"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="trained with another chat template"):
        pipeline.add_adapted("before", tmp_path / "adapted")
