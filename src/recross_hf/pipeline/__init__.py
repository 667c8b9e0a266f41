"""`ReCrossPipeline`: an upstream model, its index and its reranker as one thing that is saved, published, loaded and adapted.

Public: `ReCrossPipeline`.
"""
