"""Training on examples of the schema, upstream and in an adaptation: a `Seq2SeqTrainer` with batches by token budget, mixtures of tasks,
and checkpoints that resume to the same result.

Public: `ExampleTrainer`, `ExampleTrainingArguments`.
"""
