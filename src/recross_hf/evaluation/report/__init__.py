"""The report of an evaluation: scores with intervals, comparisons, findings in sentences, tables, figures, and one HTML page.

Public: `write_report`.
"""
