import pytest
import tiny

from recross_hf.training._compat import shared_weights_in_one_group

LAYERS = {"bart": {"BartEncoderLayer", "BartDecoderLayer"}, "t5": {"T5Block"}, "encoder_decoder": {"BertLayer"}}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_alone_have_groups_of_their_own_and_the_model_is_as_before(name, tokenizer):
    model = getattr(tiny, name)(tokenizer)
    before = dict(vars(model))
    with pytest.raises(KeyError), shared_weights_in_one_group(model):
        assert model.get_input_embeddings() is None
        assert model.get_output_embeddings() is None
        assert set(model._no_split_modules) == LAYERS[name]
        raise KeyError  # the model is as before whatever happens
    assert vars(model) == before
    assert model.get_input_embeddings() is not None
