"""Foundations that every other package may use, and that know nothing of examples or models: files written whole or not at all, batches,
processes, digests, cards, tables, figures and statistics.
"""
