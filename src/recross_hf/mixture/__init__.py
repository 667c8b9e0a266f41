"""Upstream data: templates in a sandbox render the rows of many tasks, and repetitions and target texts are left out.

Public: `prepare_mixture`, `MixtureArguments`, `TaskSource`, `read_task_sources`, `Decontaminator`, `PromptTemplate`,
`load_templates`, `select_templates`.
"""
