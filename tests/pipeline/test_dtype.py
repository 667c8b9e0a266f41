"""Models whose weights are held in half precision: the pipeline remembers the type, and the commands work on it with nothing to type."""

import json
import shutil

import pytest
import tiny
import torch
from example_scripts import recross
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from recross_hf import (
    CrossEncoderReranker,
    DenseRetriever,
    MeanPooledEncoder,
    ReCrossPipeline,
    SentenceEncoder,
    SupervisionArguments,
    UpstreamIndex,
    mine_supervision,
)
from recross_hf.core.hashing import weights_hash
from recross_hf.pipeline.mixed_batches import mixing
from recross_hf.pipeline.saving import save_reranker
from recross_hf.retrieval.vector_shards import IndexMismatchError

KINDS = {
    "bart": (tiny.bart, tiny.tokenizer),
    "llama": (tiny.llama, lambda: tiny.causal_tokenizer("<s> $A")),
}
FAST = ["--use_cpu", "--max_steps", 3, "--learning_rate", 0.01, "--disable_tqdm", "true"]
ADAPT = ["adapt", "tickets.txt", "--pipeline", "built", "--num_retrieved", 8, "--max_target_length", 4, *FAST]
TRAIN = ["train", "--train_files", "upstream.parquet", "--model_name_or_path", "llama", "--output_dir", "lora", *FAST]
QUICK = {"num_retrieved": 8, "max_steps": 3, "learning_rate": 0.01, "use_cpu": True, "disable_tqdm": True}
MINING = {
    "num_query_sets": 2,
    "num_candidates": 8,
    "group_size": 4,
    "num_rounds": 1,
    "num_queries": 2,
    "num_held_out": 2,
    "num_labelled": 2,
}


@pytest.fixture
def folder(tmp_path):
    tiny.examples().to_parquet(tmp_path / "upstream.parquet")
    (tmp_path / "tickets.txt").write_text("Is the film good?\nWhich colour has the sea?\n")
    return tmp_path


def write_model(kind, folder):
    tokenizer = KINDS[kind][1]()
    KINDS[kind][0](tokenizer, dropout=0.0).save_pretrained(folder / kind)
    tokenizer.save_pretrained(folder / kind)


def succeed(folder, *words):
    code, printed, told = recross(folder, *words)
    assert code == 0, told
    return printed


def refused(folder, *words):
    code, _, told = recross(folder, *words)
    assert (code, told.count("\n")) == (2, 1), told
    return told


def build(folder, kind, *words, output="built"):
    write_model(kind, folder)
    named = ["--model_name_or_path", kind, "--train_files", "upstream.parquet", "--output_dir", output]
    succeed(folder, "index", *named, "--max_target_length", 4, *words)
    return folder / output


def manifest_of(folder):
    return json.loads((folder / "recross.json").read_text())


def types_in(folder):
    return {weight.dtype for path in folder.glob("*.safetensors") for weight in load_file(path).values()}


def types_of(model, *, lora):
    return {weight.dtype for name, weight in model.named_parameters() if ("lora_" in name) == lora}


