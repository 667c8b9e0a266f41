"""Upstream data: the rows of many tasks, rendered by templates in a sandbox, split, and freed of repetitions and of what targets hold.

Public: `prepare_mixture`, `MixtureArguments`, `TaskSource`, `read_task_sources`, `TargetTexts`, `PromptTemplate`,
`load_templates`, `select_templates`.
"""
