"""P3 (Sanh et al. 2022): data sets that PromptSource's templates have rendered already, one configuration a template.

A row of a configuration is the input and the answer as one template put them, in columns of P3's own and with line breaks around
them. Configurations that end in `_score_eval` hold a row for each candidate answer, the wrong ones included: they are no training data,
and a pattern of configurations takes them only where it ends so, too.
"""

from __future__ import annotations

from dataclasses import replace

from .hub_rows import hub_rows
from .rows import Rows
from .sources import TaskSource

P3 = "bigscience/P3"
_COLUMNS = {"input": "inputs_pretokenized", "references": "targets_pretokenized", "choices": "answer_choices"}
_SCORED = "_score_eval"


def p3_rows(source: TaskSource) -> Rows:
    """The rows of a task of P3.

    Raises:
        SourceError: The data set cannot be had, or has no such configuration or split.
    """
    asks_for_scored = (source.config or "").endswith(_SCORED)
    rows = hub_rows(source, without="" if asks_for_scored else f"*{_SCORED}", config_is_template=True)
    return replace(rows, columns=rows.columns or _COLUMNS, is_padded=True)