def opened(folder, **settings):
    return ReCrossPipeline.from_pretrained(folder, device="cpu", **settings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_is_indexed_in_half_precision_is_adapted_and_opened_in_it(kind, dtype, folder):
    half = getattr(torch, dtype)
    built = build(folder, kind, "--dtype", dtype)
    assert manifest_of(built)["dtype"] == dtype
    assert types_in(built / "upstream_model") == {half}
    succeed(folder, *ADAPT, "--use_peft", "-o", "lora")
    succeed(folder, *ADAPT, "-o", "whole")
    inputs = tiny.examples()["input"][:8]
    lora, whole = opened(folder / "lora"), opened(folder / "whole")
    for adapted in (lora, whole):
        assert isinstance(adapted.index, UpstreamIndex)
        assert adapted.upstream_model.dtype == half
        assert len(adapted(inputs)) == 8
    assert types_of(lora.adapted_model, lora=False) == {half}
    assert types_of(lora.adapted_model, lora=True) == {torch.float32}
    assert types_of(whole.adapted_model, lora=False) == {torch.float32}
    assert opened(folder / "whole", dtype=half).adapted_model.dtype == half
    lora.add_adapted("other", folder / "lora")
    assert lora.adapted_as("other")(inputs) == lora(inputs)
    assert len(lora(inputs, adapter_names=["other", "__base__"] * 4)) == 8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_peft", [False, True], ids=["whole", "lora"])
def test_an_adaptation_computes_the_same_before_it_is_saved_and_after(kind, is_peft, folder, queries):
    pipeline = opened(build(folder, kind, "--dtype", "bfloat16"))
    before = weights_hash(pipeline.upstream_model)
    peft_config = LoraConfig(task_type={"bart": "SEQ_2_SEQ_LM", "llama": "CAUSAL_LM"}[kind]) if is_peft else None
    adapted = pipeline.adapt(queries, peft_config=peft_config, **QUICK)
    assert weights_hash(pipeline.upstream_model) == before
    adapted.save_pretrained(folder / "saved")
    again = opened(folder / "saved")
    batch = pipeline.processing_class(queries[0], return_tensors="pt", return_token_type_ids=False)
    if kind == "bart":
        batch["decoder_input_ids"] = batch["input_ids"][:, :3]
    with torch.no_grad():
        ours, theirs = (one.adapted_model.eval()(**batch).logits for one in (adapted, again))
        base = pipeline.upstream_model(**batch).logits
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, base.to(ours.dtype))
    assert again(queries) == adapted(queries)
    assert manifest_of(folder / "saved")["dtype"] == "bfloat16"


def test_a_pipeline_in_float32_does_not_name_the_type(folder):
    built = build(folder, "llama")
    assert "dtype" not in manifest_of(built)
    said = build(folder, "llama", "--dtype", "float32", output="said")
    for name in ("recross.json", "index/index.json"):
        assert (said / name).read_bytes() == (built / name).read_bytes()
    assert types_of(opened(built).upstream_model, lora=False) == {torch.float32}


def test_the_type_stands_in_what_is_published_and_stays_where_a_reranker_is_put_in(folder):
    built = build(folder, "llama", "--dtype", "bfloat16")
    published = opened(built).publication("org/half", folder / "scratch")
    (own,) = [one for one in published.publications() if one.repo_id == "org/half"]
    # Nobody has used the index of this one, and the type is the manifest's.
    assert json.loads(own.files["recross.json"])["dtype"] == "bfloat16"
    tokenizer = tiny.pair_tokenizer()
    save_reranker(built, CrossEncoderReranker(tiny.cross_encoder(tokenizer), tokenizer))
    assert manifest_of(built)["dtype"] == "bfloat16"
    pipeline = opened(built)
    assert pipeline.reranker.model.dtype == torch.float32
    assert opened(built, dtype=torch.bfloat16).reranker.model.dtype == torch.bfloat16


def test_a_model_in_memory_says_its_own_type(folder, examples, tokenizer):
    half = tiny.bart(tokenizer, dropout=0.0).to(torch.bfloat16)
    index = UpstreamIndex.build(examples, MeanPooledEncoder(half, tokenizer), folder / "index")
    ReCrossPipeline(half, tokenizer, index).save_pretrained(folder / "saved")
    assert manifest_of(folder / "saved")["dtype"] == "bfloat16"
    pipeline = opened(folder / "saved")
    assert isinstance(pipeline.index, UpstreamIndex)
    # Another model and index take the place of both.
    pipeline.upstream_model = tiny.bart(tokenizer, dropout=0.0)
    encoder = MeanPooledEncoder(pipeline.upstream_model, tokenizer)
    pipeline.index = UpstreamIndex.build(examples, encoder, folder / "other")
    pipeline.save_pretrained(folder / "saved")
    assert "dtype" not in manifest_of(folder / "saved")
    assert isinstance(opened(folder / "saved").index, UpstreamIndex)


