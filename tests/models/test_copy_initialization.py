import pytest
import tiny
import torch
from transformers import BertLMHeadModel, BertModel, RobertaConfig, RobertaModel

from recross_hf import warm_start_seq2seq
from recross_hf.models.copy_initialization import start_copying


@pytest.fixture(scope="module")
def bert_folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    model = BertModel(tiny.bert_config(tokenizer))
    # Published encoders have word embeddings that differ; the random ones of a tiny model are next to nothing.
    model.embeddings.word_embeddings.weight.data.mul_(50)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def texts(examples):
    return examples["input"][:]


def values_of(model, tokenizer, text):
    """What the first cross-attention has to pass on, for each token of a text between its marks, and those tokens."""
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    states = model.encoder(input_ids=ids).last_hidden_state[0]
    cross = model.decoder.base_model.encoder.layer[0].crossattention
    return cross.output.dense(cross.self.value(states))[2:-1], ids[0, 2:-1]


def nearest_tokens(model, vectors):
    embeddings = model.decoder.get_input_embeddings().weight
    normed = torch.nn.functional.layer_norm(embeddings, embeddings.shape[1:])
    return (vectors @ normed.T).argmax(dim=1)


@torch.no_grad()
def test_values_are_near_the_embeddings_of_their_tokens(bert_folder, tokenizer, texts):
    shares = {}
    for name, copied in (("random", None), ("copying", texts[::2])):
        torch.manual_seed(0)
        model = warm_start_seq2seq(bert_folder, encoder_layers=1, copied_texts=copied)[0].eval()
        # Texts that the maps were not made of, with words that they were.
        found = [values_of(model, tokenizer, text) for text in texts[1::2]]
        right = [(nearest_tokens(model, values) == ids).float() for values, ids in found]
        shares[name] = float(torch.cat(right).mean())
    assert shares["copying"] > 0.9
    assert shares["random"] < 0.3


@torch.no_grad()
def test_the_last_layer_looks_for_what_follows_the_token_written_last(bert_folder, tokenizer, texts):
    model = warm_start_seq2seq(bert_folder, encoder_layers=1, decoder_layers=2, copied_texts=texts)[0].eval()
    cross = model.decoder.base_model.encoder.layer[-1].crossattention.self
    embeddings = model.decoder.get_input_embeddings().weight
    ranks = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        keys = cross.key(model.encoder(input_ids=ids).last_hidden_state[0])[2:-1]
        before = ids[0, 1:-2]
        queries = cross.query(torch.nn.functional.layer_norm(embeddings[before], embeddings.shape[1:]))
        scores = queries @ keys.T  # of a token that was written, to the places of the input
        ranks += [float((row > row[place]).float().mean()) for place, row in enumerate(scores)]
    assert sum(ranks) / len(ranks) < 0.2  # by chance: a half


def test_everything_can_still_be_trained_and_nothing_else_was_changed(bert_folder, texts):
    torch.manual_seed(0)
    before = warm_start_seq2seq(bert_folder)[0]
    torch.manual_seed(0)
    after = warm_start_seq2seq(bert_folder, copied_texts=texts)[0]
    changed = {
        name
        for (name, old), (_, new) in zip(before.state_dict().items(), after.state_dict().items(), strict=True)
        if not torch.equal(old, new)
    }
    assert changed
    assert all("crossattention" in name for name in changed)
    assert not any("LayerNorm" in name for name in changed)
    assert all(parameter.requires_grad for parameter in after.parameters())
    assert [module.training for module in before.modules()] == [module.training for module in after.modules()]


def test_a_head_that_was_not_published_lets_pass_and_one_that_was_is_kept(bert_folder, tokenizer, tmp_path):
    width = BertModel.from_pretrained(bert_folder).config.hidden_size
    without = warm_start_seq2seq(bert_folder)[0].decoder.cls.predictions.transform.dense
    assert torch.equal(without.weight, 3 * torch.eye(width))
    assert not without.bias.any()
    torch.manual_seed(1)
    published = BertLMHeadModel(tiny.bert_config(tokenizer))
    published.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    kept = warm_start_seq2seq(str(tmp_path))[0].decoder.cls.predictions.transform.dense
    assert torch.equal(kept.weight, published.cls.predictions.transform.dense.weight)


@pytest.mark.parametrize("texts", [[], ["Add one and three."]])
def test_too_little_text_is_said(texts, bert_folder, tokenizer):
    model = warm_start_seq2seq(bert_folder)[0]
    with pytest.raises(
        ValueError, match=rf"more than {model.config.encoder.hidden_size} tokens .* in {len(texts)} texts"
    ):
        start_copying(model, tokenizer, texts)


def test_embeddings_of_another_width_are_refused(bert_folder, tokenizer, texts):
    model = warm_start_seq2seq(bert_folder)[0]
    model.decoder.set_input_embeddings(torch.nn.Embedding(9, 5))
    with pytest.raises(ValueError, match=r"found a width of 5\. Or start at random.*copying_start false"):
        start_copying(model, tokenizer, texts)


def roberta(tokenizer, **settings):
    config = tiny.bert_config(tokenizer)
    shape = {
        name: getattr(config, name) for name in ("vocab_size", "hidden_size", "num_attention_heads", "pad_token_id")
    }
    return RobertaModel(RobertaConfig(**shape, num_hidden_layers=2, intermediate_size=32, **settings))


def bert(tokenizer, *, max_position_embeddings):
    config = tiny.bert_config(tokenizer)
    config.max_position_embeddings = max_position_embeddings
    return BertModel(config)


@pytest.mark.parametrize("build", [bert, roberta])  # RoBERTa's positions start after that of the padding token
def test_an_encoder_of_few_positions_reads_what_it_can(build, tokenizer, texts, tmp_path):
    build(tokenizer, max_position_embeddings=24).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    long = [" ".join(texts[:4]), *texts]
    assert len(tokenizer(long[0])["input_ids"]) > 24
    warm_start_seq2seq(str(tmp_path), copied_texts=long)


def test_a_head_like_robertas_starts_near_the_identity_too(tokenizer, tmp_path):
    roberta(tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    dense = warm_start_seq2seq(str(tmp_path))[0].decoder.lm_head.dense
    assert torch.equal(dense.weight, 3 * torch.eye(len(dense.weight)))
