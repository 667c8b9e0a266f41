"""How FSDP2 is to spread a sequence-to-sequence model over devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel


@contextmanager
def shared_weights_in_one_group(model: PreTrainedModel) -> Iterator[None]:
    """While the model is prepared for FSDP2, leaves its embeddings and whatever shares their weights to the outermost group.

    accelerate makes a group of the input and the output embeddings, which suits decoder-only models. Where encoder and decoder share
    a weight with them, FSDP2 would find it in two groups, and refuses that. The layers keep groups of their own.
    """
    places = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    sharing = {
        type(module).__name__
        for module in model.modules()
        if any(places[id(parameter)] > 1 for parameter in module.parameters())
    }
    seen_by_accelerate = {
        "get_input_embeddings": lambda: None,
        "get_output_embeddings": lambda: None,
        "_no_split_modules": [name for name in model._no_split_modules or () if name not in sharing],
    }
    own = {name: vars(model)[name] for name in seen_by_accelerate if name in vars(model)}
    vars(model).update(seen_by_accelerate)
    try:
        yield
    finally:
        for name in seen_by_accelerate:
            del vars(model)[name]
        vars(model).update(own)
