"""The reranking stage (paper, section 3.3): a cross-encoder learns from mined pairs, and its scores select the examples to learn from.

Public: `Reranker`, `CrossEncoderReranker`, `RerankerTrainer`, `RerankerTrainingArguments`, `train_reranker`,
`evaluate_reranker`, `split_by_task`.
"""
