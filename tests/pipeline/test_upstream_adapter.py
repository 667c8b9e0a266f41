"""Pipelines whose upstream model is an adapter on a base: built, saved, opened, adapted in three ways."""

import html
import importlib
import json
import shutil

import pytest
import tiny
import torch
from example_scripts import recross
from huggingface_hub import constants
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from recross_hf import AdaptationArguments, DenseRetriever, ExampleTrainer, ExampleTrainingArguments, ReCrossPipeline
from recross_hf.adaptation.model_copy import adaptable_copy
from recross_hf.hub.errors import ArtifactError
from recross_hf.models.adapters import load_upstream_model, load_upstream_tokenizer
from recross_hf.retrieval.vector_shards import IndexMismatchError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ADAPTATION = {"max_input_length": 64, "max_target_length": 8, "learning_rate": 1e-2}
FAST = {"num_retrieved": 12, "max_steps": 4, "use_cpu": True, "disable_tqdm": True}
BUILDS = {"bart": (tiny.bart, tiny.tokenizer, "SEQ_2_SEQ_LM"), "llama": (tiny.llama, tiny.tokenizer, "CAUSAL_LM")}
AUTO = {"bart": AutoModelForSeq2SeqLM, "llama": AutoModelForCausalLM}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(scope="module", params=BUILDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def trained(kind, examples, tmp_path_factory):
    """A PEFT model after some steps, and its tokenizer."""
    build, make_tokenizer, task_type = BUILDS[kind]
    tokenizer, folder = make_tokenizer(), tmp_path_factory.mktemp("trained")
    base = build(tokenizer, dropout=0.0)
    base.save_pretrained(folder / "base")
    base = AUTO[kind].from_pretrained(folder / "base")
    config = LoraConfig(task_type=task_type, r=4, lora_alpha=32, target_modules="all-linear")
    torch.manual_seed(0)
    model = get_peft_model(base, config)
    args = ExampleTrainingArguments(
        output_dir=str(folder / "lora"),
        use_cpu=True,
        max_steps=40,
        learning_rate=1e-2,
        per_device_train_batch_size=16,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = ExampleTrainer(model, args, train_dataset=examples, processing_class=tokenizer)
    trainer.train()
    trainer.save_model()
    return model.eval(), tokenizer, folder


@pytest.fixture(scope="module")
def built(trained, examples, tmp_path_factory):
    model, tokenizer, _ = trained
    folder = tmp_path_factory.mktemp("built")
    ReCrossPipeline.build(model, tokenizer, examples, folder, adaptation=ADAPTATION)
    return folder


@pytest.fixture
def pipeline(built):
    return ReCrossPipeline.from_pretrained(built, device="cpu")


def parts_of(folder):
    return json.loads((folder / "recross.json").read_text())


def adapter_in(folder):
    return load_file(folder / "adapter_model.safetensors")


# ---- stored apart ----------------------------------------------------------------------------------------------------


def test_base_and_adapter_are_stored_apart_and_opened_as_one(built, pipeline, trained, examples, kind, tmp_path):
    model = trained[0]
    manifest = parts_of(built)
    assert list(manifest["parts"]) == ["base_model", "upstream_model", "index"]
    assert manifest["format_version"] == 3
    assert "adapter_model.safetensors" in manifest["parts"]["upstream_model"]["sha256"]
    inputs = examples["input"][::5]
    in_memory = ReCrossPipeline(model, pipeline.processing_class, pipeline.index, adaptation=ADAPTATION)
    answers = pipeline(inputs)
    assert answers == in_memory(inputs)
    with pipeline.upstream_model.disable_adapter():
        assert pipeline(inputs) != answers
    assert pipeline.index.search(pipeline.index.encoder.encode(inputs), 3).positions.shape == (len(inputs), 3)
    # The parts are what the plain tools open.
    plain = PeftModel.from_pretrained(AUTO[kind].from_pretrained(built / "base_model"), built / "upstream_model")
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())
    # Saved again, untouched or opened, they are the same files.
    pipeline.save_pretrained(tmp_path / "saved")
    assert parts_of(tmp_path / "saved")["parts"] == manifest["parts"]
    assert ReCrossPipeline.from_pretrained(tmp_path / "saved", device="cpu")(inputs) == answers


def test_a_model_in_memory_is_saved_apart_too(built, pipeline, trained, examples, tmp_path):
    model, tokenizer, _ = trained
    whole = ReCrossPipeline(model, tokenizer, pipeline.index, adaptation=ADAPTATION)
    whole.save_pretrained(tmp_path / "saved")
    saved = parts_of(tmp_path / "saved")["parts"]
    assert saved["base_model"] == parts_of(built)["parts"]["base_model"]
    inputs = examples["input"][::5]
    assert ReCrossPipeline.from_pretrained(tmp_path / "saved", device="cpu")(inputs) == pipeline(inputs)


@pytest.mark.parametrize("name", ["base_model/model.safetensors", "upstream_model/adapter_model.safetensors"])
def test_other_files_of_either_are_noticed(name, built, tmp_path):
    folder = shutil.copytree(built, tmp_path / "spoilt")
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactError, match="is not the file that was saved"):
        ReCrossPipeline.from_pretrained(folder).upstream_model  # noqa: B018


