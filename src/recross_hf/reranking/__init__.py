"""The reranking stage (paper, section 3.3): a cross-encoder that learns from mined pairs, and what is selected by its scores.

Public: `Reranker`, `CrossEncoderReranker`, `RerankerTrainer`, `RerankerTrainingArguments`, `train_reranker`,
`evaluate_reranker`, `split_by_task`.
"""
