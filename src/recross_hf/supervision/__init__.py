"""Distant supervision (paper, Algorithm 1): mining finds, by trying them out, which upstream examples help on which queries.

Public: `mine_supervision`, `SupervisionArguments`, `load_query_sets`, `label_pairs`, `summarize_supervision`.
"""
