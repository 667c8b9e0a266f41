"""Methods compared on target tasks: methods x tasks x query sets, each a cell on disk, scored beside floors that need no model.

Public: `evaluate_methods`, `Method`, `paper_methods`, `TargetTask`, `load_target_task`, `read_target_tasks`,
`starter_target_task`, `EvaluationResults`, `write_report` (in `report`).
"""
