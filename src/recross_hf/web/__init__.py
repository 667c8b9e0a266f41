"""The page on which somebody tries a pipeline: what it shows (`views`), what it does, and the Space that serves it.

Gradio is imported when the page is made, and not before.
"""
