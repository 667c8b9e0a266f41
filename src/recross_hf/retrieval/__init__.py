"""The retrieval stage (paper, section 3.2): encoders, the FAISS index of upstream examples, and retrievers, whose hits an
aggregation joins.

Public: `Encoder`, `MeanPooledEncoder`, `SentenceEncoder`, `encode_in_processes`, `UpstreamIndex`, `Retriever`, `DenseRetriever`, `RandomRetriever`,
`BM25Retriever`, `SIFTRetriever`, `MixedRetriever`, `BalancedRetriever`.
"""
