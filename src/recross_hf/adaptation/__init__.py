"""The adaptation itself: retrieve, choose, continue training a copy of the model, and keep it or not by the safety gate.

Public: `RetrievalAugmentedAdapter`, `AdaptationArguments`, `GateVerdict`, `AnswerForm`.
"""