# ---- an encoder of its own ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory):
    return tiny.sentence_transformer(tmp_path_factory.mktemp("encoder"))


def test_an_encoder_of_its_own_stays_in_float32(folder, sentence_model):
    built = build(folder, "llama", "--dtype", "bfloat16", "--encoder_name_or_path", sentence_model)
    for settings in ({}, {"dtype": torch.bfloat16}, {"dtype": torch.float32}):
        pipeline = opened(built, **settings)
        assert pipeline.upstream_model.dtype == settings.get("dtype", torch.bfloat16)
        assert pipeline.index.encoder.identity()["dtype"] == "float32"
        pipeline.save_pretrained(folder / "saved")  # as it was opened
        assert opened(folder / "saved").upstream_model.dtype == pipeline.upstream_model.dtype
    succeed(folder, *ADAPT, "--use_peft", "-o", "lora")
    assert types_of(opened(folder / "lora").adapted_model, lora=False) == {torch.bfloat16}


@pytest.mark.parametrize("encoder_dtype", ["bfloat16", "float64"])
@pytest.mark.parametrize("half_model", [False, True])
def test_an_encoder_that_was_in_another_type_is_opened_in_it(
    half_model, encoder_dtype, folder, sentence_model, examples, tokenizer
):
    model = tiny.bart(tokenizer).to(torch.bfloat16 if half_model else torch.float32)
    encoder = SentenceEncoder.from_pretrained(sentence_model, dtype=encoder_dtype)
    ReCrossPipeline.build(model, tokenizer, examples, folder / "built", encoder=encoder)
    for _ in range(2):
        for settings in ({}, {"dtype": torch.bfloat16}):
            assert opened(folder / "built", **settings).index.encoder.identity()["dtype"] == encoder_dtype
        # As an earlier version wrote it.
        content = manifest_of(folder / "built")
        content.pop("dtype", None)
        (folder / "built" / "recross.json").write_text(json.dumps(content))
    index = folder / "built" / "index" / "index.json"
    content = json.loads(index.read_text())
    content["encoder"]["dtype"] = ["int3"]
    index.write_text(json.dumps(content))
    with pytest.raises(IndexMismatchError, match="dtype: int3 != float32"):
        opened(folder / "built", verify_checksums=False).index  # noqa: B018


def test_an_index_in_lance_says_the_type_of_its_encoder(folder, sentence_model, examples, tokenizer):
    pytest.importorskip("lance", reason="pylance is absent: pip install 'recross_hf[cluster]'")
    from recross_hf import LanceIndex

    half = tiny.bart(tokenizer).to(torch.bfloat16)
    for name, encoder in {
        "own": MeanPooledEncoder(half, tokenizer),
        "other": SentenceEncoder.from_pretrained(sentence_model),
        "half": SentenceEncoder.from_pretrained(sentence_model, dtype="bfloat16"),
    }.items():
        index = LanceIndex.build(examples, encoder, folder / f"{name}.lance")
        ReCrossPipeline.build(half, tokenizer, index, folder / name)
        pipeline = opened(folder / name)
        assert pipeline.index.encoder.identity() == encoder.identity()
        assert pipeline.upstream_model.dtype == torch.bfloat16


# ---- training ----------------------------------------------------------------------------------------------------------