def test_weights_that_were_changed_in_place_are_noticed(pipeline, built, tmp_path):
    loaded = ReCrossPipeline.from_pretrained(built, device="cpu")
    with torch.no_grad():
        loaded.upstream_model.get_base_model().get_input_embeddings().weight[5] += 1
    assert loaded.parts.is_modified("base_model") and not loaded.parts.is_modified("upstream_model")
    with pytest.raises(IndexMismatchError):
        loaded.save_pretrained(tmp_path / "saved")
    with torch.no_grad():
        next(weight for name, weight in pipeline.upstream_model.named_parameters() if "lora_B" in name).add_(1)
    assert pipeline.parts.is_modified("upstream_model") and not pipeline.parts.is_modified("base_model")


# A pipeline stores the base of PiSSA's adapter as that adapter changed it, and who opens it would change it again.
@pytest.mark.parametrize("setting", [{"use_dora": True}, {"init_lora_weights": "pissa_niter_2"}], ids=str)
def test_an_adapter_that_is_no_plain_lora_is_refused(setting, trained, kind, examples, tmp_path):
    _, tokenizer, folder = trained
    base = AUTO[kind].from_pretrained(folder / "base")
    task_type = BUILDS[kind][2]
    other = get_peft_model(base, LoraConfig(task_type=task_type, target_modules=["q_proj"], r=2, **setting))
    ((name, value),) = setting.items()
    with pytest.raises(
        ValueError, match=f"Expected plain LoRA of an upstream model with an adapter, found {name}={value!r}"
    ):
        ReCrossPipeline.build(other, tokenizer, examples, tmp_path / "built")


def test_a_pipeline_that_was_written_with_such_an_adapter_is_refused(trained, kind, examples, tmp_path, monkeypatch):
    _, tokenizer, folder = trained
    base = AUTO[kind].from_pretrained(folder / "base")
    config = LoraConfig(task_type=BUILDS[kind][2], target_modules=["q_proj"], r=2, init_lora_weights="pissa")
    with monkeypatch.context() as patched:  # as earlier versions did
        for module in ("pipeline", "saving"):
            patched.setattr(f"recross_hf.pipeline.{module}.check_upstream_adapter", lambda model: None)
        ReCrossPipeline.build(get_peft_model(base, config), tokenizer, examples, tmp_path / "built")
    opened = ReCrossPipeline.from_pretrained(tmp_path / "built", device="cpu")
    with pytest.raises(ValueError, match="found init_lora_weights='pissa'"):
        opened("one more input")


def test_two_upstream_adapters_are_refused(trained, kind, examples, tmp_path):
    _, tokenizer, folder = trained
    two = PeftModel.from_pretrained(AUTO[kind].from_pretrained(folder / "base"), folder / "lora")
    two.load_adapter(folder / "lora", adapter_name="other")
    with pytest.raises(ValueError, match=r"one adapter named default, .* found default, other"):
        ReCrossPipeline.build(two, tokenizer, examples, tmp_path / "built")


