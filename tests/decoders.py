"""Tiny random decoder-only models of many families, which differ in positions, caches and what follows the head."""

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

LLAMA_LIKE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
WINDOW = {"head_dim": 8, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}

FAMILIES = {
    "bloom": ("Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2}),
    "cohere": ("Cohere", LLAMA_LIKE | {"logit_scale": 0.25}),
    "falcon": ("Falcon", LLAMA_LIKE | {"new_decoder_architecture": False, "multi_query": True, "ffn_hidden_size": 64}),
    "falcon_alibi": ("Falcon", LLAMA_LIKE | {"alibi": True, "ffn_hidden_size": 64}),
    "gemma2": ("Gemma2", LLAMA_LIKE | WINDOW | {"final_logit_softcapping": 5.0}),
    "gemma3": ("Gemma3Text", LLAMA_LIKE | WINDOW),
    "gpt2": (
        "GPT2",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.2, **NO_DROPOUT},
    ),
    "gpt_neox": ("GPTNeoX", LLAMA_LIKE),
    "granite": ("Granite", LLAMA_LIKE | {"logits_scaling": 4.0, "embedding_multiplier": 3.0}),
    "llama": ("Llama", LLAMA_LIKE),
    "mamba": ("Mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "initializer_range": 0.2}),
    "mistral": ("Mistral", LLAMA_LIKE | {"sliding_window": 16}),
    "mixtral": ("Mixtral", LLAMA_LIKE | EXPERTS),
    "mixtral_routed": ("Mixtral", LLAMA_LIKE | EXPERTS | {"output_router_logits": True}),
    "opt": (
        "OPT",
        {name: LLAMA_LIKE[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
        | {"dropout": 0.0, "word_embed_proj_dim": 32, "ffn_dim": 64, "init_std": 0.2},
    ),
    "qwen2": ("Qwen2", LLAMA_LIKE),
    "qwen3": ("Qwen3", LLAMA_LIKE | {"head_dim": 8}),
    "qwen3_next": (
        "Qwen3Next",
        LLAMA_LIKE
        | {
            "head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
}
"""Prefix of the classes, and settings, of each family."""


def decoder(family: str, tokenizer: PreTrainedTokenizerFast, **changes) -> PreTrainedModel:
    """A model of a family, without dropout; `changes` are settings of its own."""
    prefix, settings = FAMILIES[family]
    config = getattr(transformers, f"{prefix}Config")(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        **(settings | changes),
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()
