"""What identifies the weights of a model."""

from __future__ import annotations

import hashlib

import torch


def weights_hash(module: torch.nn.Module) -> str:
    """SHA-256 of a module's weights and their names, in hexadecimal."""
    digest = hashlib.sha256()
    for name, weight in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
