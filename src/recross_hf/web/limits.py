"""`Limits`: how much one visitor of the page may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How much the page takes of a visitor, and how many visitors it serves.

    Args:
        inputs: Number of inputs.
        characters: Characters of an input.
        file_bytes: Bytes of a file with inputs, and of what is pasted.
        retrieved: Number of examples that are retrieved.
        steps: Steps of a training.
        scored: Number of labelled examples that are answered before and after.
        waiting: Number of visitors who may wait for something.
        visits: Number of visitors whose results are kept; of more, the one who was idle longest is forgotten.
        idle_seconds: Seconds after which a visitor who does nothing is forgotten.
    """

    inputs: int = 64
    characters: int = 4_000
    file_bytes: int = 1 << 20
    retrieved: int = 1_024
    steps: int = 300
    scored: int = 100
    waiting: int = 16
    visits: int = 64
    idle_seconds: int = 3_600

    def __post_init__(self) -> None:
        if wrong := [name for name, value in vars(self).items() if value < 1]:
            raise ValueError(f"Expected limits of at least 1, found less for {', '.join(wrong)}. Raise them.")
