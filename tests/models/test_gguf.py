"""Models whose weights and tokenizer are in a GGUF file."""

import json

import numpy as np
import pytest
import tiny
import torch
from example_scripts import recross
from transformers import AutoTokenizer

from recross_hf import ReCrossPipeline
from recross_hf.models import gguf as packed_weights
from recross_hf.models.adapters import load_upstream_model, load_upstream_tokenizer
from recross_hf.models.loading import load_model

FILE = "tiny-q8_0.gguf"


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
