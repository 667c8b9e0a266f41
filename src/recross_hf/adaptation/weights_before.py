"""The weights of a model from before its training, to be put back where the training did harm."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class WeightsBefore:
    """The weights that will be trained, as they are when this is made.

    Those that the model was copied from are not copied a second time: they are read where they lie, and a sum tells later whether they are
    still the same. Others (an adapter's, or all of them where that model is gone or has other weights) are copied to the CPU.

    Args:
        model: Model that will be trained, its weights being whole in each process.
        source: Model that it was copied from; None where that is gone.

    Attributes:
        bytes_copied: Bytes that the copies take.
    """

    def __init__(self, model: torch.nn.Module, source: PreTrainedModel | None) -> None:
        theirs = {} if source is None else dict(source.named_parameters())
        self._copied: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
        self._found: list[tuple[torch.nn.Parameter, torch.nn.Parameter, int]] = []
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            other = theirs.get(name)
            if other is not None and not other.is_meta and other.shape == parameter.shape and _same(parameter, other):
                self._found.append((parameter, other, _sum_of_bits(parameter)))
            else:
                self._copied.append((parameter, parameter.detach().to("cpu", copy=True)))
        self.bytes_copied = sum(value.nbytes for _, value in self._copied)

    @torch.no_grad()
    def put_back(self) -> None:
        """Gives the model the weights that it had.

        Raises:
            RuntimeError: The model that they are read from was changed; then nothing is put back.
        """
        if any(other.is_meta or _sum_of_bits(_like(other, own)) != before for own, other, before in self._found):
            raise RuntimeError(
                "Expected the model that was passed to be adapted to have the same weights as before, for the safety gate puts them back, "
                "found that it was changed while its copy was trained. The copy has its trained weights. Leave the model as it is until "
                "`train` returns, or switch the gate off (`gate='off'`)."
            )
        for own, other, _ in self._found:
            own.copy_(other)
        for own, value in self._copied:
            own.copy_(value)


def _like(other: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    return other.detach().to(own)


def _same(own: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(own.detach(), _like(other, own))


def _sum_of_bits(values: torch.Tensor) -> int:
    """The sum of the values' bits, eight bytes a number, modulo 2^64: it changes with any one of them, and costs less than a copy."""
    flat, size = values.detach().reshape(-1), values.element_size()
    if flat.storage_offset() * size % 8:
        flat = flat.clone()  # no number of eight bytes begins where it does
    whole = len(flat) - len(flat) % (8 // size)
    # A sum of the same type, which is thirty times as fast as one that widens each number.
    total = int(flat[:whole].view(torch.int64).sum()) + int(flat[whole:].view(_INTEGERS[size]).sum(dtype=torch.int64))
    return total % 2**64
