"""The signals of a cell's adaptation, recorded around its training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..adaptation.adapter import RetrievalAugmentedAdapter
from ..adaptation.retrieval import further_neighbours, timed
from ..adaptation.signal_recorder import SignalRecorder
from ..data.conversations import texts_of


@contextmanager
def recorded_signals(adapter: RetrievalAugmentedAdapter, *, is_on: bool = True) -> Iterator[dict[str, Any]]:
    """Within it, an adapter is trained; afterwards the dictionary holds what [`AdaptationSignals.to_json`] says of it, as `signals`.

    The training stays as it was. The time is that of the stage "signals".

    Args:
        adapter: Adapter that has not trained; it retrieves if it has not.
        is_on: Whether anything is measured; if not, the dictionary stays empty.
    """
    details: dict[str, Any] = {}
    if not is_on:
        yield details
        return
    learned = adapter.retrieve() if adapter.retrieved is None else adapter.retrieved
    with timed(adapter.seconds, "signals"):
        held_out = further_neighbours(adapter.retriever, texts_of(adapter.query_dataset), learned)
        recorder = SignalRecorder(adapter, adapter.query_dataset, learned, held_out)
    yield details
    with timed(adapter.seconds, "signals"):
        details["signals"] = recorder.signals().to_json()
