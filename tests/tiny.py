"""Tiny random models and made-up examples for the tests."""

import hashlib
import itertools
import tempfile
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    BertLMHeadModel,
    BertModel,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    EncoderDecoderModel,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from recross_hf import load_examples
from recross_hf.data.schema import EXAMPLE_FEATURES
from recross_hf.supervision.pairs import PAIR_FEATURES

TASKS = {
    "sentiment": (("Is the review good? It was a {} film.", ("lovely", "dull", "grand", "weak")), ("yes", "no")),
    "colour": (("Which colour has the {}?", ("sky", "grass", "coal", "snow")), ("blue", "green", "black", "white")),
    "sum": (("Add {} and three.", ("one", "two", "four", "five")), ("four", "five", "seven", "eight")),
    "opposite": (("What is the opposite of {}?", ("hot", "up", "big", "old")), ("cold", "down", "small", "young")),
}
SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>"]


def examples(per_task: int = 12) -> Dataset:
    """Examples of four tasks, sorted by task; all inputs differ."""
    rows = []
    for task, ((pattern, words), answers) in TASKS.items():
        for number in range(per_task):
            rows.append(
                {
                    "id": f"{task}/{number}",
                    "task": task,
                    "template": "plain",
                    "input": f"{pattern.format(words[number % len(words)])} (No. {number})",
                    "references": [answers[number % len(answers)], f"it is {answers[number % len(answers)]}"],
                    "choices": list(answers),
                }
            )
    return load_examples(Dataset.from_list(rows, features=EXAMPLE_FEATURES))


def queries() -> list[str]:
    return [f"Is this review good? The film is {word}." for word in ("fine", "long", "sad", "new")]


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with 300 tokens: any text can be encoded."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([pattern for (pattern, _), _ in TASKS.values()], trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=128,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


def bart(tokenizer: PreTrainedTokenizerFast, *, dropout: float = 0.1, seed: int = 0) -> BartForConditionalGeneration:
    torch.manual_seed(seed)
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=128,
        dropout=dropout,
        init_std=0.2,
        **_special_ids(tokenizer),
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=None,
    )
    return BartForConditionalGeneration(config).eval()


def t5(tokenizer: PreTrainedTokenizerFast, *, dropout: float = 0.1) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        dropout_rate=dropout,
        **_special_ids(tokenizer),
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return T5ForConditionalGeneration(config).eval()


def encoder_decoder(tokenizer: PreTrainedTokenizerFast, *, dropout: float = 0.1) -> EncoderDecoderModel:
    torch.manual_seed(0)
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    decoder = bert_config(tokenizer, is_decoder=True, add_cross_attention=True, **rates)
    model = EncoderDecoderModel(encoder=BertModel(bert_config(tokenizer, **rates)), decoder=BertLMHeadModel(decoder))
    start_and_end = {"decoder_start_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model.config.decoder_start_token_id = tokenizer.bos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config = GenerationConfig(pad_token_id=tokenizer.pad_token_id, **start_and_end)
    return model.eval()


def causal_tokenizer(template: str | None = None) -> PreTrainedTokenizerFast:
    """The tokenizer without a padding token: GPT-2's, which adds nothing, or Llama's with `template="<s> $A"`."""
    backend = Tokenizer.from_str(tokenizer().backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single=template or "$A", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=int(1e30),
        bos_token="<s>" if template else "</s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def gpt2(tokenizer: PreTrainedTokenizerFast, *, dropout: float = 0.1) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=128,
        n_embd=32,
        n_layer=2,
        n_head=4,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        initializer_range=0.2,
        **_special_ids(tokenizer),
    )
    return GPT2LMHeadModel(config).eval()


def llama(tokenizer: PreTrainedTokenizerFast, *, dropout: float = 0.1) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        attention_dropout=dropout,
        initializer_range=0.2,
        **_special_ids(tokenizer),
    )
    return LlamaForCausalLM(config).eval()


def bert_config(tokenizer: PreTrainedTokenizerFast, **kwargs) -> BertConfig:
    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=96,
        pad_token_id=tokenizer.pad_token_id,
        **kwargs,
    )