def test_an_adapter_is_trained_on_a_base_in_half_precision_and_indexed(folder):
    write_model("llama", folder)
    succeed(folder, *TRAIN, "--use_peft", "--dtype", "bfloat16", "--save_steps", 2)
    assert types_in(folder / "lora") == {torch.float32}
    assert json.loads((folder / "lora" / "checkpoint-2" / "training_args.json").read_text())["dtype"] == "bfloat16"
    shutil.rmtree(folder / "lora" / "checkpoint-3", ignore_errors=True)
    told = refused(folder, *TRAIN, "--use_peft", "--resume_from_checkpoint", "true")
    assert "Expected weights in bfloat16, with which the training of" in told
    assert "found float32. Resume with the same `dtype` (--dtype bfloat16)" in told
    succeed(folder, *TRAIN, "--use_peft", "--dtype", "bfloat16", "--resume_from_checkpoint", "true")
    named = ["--model_name_or_path", "lora", "--train_files", "upstream.parquet", "--output_dir", "built"]
    succeed(folder, "index", *named, "--dtype", "bfloat16", "--max_target_length", 4)
    assert types_in(folder / "built" / "base_model") == {torch.bfloat16}
    assert types_in(folder / "built" / "upstream_model") == {torch.float32}
    succeed(folder, *ADAPT, "-o", "further")
    succeed(folder, *ADAPT, "-o", "merged", "--use_peft", "--upstream_adapter", "merge")
    inputs = tiny.examples()["input"][:4]
    for name in ("further", "merged"):
        adapted = opened(folder / name)
        assert types_of(adapted.upstream_model, lora=False) == {torch.bfloat16}
        assert isinstance(adapted.index, UpstreamIndex)
        assert len(adapted(inputs)) == 4


def test_a_checkpoint_of_an_earlier_version_is_not_compared(folder):
    write_model("llama", folder)
    succeed(folder, *TRAIN, "--use_peft", "--dtype", "bfloat16", "--save_steps", 2)
    path = folder / "lora" / "checkpoint-2" / "training_args.json"
    content = json.loads(path.read_text())
    del content["dtype"]
    path.write_text(json.dumps(content))
    succeed(folder, *TRAIN, "--use_peft", "--resume_from_checkpoint", path.parent)


@pytest.mark.parametrize(
    ("added", "message"),
    [
        (
            [],
            "--dtype bfloat16: for the base below an adapter (--use_peft, also of one that is trained further), found none: weights that are trained are held in float32; --bf16",
        ),
        (["--use_peft", "--load_in_4bit"], "found --load_in_4bit, which packs the base and holds the rest in float32"),
        (
            ["--use_peft", "--dtype", "int8"],
            "Expected one of 'float32', 'bfloat16', 'float16' as --dtype, found 'int8'",
        ),
    ],
)
def test_what_half_precision_does_not_go_with_is_told_in_a_line(added, message, folder):
    write_model("llama", folder)
    assert message in refused(folder, *TRAIN, "--dtype", "bfloat16", *added)
    assert not (folder / "lora").exists()


# ---- mining ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_peft", [False, True], ids=["whole", "lora"])
def test_mining_fine_tunes_a_copy_in_float32_or_an_adapter(is_peft, folder):
    pipeline = opened(build(folder, "llama", "--dtype", "bfloat16"))
    before = weights_hash(pipeline.upstream_model)
    pairs = mine_supervision(
        pipeline.upstream_model,
        pipeline.processing_class,
        DenseRetriever(pipeline.index),
        pipeline.index.dataset,
        folder / "mined",
        SupervisionArguments(**MINING),
        peft_config=LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear") if is_peft else None,
    )
    assert len(pairs) > 0
    assert len(set(pairs["utility"])) > 1
    assert weights_hash(pipeline.upstream_model) == before
    assert pipeline.upstream_model.dtype == torch.bfloat16


def test_below_several_adapters_a_layer_in_half_precision_rounds_as_below_one():
    torch.manual_seed(0)
    base = tiny.llama(tiny.tokenizer(), dropout=0.0).bfloat16()
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(base, config).eval()
    (layer, *_) = (module for module in model.modules() if isinstance(module, LoraLayer))
    given = torch.randn(3, 5, layer.in_features).bfloat16()
    alone = layer(given)
    with mixing([layer], ["default"] * 3):
        layer._active_adapter = []
        mixed = layer(given)
    assert (alone != layer.base_layer(given)).float().mean() > 0.5
    assert (mixed != alone).float().mean() < 0.01  # a second rounding differs in a fifth of them
