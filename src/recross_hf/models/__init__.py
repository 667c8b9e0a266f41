"""Text-to-text models: the two architectures and everything in which they differ, from token ids to answers and likelihoods, and
models grown from a pretrained encoder.

Public: `load_model`, `rank_choices`, `set_chat_format`, `to_prompt_completion`, `warm_start_seq2seq`.
"""
