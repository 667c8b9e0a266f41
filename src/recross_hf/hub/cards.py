"""Rows of a card that name repositories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .repository import Repository


def part_rows(parts: Mapping[str, Repository]) -> str:
    """Rows of a table of a pipeline's parts: name, repository, commit."""
    return "\n".join(
        f"| {name} | [{where.repo_id}]({where.url}) | `{where.revision}` |" for name, where in parts.items()
    )