def _special_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return {name: getattr(tokenizer, name) for name in ("bos_token_id", "pad_token_id", "eos_token_id")}


class HashEncoder:
    """Knows nothing of `recross_hf`: a random vector that a text and a seed determine. It counts what it encodes."""

    def __init__(self, dimension: int = 16, seed: int = 0) -> None:
        self.dimension, self.seed = dimension, seed
        self.encoded: list[str] = []

    def encode(self, texts: list[str]) -> np.ndarray:
        self.encoded.extend(texts)
        vectors = [
            np.random.default_rng([self.seed, *hashlib.sha256(text.encode()).digest()]).normal(size=self.dimension)
            for text in texts
        ]
        return np.asarray(vectors, dtype=np.float32).reshape(len(texts), self.dimension)


PAIR_TEMPLATES = {"roberta": "<s> $A </s> </s> $B </s>", "bert": "<s> $A </s> $B:1 </s>:1"}


def pair_tokenizer(kind: str = "roberta") -> PreTrainedTokenizerFast:
    """The tokenizer with a pair template: RoBERTa's, or BERT's with token types; 64 tokens a pair."""
    plain = tokenizer()
    backend = Tokenizer.from_str(plain.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair=PAIR_TEMPLATES[kind], special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    types = ["token_type_ids"] if kind == "bert" else []
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=64,
        model_input_names=["input_ids", *types, "attention_mask"],
        **plain.special_tokens_map,
    )


def cross_encoder(
    tokenizer: PreTrainedTokenizerFast,
    kind: str = "roberta",
    *,
    dropout: float = 0.0,
    positions: int = 64,
    num_labels: int = 1,
) -> PreTrainedModel:
    """A random cross-encoder that takes pairs of 64 tokens; weights are large, so that its scores differ."""
    torch.manual_seed(0)
    config_class, model_class, own = {
        "bert": (BertConfig, BertForSequenceClassification, {}),
        "roberta": (RobertaConfig, RobertaForSequenceClassification, {"type_vocab_size": 1}),
        "deberta": (
            DebertaV2Config,
            DebertaV2ForSequenceClassification,
            {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0, "position_buckets": 16},
        ),
    }[kind]
    config = config_class(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=positions + (tokenizer.pad_token_id + 1 if kind == "roberta" else 0),
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.2,
        **_special_ids(tokenizer),
        num_labels=num_labels,
        **own,
    )
    return model_class(config).eval()


def pairs(num_sets: int = 8, num_queries: int = 2, num_candidates: int = 6) -> Dataset:
    """Mined pairs, the tasks taking turns: the first half of a set's candidates says "good" and helps."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(num_sets):
        task = list(TASKS)[number % len(TASKS)]
        others = [other for other in TASKS if other != task]
        ranks = generator.permutation(num_candidates)
        for query, place in itertools.product(range(num_queries), range(num_candidates)):
            helps = place < num_candidates // 2
            other = others[place % len(others)]
            rows.append(
                {
                    "set": number,
                    "query": f"{task} query {number}.{query}",
                    "candidate": f"{other} {'good' if helps else 'bad'} {number}.{place}",
                    "label": int(helps),
                    "utility": (10.0 * helps - place) * 10.0 ** -(number % 3),
                    "query_task": task,
                    "candidate_task": other,
                    "query_id": f"{task}/{number}.{query}",
                    "candidate_id": f"{other}/{number}.{place}",
                    "answer": f"answer {place}",
                    "rank": int(ranks[place]),
                }
            )
    return Dataset.from_list(rows, features=PAIR_FEATURES)


def sentence_transformer(folder: Path, *, prompts: dict[str, str] | None = None) -> Path:
    """Saves a tiny sentence encoder in a folder."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    its_tokenizer = tokenizer()
    its_tokenizer.model_max_length = 64
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as bert:
        BertModel(bert_config(its_tokenizer)).eval().save_pretrained(bert)
        its_tokenizer.save_pretrained(bert)
        transformer = Transformer(bert)
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    model = SentenceTransformer(modules=[transformer, pooling, Normalize()], prompts=prompts, device="cpu")
    model.save_pretrained(str(folder), create_model_card=False)
    return folder
