"""The private names of transformers, accelerate and datasets that the packages below `training` hold on to.

Each says which versions it was seen in and why nothing public serves; `tests/core/test_compat.py` tests each, so that a version which moved one
is noticed.
"""

from __future__ import annotations

from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel


def has_process_state() -> bool:
    """Whether something in this process has asked for its device or its group.

    `PartialState().initialized`, which is public, asks for both itself, and `accelerate.state.is_initialized` knows of an `Accelerator` alone. Seen
    in accelerate 1.10 to 1.15.
    """
    return bool(PartialState._shared_state)


def fingerprint_of(dataset: Dataset) -> str:
    """The fingerprint of a data set, which stands for its content.

    The functions that compute one, `generate_fingerprint` and `Hasher`, hash the whole table in a copy; the one that a data set has already has
    no public name. Seen in datasets 5.2.
    """
    fingerprint: str = dataset._fingerprint
    return fingerprint


def commit_of(model: PreTrainedModel) -> str | None:
    """The commit of the Hub that a model was loaded at; None where that is not known.

    transformers noted it in the configuration's `_commit_hash` (seen in 5.17) and has no other name for it; 5.23 does not note it any more,
    and leaves the attribute out of `config.json` as before. `load_model` and published pipelines note it themselves ([`note_commit`]).
    """
    return getattr(model.config, "_commit_hash", None)


def note_commit(model: PreTrainedModel, commit: str | None) -> None:
    """Notes the commit of the Hub that a model was loaded at, where [`commit_of`] finds it."""
    model.config._commit_hash = commit
