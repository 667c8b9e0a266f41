"""Distant supervision (paper, Algorithm 1): which upstream examples help on which queries, found by trying them out.

Public: `mine_supervision`, `SupervisionArguments`, `load_query_sets`, `label_pairs`, `summarize_supervision`.
"""
