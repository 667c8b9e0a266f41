"""What a pipeline may say of how it is adapted: names, types and ranges."""

from __future__ import annotations

import math
from types import NoneType
from typing import Any

from ..hub.errors import ArtifactError

_NUMBER = (float, int)
ADAPTATION_SETTINGS: dict[str, tuple[type, ...]] = {
    "adam_beta1": _NUMBER,
    "adam_beta2": _NUMBER,
    "adam_epsilon": _NUMBER,
    "drop_long_targets": (bool,),
    "gate": (str,),
    "gate_fraction": _NUMBER,
    "generation_num_beams": (int, NoneType),
    "gradient_accumulation_steps": (int,),
    "label_smoothing_factor": _NUMBER,
    "learning_rate": _NUMBER,
    "lr_scheduler_type": (str,),
    "max_grad_norm": _NUMBER,
    "max_input_length": (int,),
    "max_steps": (int,),
    "max_target_length": (int,),
    "num_retrieved": (int,),
    "num_train_epochs": _NUMBER,
    "per_device_eval_batch_size": (int,),
    "per_device_train_batch_size": (int,),
    "rerank": (bool,),
    "safety_gate": (bool, NoneType),
    "seed": (int,),
    "select_by": (str,),
    "sum_token_loss": (bool,),
    "token_budget": (int, NoneType),
    "upstream_adapter": (str,),
    "upsampling_ratio": _NUMBER,
    "warmup_steps": _NUMBER,
    "weight_decay": _NUMBER,
}
"""Settings of `AdaptationArguments` that a pipeline may hold, and their types. None names a place, a report or an account.

The table is not derived from the dataclass, whose import needs torch: a test compares the two.
"""

# The defaults of the paper are far from all of these. Nobody's pipeline shall take the memory of a machine, or days.
_RANGES: dict[str, tuple[float, float]] = {
    "adam_beta1": (0, 1),
    "adam_beta2": (0, 1),
    "adam_epsilon": (0, 1),
    "gate_fraction": (0, 1),
    "generation_num_beams": (1, 128),
    "gradient_accumulation_steps": (1, 65_536),
    "label_smoothing_factor": (0, 1),
    "learning_rate": (0, 10),
    "max_grad_norm": (0, 1e9),
    # Inputs are cut to it: a tokenizer without a limit says 10 ** 30.
    "max_input_length": (1, math.inf),
    "max_steps": (-1, 10_000_000),
    "max_target_length": (1, 65_536),
    "num_retrieved": (1, 1_000_000),
    "num_train_epochs": (0, 10_000),
    "per_device_eval_batch_size": (1, 65_536),
    "per_device_train_batch_size": (1, 65_536),
    "seed": (0, 2**32 - 1),
    "token_budget": (1, 1 << 24),
    "upsampling_ratio": (1, 1_000),
    "warmup_steps": (0, 10_000_000),
    "weight_decay": (0, 10),
}
"""The least and the most that a pipeline may say."""
_MOST_CANDIDATES = 10_000_000


def check_adaptation_settings(settings: Any) -> None:
    """Refuses settings of an adaptation that somebody else's pipeline must not have.

    Args:
        settings: Values of [`AdaptationArguments`] by name, as they were read.

    Raises:
        ArtifactError: A name is unknown, a value has another type or is out of range.
    """
    expect(isinstance(settings, dict), "settings of the adaptation", settings)
    for name, value in settings.items():
        if name not in ADAPTATION_SETTINGS:
            raise ArtifactError(
                f"Expected settings of how to learn ({', '.join(sorted(ADAPTATION_SETTINGS))}), found "
                f"{name}={value!r}. A pipeline cannot say more than that: pass other settings to `adapt`."
            )
        kinds = ADAPTATION_SETTINGS[name]
        holds = isinstance(value, kinds) and isinstance(value, bool) == (bool in kinds and value is not None)
        holds = holds and not (isinstance(value, float) and not math.isfinite(value))
        expect(holds, f"{name} of the type {' or '.join(kind.__name__ for kind in kinds)}", value)
        if name in _RANGES and value is not None:
            least, most = _RANGES[name]
            expect(least <= value <= most, f"{name} from {least:,} to {most:,}", value)
    sizes = [settings.get("num_retrieved", 1), settings.get("upsampling_ratio", 1)]
    expect(
        sizes[0] * sizes[1] <= _MOST_CANDIDATES,
        f"num_retrieved x upsampling_ratio of at most {_MOST_CANDIDATES:,} candidates",
        f"{sizes[0]} x {sizes[1]}",
    )


def expect(holds: bool, what: str, found: Any) -> None:
    """Raises an [`ArtifactError`] with what was expected and what was found, unless `holds`."""
    if not holds:
        text = repr(found)
        raise ArtifactError(
            f"Expected {what}, found {text if len(text) <= 200 else text[:200] + '...'}. The file is damaged, or none that "
            "recross_hf wrote: download or save it again."
        )
