"""Examples of a task from anything that a user has: one schema, and readers that bring files, tables, data sets and the Hub to it.

Public: `load_examples`, `load_queries`, `Conversation`, `examples_by_task`, `starter_tasks`, `load_starter_task`.
"""