def test_a_manifest_without_the_base_of_its_adapter_is_refused(built, tmp_path):
    folder = shutil.copytree(built, tmp_path / "spoilt")
    manifest = parts_of(folder)
    del manifest["parts"]["base_model"]
    (folder / "recross.json").write_text(json.dumps(manifest | {"format_version": 2}))
    with pytest.raises(ArtifactError, match=r"found an adapter\. Merge it"):
        ReCrossPipeline.from_pretrained(folder).upstream_model  # noqa: B018


# ---- a base of the Hub -----------------------------------------------------------------------------------------------


@pytest.fixture
def cached(trained, monkeypatch, tmp_path):
    """The base as the cache has it after it was loaded from the Hub, with a file beside it that nobody named."""
    home = tmp_path / "cache"
    snapshot = home / "models--org--base" / "snapshots" / COMMIT
    shutil.copytree(trained[2] / "base", snapshot)
    (snapshot / "tokenizer_config.json").write_text("{}")
    (home / "models--org--base" / "refs").mkdir()
    (home / "models--org--base" / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    for module in ("transformers.utils.hub", "huggingface_hub.file_download"):
        monkeypatch.setattr(f"{module}.constants.HF_HUB_CACHE", str(home))
    return home


def test_a_base_of_the_hub_is_named_and_not_stored(cached, trained, kind, examples, queries, tmp_path):
    model, tokenizer, folder = trained
    settings = json.loads((folder / "lora" / "adapter_config.json").read_text())
    lora = shutil.copytree(folder / "lora", tmp_path / "lora")
    settings |= {"base_model_name_or_path": "org/base", "revision": COMMIT}
    (lora / "adapter_config.json").write_text(json.dumps(settings))
    loaded = load_upstream_model(lora, cache_dir=cached).eval()
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    ReCrossPipeline.build(loaded, tokenizer, examples, tmp_path / "built", adaptation=ADAPTATION)
    manifest = parts_of(tmp_path / "built")["parts"]
    assert (manifest["base_model"]["repo_id"], manifest["base_model"]["revision"]) == ("org/base", COMMIT)
    assert {path.name for path in (tmp_path / "built").iterdir()} == {"recross.json", "upstream_model", "index"}
    opened = ReCrossPipeline.from_pretrained(tmp_path / "built", device="cpu", cache_dir=cached)
    inputs = examples["input"][::5]
    assert opened(inputs) == ReCrossPipeline(model, tokenizer, opened.index, adaptation=ADAPTATION)(inputs)
    assert opened.upstream_model.get_base_model().name_or_path == "org/base"
    opened.save_pretrained(tmp_path / "saved")
    assert parts_of(tmp_path / "saved")["parts"] == manifest
    # What comes of an adaptation is plain LoRA on that base at that commit.
    opened.adapt(queries, **FAST).save_pretrained(tmp_path / "adapted")
    saved = json.loads((tmp_path / "adapted" / "adapted_model" / "adapter_config.json").read_text())
    assert (saved["base_model_name_or_path"], saved["revision"]) == ("org/base", COMMIT)
    # Weights that are no more those of the Hub are stored.
    with torch.no_grad():
        loaded.get_base_model().get_input_embeddings().weight[5] += 1
    ReCrossPipeline.build(loaded, tokenizer, examples, tmp_path / "other")
    assert "repo_id" not in parts_of(tmp_path / "other")["parts"]["base_model"]


@pytest.fixture
def published(cached, trained):
    """An adapter in the cache of the Hub that has two revisions; the older one names the base at its commit, the newer one is zero."""
    repository, commits = cached / "models--org--lora", {"old": "a" * 40, "main": "b" * 40}
    (repository / "refs").mkdir(parents=True)
    for name, commit in commits.items():
        snapshot = repository / "snapshots" / commit
        shutil.copytree(trained[2] / "lora", snapshot, ignore=shutil.ignore_patterns("tokenizer*"))
        settings = json.loads((snapshot / "adapter_config.json").read_text())
        base = {"base_model_name_or_path": "org/base", "revision": COMMIT if name == "old" else None}
        (snapshot / "adapter_config.json").write_text(json.dumps(settings | base))
        (repository / "refs" / name).write_text(commit)
    zero = {key: value * 0 for key, value in load_file(snapshot / "adapter_model.safetensors").items()}
    save_file(zero, snapshot / "adapter_model.safetensors", metadata={"format": "pt"})
    # The base's own main branch is another one since the old adapter was trained.
    newer = shutil.copytree(
        cached / "models--org--base" / "snapshots" / COMMIT, cached / "models--org--base/snapshots" / ("c" * 40)
    )
    ones = {key: torch.ones_like(value) for key, value in load_file(newer / "model.safetensors").items()}
    save_file(ones, newer / "model.safetensors", metadata={"format": "pt"})
    (cached / "models--org--base" / "refs" / "main").write_text("c" * 40)
    return "org/lora"


def test_the_revision_asked_for_is_that_of_the_adapter_and_the_adapter_names_that_of_its_base(published, trained):
    model = trained[0]
    loaded = load_upstream_model(published, revision="old")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    newest = load_upstream_model(published).state_dict()
    assert not any(value.any() for name, value in newest.items() if "lora_" in name)
    assert all((value == 1).all() for name, value in newest.items() if name.endswith("embed_tokens.weight"))


def test_how_files_are_fetched_holds_for_an_adapter_its_base_and_its_tokenizer(
    published, cached, trained, monkeypatch
):
    asked = []

    def noting(name):
        owner, _, attribute = name.rpartition(".")
        called = getattr(importlib.import_module(owner), attribute)

        def call(*args, **kwargs):
            asked.append((attribute, str(args[0]), kwargs.get("revision"), kwargs.get("token")))
            return called(*args, **kwargs)

        monkeypatch.setattr(name, call)

    for name in ("find_adapter_config_file", "load_model", "cached_file"):
        noting(f"recross_hf.models.adapters.{name}")
    noting("recross_hf.hub.fetching.snapshot_download")
    load_upstream_model(published, revision="old", token="hf_own")
    assert {(name, repository, revision) for name, repository, revision, _ in asked} == {
        ("find_adapter_config_file", "org/lora", "old"),
        ("snapshot_download", "org/lora", "old"),
        ("load_model", "org/base", COMMIT),
    }
    trained[1].save_pretrained(cached / "models--org--base" / "snapshots" / COMMIT)
    tokenizer = load_upstream_tokenizer(published, revision="old", token="hf_own")
    assert tokenizer.get_vocab() == trained[1].get_vocab()
    assert ("cached_file", "org/lora", "old", "hf_own") in asked
    assert {token for *_, token in asked} == {"hf_own"}


def test_a_revision_of_a_folder_with_an_adapter_is_refused(trained):
    with pytest.raises(ValueError, match=r"found 'old' of the folder"):
        load_upstream_model(trained[2] / "lora", revision="old")


# ---- adapting --------------------------------------------------------------------------------------------------------


def test_the_upstream_adapter_goes_on_and_stays_plain_lora_on_the_base(
    pipeline, built, kind, queries, examples, tmp_path
):
    before = adapter_in(built / "upstream_model")
    adapted = pipeline.adapt(queries, **FAST)
    inputs = examples["input"][::5]
    answers = adapted(inputs)
    adapted.save_pretrained(tmp_path / "saved")
    manifest = parts_of(tmp_path / "saved")["parts"]
    assert manifest["adapted_model"]["base"] == "base_model"
    after = adapter_in(tmp_path / "saved" / "adapted_model")
    assert set(after) == set(before) and not all(torch.equal(after[name], value) for name, value in before.items())
    opened = ReCrossPipeline.from_pretrained(tmp_path / "saved", device="cpu")
    assert opened(inputs) == answers
    assert not opened.parts.stored.is_opened("upstream_model")
    opened.upstream_model  # noqa: B018
    again = ReCrossPipeline.from_pretrained(tmp_path / "saved", device="cpu")
    again.upstream_model  # noqa: B018  the base is copied from it
    assert again(inputs) == answers
    base = AUTO[kind].from_pretrained(built / "base_model")
    plain = PeftModel.from_pretrained(base, tmp_path / "saved" / "adapted_model")
    values = adapted.adapted_model.state_dict()
    assert all(torch.equal(value, values[name]) for name, value in plain.state_dict().items())
    # The caller's model stayed as it was.
    assert all(
        torch.equal(value, before[name.replace(".default", "")])
        for name, value in pipeline.upstream_model.state_dict().items()
        if "lora_" in name
    )


@pytest.mark.parametrize("way", ["new adapter", "all weights"])
def test_the_upstream_adapter_is_merged_first(way, pipeline, built, kind, queries, examples, tmp_path):
    config = LoraConfig(task_type=BUILDS[kind][2], r=2, lora_alpha=32) if way == "new adapter" else None
    adapted = pipeline.adapt(queries, peft_config=config, upstream_adapter="merge", **FAST)
    inputs = examples["input"][::5]
    answers = adapted(inputs)
    adapted.save_pretrained(tmp_path / "saved")
    manifest = parts_of(tmp_path / "saved")["parts"]["adapted_model"]
    assert manifest.get("base") == ("upstream_model" if way == "new adapter" else None)
    assert ("adapter_config.json" in manifest["sha256"]) == (way == "new adapter")
    opened = ReCrossPipeline.from_pretrained(tmp_path / "saved", device="cpu")
    assert opened(inputs) == answers
    merged = pipeline.adapt(
        queries, peft_config=config, upstream_adapter="merge", **FAST | {"max_steps": 1, "learning_rate": 1e-12}
    )
    assert merged(inputs) == pipeline(inputs)  # the beginning is base and adapter
    if way == "new adapter":  # on the base alone it would answer otherwise, so that it names none
        saved = json.loads((tmp_path / "saved" / "adapted_model" / "adapter_config.json").read_text())
        assert saved["base_model_name_or_path"] is None


def test_in_half_precision_the_sum_of_base_and_adapter_is_not_rounded(pipeline, built, kind, queries, tmp_path):
    half = ReCrossPipeline.from_pretrained(built, device="cpu", dtype=torch.bfloat16).upstream_model
    assert {half.dtype} == {torch.bfloat16}
    layers = [(name, layer) for name, layer in half.get_base_model().named_modules() if hasattr(layer, "lora_A")]
    sums = {
        name: layer.base_layer.weight.float() + layer.get_delta_weight("default").float() for name, layer in layers
    }
    rounds = [(value.bfloat16() != value).any() for value in sums.values()]
    assert layers and all(rounds)
    config = LoraConfig(task_type=BUILDS[kind][2], r=2, lora_alpha=32)
    pipeline.adapt(queries, peft_config=config, upstream_adapter="merge", **FAST).save_pretrained(tmp_path / "saved")
    opened = ReCrossPipeline.from_pretrained(tmp_path / "saved", device="cpu", dtype=torch.bfloat16).adapted_model
    for model in (adaptable_copy(half, config, 0, upstream_adapter="merge"), opened):
        beneath = dict(model.get_base_model().named_modules())
        for name, value in sums.items():
            torch.testing.assert_close(getattr(beneath[name], "base_layer", beneath[name]).weight, value)
    assert half.dtype == torch.bfloat16  # the caller's model stayed as it was


def test_a_peft_config_beside_an_adapter_that_goes_on_is_refused(pipeline, kind, queries):
    config = LoraConfig(task_type=BUILDS[kind][2])
    with pytest.raises(ValueError, match=r"Expected no `peft_config` .* or set `upstream_adapter='merge'`"):
        pipeline.adapt(queries, peft_config=config, **FAST)
    with pytest.raises(ValueError, match="`upstream_adapter` must be 'continue' or 'merge', found 'keep'"):
        AdaptationArguments(upstream_adapter="keep")


def test_a_killed_adaptation_of_the_upstream_adapter_goes_on(pipeline, queries, tmp_path):
    def adapter(name):
        args = pipeline.arguments(**FAST, output_dir=str(tmp_path / name), save_strategy="steps", save_steps=2)
        return pipeline.adapter(queries, args, retriever=DenseRetriever(pipeline.index))

    whole = adapter("whole")
    whole.train()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "killed" / "checkpoint-2")
    resumed = adapter("killed")
    resumed.train(resume_from_checkpoint=True)
    expected = {name: value for name, value in whole.model.state_dict().items() if "lora_" in name}
    assert all(torch.equal(resumed.model.state_dict()[name], value) for name, value in expected.items())


