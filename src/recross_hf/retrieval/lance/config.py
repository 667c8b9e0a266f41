"""The configuration that is stored with a version of a Lance data set: what the vectors depend on, and how they are indexed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..vector_shards import IndexMismatchError
from .layout import TAG
from .vector_index import METRICS, SearchDepth

FORMAT_VERSION = 1
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "encoder": dict,
    "probes": list,
    "num_examples": int,
    "dimension": int,
    "vector_dtype": str,
    "metric": str,
    "index": (dict, type(None)),
    "search": (dict, type(None)),
}
"""The entries that an index is opened by, and their types."""


def read_config(metadata: Mapping[bytes, bytes], uri: str, version: int) -> dict[str, Any]:
    """Reads the configuration of a version, which may be anybody's.

    Args:
        metadata: Metadata of the version's schema.
        uri: Address of the data set, for messages.
        version: Number of the version, for messages.

    Raises:
        FileNotFoundError: The version has none: its build was not finished.
        IndexMismatchError: It is malformed, or of another format.
    """
    where = f"version {version} of {uri}"
    if TAG.encode() not in metadata:
        raise FileNotFoundError(
            f"Expected a finished index in {where}, found a version without a configuration: its build was not finished, or is going on. Open "
            "the version that was finished last: leave `version` out."
        )
    try:
        config = json.loads(metadata[TAG.encode()])
    except ValueError as error:
        raise IndexMismatchError(
            f"Expected the configuration of an index as JSON in {where}, found: {error}"
        ) from error
    found = config.get("format_version") if isinstance(config, dict) else None
    if not isinstance(config, dict) or found != FORMAT_VERSION:
        raise IndexMismatchError(
            f"Expected an index of format {FORMAT_VERSION}, found {found} in {where}. Build it again, or install the version of recross_hf "
            "that wrote it."
        )
    wrong = [name for name, kind in _TYPES.items() if not isinstance(config.get(name), kind) or name not in config]
    wrong += ["metric"] * (config.get("metric") not in METRICS)
    wrong += ["vector_dtype"] * (config.get("vector_dtype") not in ("float32", "float16"))
    if not wrong and config["search"] is not None:
        try:
            SearchDepth(**config["search"])
        except (TypeError, ValueError):
            wrong = ["search"]
    if wrong:
        raise IndexMismatchError(
            f"Expected {', '.join(wrong)} of an index in {where}, found something else. Build the index again."
        )
    return config
