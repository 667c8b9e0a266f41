"""Models whose weights and tokenizer are in a GGUF file."""

import json
import shutil

import numpy as np
import pytest
import tiny
import torch
from example_scripts import recross
from peft import LoraConfig, PeftModel
from transformers import AutoTokenizer

from recross_hf import ReCrossPipeline
from recross_hf.hub.errors import ArtifactError
from recross_hf.models import gguf as packed_weights
from recross_hf.models.adapters import load_upstream_model, load_upstream_tokenizer, with_new_adapter
from recross_hf.models.loading import load_model

FILE = "tiny-q8_0.gguf"
LORA = {"peft_config": LoraConfig(task_type="CAUSAL_LM", r=2)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tiny Llama in a GGUF file, its matrices in 8 bits, and nothing beside it."""
    gguf = pytest.importorskip("gguf", reason="the extra [gguf] is not installed")
    folder, tokenizer = tmp_path_factory.mktemp("gguf"), tiny.causal_tokenizer()
    model = tiny.llama(tokenizer)
    writer = gguf.GGUFWriter(folder / FILE, "llama")
    config = model.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(len(tokenizer))
    backend = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    # transformers adds this end token to the vocabulary of any file of this kind that lacks it.
    tokens = sorted(backend["vocab"], key=backend["vocab"].get)
    writer.add_token_list(["<|endoftext|>" if token == "</s>" else token for token in tokens])
    special = [gguf.TokenType.CONTROL] * len(tiny.SPECIAL_TOKENS)
    writer.add_token_types(special + [gguf.TokenType.NORMAL] * (len(tokenizer) - len(special)))
    writer.add_token_merges([" ".join(pair) for pair in backend["merges"]])
    writer.add_bos_token_id(tokenizer.eos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_pad_token_id(tokenizer.convert_tokens_to_ids("<pad>"))
    names = {
        "embed_tokens": "token_embd",
        "lm_head": "output",
        "norm": "output_norm",
        "self_attn.o_proj": "attn_output",
    }
    names |= {f"self_attn.{one}_proj": f"attn_{one}" for one in "qkv"}
    names |= {f"mlp.{one}_proj": f"ffn_{one}" for one in ("gate", "up", "down")}
    names |= {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    for name, weight in model.state_dict().items():
        *layer, own = name.removeprefix("model.").removesuffix(".weight").replace("layers.", "").split(".", 1)
        own = own if layer and layer[0].isdigit() else ".".join([*layer, own])
        block = f"blk.{layer[0]}." if layer and layer[0].isdigit() else ""
        values = weight.numpy()
        kind = gguf.GGMLQuantizationType.Q8_0 if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        packed = gguf.quants.quantize(values.astype(np.float32), kind)
        writer.add_tensor(f"{block}{names[own]}.weight", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


def test_a_gguf_file_gives_a_plain_model_that_is_saved_as_safetensors(folder, tmp_path):
    model, own = load_model(folder, gguf_file=FILE), tiny.llama(tiny.causal_tokenizer())
    assert model.dtype == torch.float32
    torch.testing.assert_close(
        model.get_input_embeddings().weight, own.get_input_embeddings().weight, atol=0.01, rtol=0
    )
    assert not hasattr(model.config, "quantization_config")
    model.save_pretrained(tmp_path)
    saved = load_model(tmp_path)
    assert all(torch.equal(value, saved.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_pipeline_of_a_gguf_file_keeps_plain_weights_and_the_files_tokenizer(folder, examples, tmp_path):
    model, tokenizer = load_upstream_model(folder, gguf_file=FILE), load_upstream_tokenizer(folder, gguf_file=FILE)
    text = "Which colour has the sky?"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    built = ReCrossPipeline.build(model, tokenizer, examples, tmp_path / "built")
    assert (tmp_path / "built" / "upstream_model" / "model.safetensors").is_file()
    opened = ReCrossPipeline.from_pretrained(tmp_path / "built", device="cpu")
    inputs = examples["input"][:4]
    assert opened(inputs) == built(inputs)
    stored = AutoTokenizer.from_pretrained(tmp_path / "built" / "upstream_model")
    assert stored(inputs)["input_ids"] == tokenizer(inputs)["input_ids"]
    opened.adapt(inputs, max_steps=1, num_retrieved=4, use_cpu=True, disable_tqdm=True, gate="off").save_pretrained(
        tmp_path / "adapted"
    )


def test_commands_train_and_index_a_gguf_file(folder, examples, tmp_path):
    examples.to_parquet(tmp_path / "upstream.parquet")
    common = ("--model_name_or_path", folder, "--gguf_file", FILE, "--train_files", tmp_path / "upstream.parquet")
    lengths = ("--max_input_length", 64, "--max_target_length", 12)
    trained = ("--max_steps", 1, "--save_strategy", "no", "--eval_strategy", "no", "--load_best_model_at_end", "false")
    code, _, told = recross(
        tmp_path, "train", *common, *lengths, *trained, "--output_dir", tmp_path / "model", "--use_cpu"
    )
    assert code == 0, told
    assert load_model(tmp_path / "model").dtype == torch.float32
    code, _, told = recross(tmp_path, "index", *common, *lengths, "--output_dir", tmp_path / "pipeline")
    assert code == 0, told
    assert ReCrossPipeline.from_pretrained(tmp_path / "pipeline", device="cpu")("Is it?") is not None
    code, _, told = recross(
        tmp_path, "index", *common, *lengths, "--output_dir", tmp_path / "half", "--dtype", "bfloat16"
    )
    assert code == 0, told
    half = ReCrossPipeline.from_pretrained(tmp_path / "half", device="cpu")
    assert len(half.index) == len(examples)
    assert {weight.dtype for weight in half.upstream_model.parameters()} == {torch.bfloat16}


LENGTHS = ("--max_input_length", 64, "--max_target_length", 12)
STEPS = ("--use_cpu", "--max_steps", 1, "--learning_rate", 0.01, "--disable_tqdm", "true")
RECORD = "gguf_base.json"


def succeed(place, *words):
    code, _, told = recross(place, *words)
    assert code == 0, told


def same_weights(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.slow
def test_by_commands_an_adapter_finds_its_gguf_base_again(folder, examples, tmp_path):
    examples.to_parquet(tmp_path / "upstream.parquet")
    (tmp_path / "tickets.txt").write_text("My parcel is lost.\nMy bill is wrong.\n")
    shutil.copytree(folder, tmp_path / "base")
    data = ("--train_files", "upstream.parquet", *LENGTHS)
    named = ("--model_name_or_path", "base", "--gguf_file", FILE)
    succeed(tmp_path, "train", *named, *data, *STEPS, "--use_peft", "--lora_r", 2, "--output_dir", "lora")
    succeed(tmp_path, "train", "--model_name_or_path", "lora", *data, *STEPS, "--output_dir", "further")
    succeed(tmp_path, "index", "--model_name_or_path", "further", *data, "--output_dir", "pipeline")
    adapt = ("adapt", "tickets.txt", "--pipeline", "pipeline", "--num_retrieved", 4, "--gate", "off", *STEPS)
    succeed(tmp_path, *adapt, "-o", "adapted")

    # What is written is plain LoRA with PEFT's names, and its card loads it.
    settings = json.loads((tmp_path / "further" / "adapter_config.json").read_text())
    assert (settings["peft_type"], settings["base_model_name_or_path"]) == ("LORA", "base")
    assert "gguf_file" not in settings
    loading = f'AutoModelForCausalLM.from_pretrained("base", gguf_file="{FILE}")'
    assert all(loading in (tmp_path / name / "README.md").read_text() for name in ("lora", "further"))
    plain = PeftModel.from_pretrained(load_model(tmp_path / "base", gguf_file=FILE), tmp_path / "further")
    pipeline = ReCrossPipeline.from_pretrained(tmp_path / "pipeline", device="cpu")
    assert same_weights(plain, pipeline.upstream_model)

    # The pipelines hold the base unpacked, and need the file no more.
    base = pipeline.parts.part("base_model")
    for name in ("base", "pipeline", "further"):
        shutil.rmtree(tmp_path / name)
    shutil.move(tmp_path / "adapted", tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere" / RECORD).exists()
    opened = ReCrossPipeline.from_pretrained(tmp_path / "elsewhere", device="cpu")
    assert same_weights(opened.parts.part("base_model"), base)
    assert len(opened(examples["input"][:4])) == 4


@pytest.fixture
def adapter(folder, examples, tmp_path):
    """A pipeline in memory whose upstream model is an adapter on the file, saved beside a copy of that."""
    base = shutil.copytree(folder, tmp_path / "base")
    peft_config = LoraConfig(task_type="CAUSAL_LM", r=2, init_lora_weights=False)
    model = with_new_adapter(load_model(base, gguf_file=FILE), peft_config, seed=0)
    tokenizer = load_upstream_tokenizer(base, gguf_file=FILE)
    pipeline = ReCrossPipeline.build(model, tokenizer, examples, tmp_path / "pipeline")
    return pipeline, tmp_path / "pipeline" / "upstream_model"


def test_an_adapter_that_a_pipeline_wrote_finds_the_file_and_its_tokenizer(adapter, examples, tmp_path):
    pipeline, folder = adapter
    assert same_weights(pipeline.upstream_model, load_upstream_model(folder))
    text = examples["input"][0]
    expected = pipeline.processing_class(text)["input_ids"]
    for name in ("beside it", "of its base"):
        assert load_upstream_tokenizer(folder, gguf_file=FILE)(text)["input_ids"] == expected, name
        assert load_upstream_tokenizer(folder)(text)["input_ids"] == expected, name
        for path in folder.glob("tokenizer*"):
            path.unlink()
    # A published adapter names the base that is published with it, which is no such file.
    published = pipeline.publication("org/p", tmp_path / "scratch").new_part(
        "upstream_model", {"base_model": "0" * 40}
    )
    assert RECORD not in published.files and "adapter_config.json" in published.files
    # Merged with what it is on, it is on that file no more.
    merged = pipeline.adapt(
        ["Is it?"],
        **{"upstream_adapter": "merge", "peft_config": LoraConfig(task_type="CAUSAL_LM", r=2), "gate": "off"},
        **{"max_steps": 1, "num_retrieved": 4, "use_cpu": True, "disable_tqdm": True},
    )
    merged.save_pretrained(tmp_path / "merged")
    assert not (tmp_path / "merged" / "adapted_model" / RECORD).exists()


def test_another_file_than_the_adapters_base_is_told(adapter, tmp_path):
    _, folder = adapter
    file, renamed = tmp_path / "base" / FILE, tmp_path / "base" / "renamed.gguf"
    file.rename(renamed)
    told = rf"Expected the GGUF file {FILE} \(SHA-256 .*\) in {file.parent}, on which the adapter in {folder} was trained, found"
    with pytest.raises(
        ArtifactError, match=rf"{told} no {FILE}\..*without {RECORD}, the adapter goes on whichever file"
    ):
        load_upstream_model(folder)
    # The same content under another name is the same file.
    loaded = load_upstream_model(folder, gguf_file=renamed.name)
    content = bytearray(renamed.read_bytes())
    content[-1000] ^= 1
    file.write_bytes(content)
    for given in ({}, {"gguf_file": FILE}):
        with pytest.raises(ArtifactError, match=f"{told} another file {FILE}"):
            load_upstream_model(folder, **given)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ArtifactError, match=told):
        load_upstream_tokenizer(folder)
    file.parent.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"Expected the folder of a model, found none at .*base"):
        load_upstream_model(folder)
    (tmp_path / "moved").rename(file.parent)
    # On purpose, an adapter goes on other weights.
    (folder / RECORD).unlink()
    assert not same_weights(load_upstream_model(folder, gguf_file=FILE), loaded)


def test_the_file_of_a_repository_is_found_at_its_commit(folder, examples, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "cache" / "models--org--packed" / "snapshots" / commit
    shutil.copytree(folder, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(commit)
    place = {"cache_dir": tmp_path / "cache", "local_files_only": True}
    base = load_model("org/packed", gguf_file=FILE, **place)
    model = with_new_adapter(base, LoraConfig(task_type="CAUSAL_LM", r=2, init_lora_weights=False), seed=0)
    tokenizer = load_upstream_tokenizer("org/packed", gguf_file=FILE, **place)
    ReCrossPipeline.build(model, tokenizer, examples, tmp_path / "pipeline")
    adapter = tmp_path / "pipeline" / "upstream_model"
    (snapshot.parents[1] / "refs" / "main").write_text("f" * 40)  # the repository has moved on
    assert same_weights(model, load_upstream_model(adapter, **place))
    # The Hub has no such weights as the pipeline reads, so that they are stored.
    assert (tmp_path / "pipeline" / "base_model" / "model.safetensors").is_file()
    assert same_weights(ReCrossPipeline.from_pretrained(tmp_path / "pipeline", device="cpu").upstream_model, model)


@pytest.mark.parametrize("file", ["../base/weights.gguf", "/weights.gguf", "", 3])
def test_a_record_leads_nowhere_else(adapter, file):
    _, folder = adapter
    (folder / RECORD).write_text(json.dumps({"gguf_file": file, "sha256": "0" * 64}))
    with pytest.raises(ArtifactError, match="Expected the name of a GGUF file and its SHA-256"):
        load_upstream_model(folder)


def test_an_adapter_on_another_base_leaves_no_record_of_an_earlier_one(tmp_path):
    (tmp_path / RECORD).write_text("{}")
    packed_weights.write_record(tiny.gpt2(tiny.causal_tokenizer()), tmp_path)
    assert not (tmp_path / RECORD).exists()


def test_a_gguf_file_that_is_not_named_or_not_there_is_told(tmp_path):
    (tmp_path / "weights.gguf").write_bytes(b"GGUF")
    with pytest.raises(FileNotFoundError, match=r"found weights\.gguf\. Name one of them with `gguf_file`"):
        load_model(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"with other\.gguf in .*, found weights\.gguf"):
        load_model(tmp_path, gguf_file="other.gguf")


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "weights.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(packed_weights, "is_gguf_available", lambda: False)
    with pytest.raises(ImportError, match=r"Expected the package gguf .* Install `recross_hf\[gguf\]`"):
        load_model(tmp_path, gguf_file="weights.gguf")


def test_a_model_that_was_trained_whole_is_no_longer_that_of_the_file(examples, queries, tmp_path):
    model = tiny.llama(tiny.causal_tokenizer())
    (tmp_path / FILE).touch()
    packed_weights.note_file(model, FILE, tmp_path / FILE)
    pipeline = ReCrossPipeline.build(model, tiny.causal_tokenizer(), examples, tmp_path / "built")
    fast = {"max_steps": 1, "num_retrieved": 4, "use_cpu": True, "disable_tqdm": True, "gate": "off"}
    noted = [packed_weights.gguf_file_of(pipeline.adapt(queries, **fast, **peft).adapted_model) for peft in ({}, LORA)]
    assert noted == [None, packed_weights.gguf_file_of(model)] == [None, FILE]
