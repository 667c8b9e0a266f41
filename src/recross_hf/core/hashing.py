"""Digests of data and of weights, which tell whether two of them are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


def digest_of(content: Any) -> int:
    """A number of 64 bits that a JSON value determines, in any process."""
    text = json.dumps(content, sort_keys=True, default=str, ensure_ascii=False)
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def spread(values: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele et al. 2014): numbers in a row come out as if drawn at random, and none twice."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = values ^ (values >> np.uint64(31))
    return mixed


def weights_hash(module: torch.nn.Module) -> str:
    """SHA-256 of a module's weights and their names, in hexadecimal."""
    import torch  # a second that processes which only render can do without

    digest = hashlib.sha256()
    for name, weight in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def function_name(function: Callable[..., Any]) -> str:
    """The name by which settings know a function, or an object that is called like one: it tells which, not what it computes."""
    return getattr(function, "__qualname__", type(function).__qualname__)
