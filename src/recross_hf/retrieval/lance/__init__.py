"""Upstream examples and their vectors in a Lance data set: on disk, in an object store or on the Hub, larger than one machine's memory.

Public: `LanceIndex`, `LanceRetriever`. Needs `pip install 'recross_hf[cluster]'`.
"""
