"""A page that scores one prediction against its references."""

import gradio as gr
from soft_em import score


def scores(prediction: str, references: str) -> dict[str, float]:
    accepted = [line for line in references.splitlines() if line.strip()]
    if not accepted:
        raise gr.Error("Write at least one reference, one a line.")
    return score([prediction], [accepted])


gr.Interface(
    scores,
    inputs=[gr.Textbox(label="Prediction"), gr.Textbox(label="References, one a line", lines=3)],
    outputs=gr.JSON(label="In percent"),
    title="SoftEM",
    description=(
        "The metric of ReCross: a prediction matches that, after normalisation, equals a reference, contains it or is contained in "
        "it. Exact match stands beside it."
    ),
).launch()