# ---- commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["bart", pytest.param("llama", marks=pytest.mark.slow)], indirect=True, scope="module"
)
def test_the_commands_train_index_and_adapt_an_adapter(trained, kind, tmp_path):
    base = shutil.copytree(trained[2] / "base", tmp_path / "base")
    trained[1].save_pretrained(base)
    (tmp_path / "plain").mkdir()
    plain = get_peft_model(AUTO[kind].from_pretrained(base), LoraConfig(task_type=BUILDS[kind][2], r=2))
    plain.save_pretrained(tmp_path / "plain")  # without a tokenizer
    tiny.examples().to_parquet(tmp_path / "upstream.parquet")
    (tmp_path / "tickets.txt").write_text("My parcel is lost.\nMy bill is wrong.\n")
    few = ["--use_cpu", "--max_steps", 2, "--disable_tqdm", "true"]

    def succeed(*words):
        code, printed, told = recross(tmp_path, *words)
        assert code == 0, told
        return printed

    succeed(
        "train", "--train_files", "upstream.parquet", "--model_name_or_path", "base", "--use_peft", *few, "-o", "lora"
    )
    succeed("index", "--model_name_or_path", "lora", "--train_files", "upstream.parquet", "--output_dir", "pipeline")
    succeed("index", "--model_name_or_path", "plain", "--train_files", "upstream.parquet", "--output_dir", "of-plain")
    assert len(ReCrossPipeline.from_pretrained(tmp_path / "of-plain").processing_class) == len(trained[1])
    adapt = ["adapt", "tickets.txt", "--pipeline", "pipeline", "--num_retrieved", 8, "--max_target_length", 4, *few]
    succeed(*adapt, "-o", "further")
    assert '.from_pretrained("further/base_model")' in html.unescape(
        (tmp_path / "further" / "report.html").read_text()
    )
    plain = PeftModel.from_pretrained(
        AUTO[kind].from_pretrained(tmp_path / "further" / "base_model"), tmp_path / "further"
    )
    assert plain.peft_config["default"].r == 16
    opened = ReCrossPipeline.from_pretrained(tmp_path / "further", device="cpu")
    assert isinstance(opened("Is it late?"), str)
    succeed(*adapt, "-o", "fresh", "--use_peft", "--lora_r", 2, "--upstream_adapter", "merge")
    assert ReCrossPipeline.from_pretrained(tmp_path / "fresh").adapted_model.peft_config["default"].r == 2
    assert (
        "the base with the upstream model's adapter merged into it" in (tmp_path / "fresh" / "README.md").read_text()
    )
    code = html.unescape((tmp_path / "fresh" / "report.html").read_text())
    base = f'{AUTO[kind].__name__}.from_pretrained("fresh/base_model", dtype="float32")'
    assert f'base = PeftModel.from_pretrained({base}, "fresh/upstream_model").merge_and_unload()' in code
    assert 'model = PeftModel.from_pretrained(base, "fresh")' in code
    succeed(*adapt, "-o", "whole", "--merge")
    assert not hasattr(ReCrossPipeline.from_pretrained(tmp_path / "whole").adapted_model, "peft_config")
    code, _, told = recross(tmp_path, *adapt, "-o", "other", "--use_peft", "--lora_r", 2)
    assert (code, "Expected no `peft_config` (--lora_r, ...)" in told) == (2, True)


def test_an_adapter_of_pickled_weights_is_not_opened(trained, tmp_path):
    _, _, folder = trained
    pickled = shutil.copytree(folder / "lora", tmp_path / "lora")
    torch.save(load_file(pickled / "adapter_model.safetensors"), pickled / "adapter_model.bin")
    (pickled / "adapter_model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"weights as safetensors in .* Pickles are never loaded"):
        load_upstream_model(pickled)
