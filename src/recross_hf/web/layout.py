"""What is where on the page, in gradio."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

from ..adaptation.arguments import GATES
from ..data.starter import starter_tasks
from ..hub.repository import Repository
from .inputs import FILE_TYPES
from .served import ServedPipeline
from .views import shown

TITLE = "Adapt a model to your task"


def imported_gradio(files: Path) -> Any:
    """Gradio, told to send nothing to anybody and to keep files in one folder.

    Args:
        files: Folder for files that are uploaded and downloaded.

    Raises:
        ImportError: Gradio is not installed.
    """
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=str(files), GRADIO_SSR_MODE="False")
    import gradio

    return gradio


def theme(gr: Any) -> Any:
    """The colours of the page, with fonts that each machine has: none is fetched."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]
    mono = ["ui-monospace", "Consolas", "monospace"]
    chosen = gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=mono)
    # Gradio's own are too pale to be read by everybody (WCAG asks for a contrast of 4.5).
    return chosen.set(
        body_text_color_subdued="#565f6e",
        body_text_color_subdued_dark="#b3bac6",
        input_placeholder_color="#69727f",
        input_placeholder_color_dark="#9aa3b2",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_cancel_background_fill="#b91c1c",
        button_cancel_background_fill_hover="#991b1b",
    )


def css() -> str:
    """The style of what [`views`][recross_hf.web.views] makes."""
    return resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")


class Layout:
    """The parts of the page in their order; gradio puts them into the `Blocks` inside of which they are made.

    Args:
        gr: Gradio.
        served: The pipeline.
    """

    def __init__(self, gr: Any, served: ServedPipeline) -> None:
        self.gr, self.served = gr, served
        self._inputs()
        with gr.Column(visible=False) as self.found_part:
            self._found()
            self._training()
        with gr.Column(visible=False) as self.adapted_part:
            self._comparison()
            self._taking_away()

    def _inputs(self) -> None:
        gr, served, limits = self.gr, self.served, self.served.limits
        # Of a pipeline in a folder, where that is on the server is nothing to a visitor.
        place = served.repository or Repository(Path(served.name or "").name)
        size = (served.is_starter, len(served.base.index), len(served.tasks))
        gr.HTML(f"<h1>{TITLE}</h1>{shown('header', place.repo_id, place.revision, *size)}", padding=False)
        gr.HTML("<h2>1. Your inputs</h2>")
        with gr.Row():
            with gr.Column(scale=3):
                self.text = gr.Textbox(
                    label=f"Inputs, one a line, at most {limits.inputs}",
                    lines=8,
                    max_lines=16,
                    placeholder=_PLACEHOLDER,
                )
            with gr.Column(scale=2):
                self.file = gr.File(
                    label=f"Or a file of them: {', '.join(FILE_TYPES)}", file_types=list(FILE_TYPES), height=170
                )
                self.starter = gr.Radio(
                    starter_tasks(),
                    label="Or a task that the starter never saw",
                    visible=served.is_starter,
                )
        with gr.Accordion("Right answers, if you have them", open=False):
            self.labels = gr.Textbox(
                label="One a line, in the order of the inputs. The method does not see them; they score the answers.",
                lines=4,
            )
        self.retrieve = gr.Button("Retrieve", variant="primary")
        self.message = gr.HTML()

    def _found(self) -> None:
        gr = self.gr
        gr.HTML("<h2>2. What is near</h2>")
        self.tasks = gr.HTML(elem_id="tasks")
        self.excluded = gr.CheckboxGroup([], label="Leave a task out, by a click")
        with gr.Accordion("The neighbours of each input", open=False):
            self.neighbours = gr.HTML(elem_id="neighbours")
        with gr.Accordion("The index as a picture", open=True):
            gr.HTML(shown("note", _ABOUT_PICTURE))
            self.picture = gr.ScatterPlot(
                x="x",
                y="y",
                color="group",
                tooltip=["task", "text"],
                height=420,
                x_title="first principal component",
                y_title="second",
                color_title="dots of",
                elem_id="picture",
            )

    def _training(self) -> None:
        gr, limits = self.gr, self.served.limits
        args = self.served.defaults
        gr.HTML("<h2>3. Adapt</h2>")
        with gr.Accordion("Settings", open=False):
            self.num_retrieved = gr.Slider(
                16, limits.retrieved, value=args.num_retrieved, step=16, label="Examples to learn from"
            )
            self.steps = gr.Slider(1, limits.steps, value=args.max_steps, step=1, label="Steps of the training")
            self.gate = gr.Radio(
                list(GATES),
                value=args.gate,
                label="Safety gate: when the base is kept",
                info="form: where answers lose their form. strict: also unless held-out examples get likelier. off: never.",
            )
        with gr.Row():
            self.adapt = gr.Button("Adapt", variant="primary")
            self.cancel = gr.Button("Cancel", variant="stop", visible=False)
        self.progress = gr.HTML(elem_id="progress")

    def _comparison(self) -> None:
        gr = self.gr
        gr.HTML("<h2>4. Compare</h2>")
        self.verdict = gr.HTML(elem_id="verdict")
        self.pairs = gr.HTML(elem_id="pairs")
        with gr.Row():
            self.new_input = gr.Textbox(label="A new input", lines=2, scale=4)
            self.ask = gr.Button("Answer it", scale=1)
        self.new_answer = gr.HTML(elem_id="new-answer")

    def _taking_away(self) -> None:
        gr = self.gr
        gr.HTML("<h2>5. Take it away</h2>")
        with gr.Row():
            self.zip = gr.DownloadButton("Download the adapter (zip)")
            self.report = gr.DownloadButton("Download the report (HTML)")
        self.code = gr.HTML(elem_id="code")
        with gr.Accordion("Push it to the Hub, with a token of your own", open=False):
            gr.HTML(shown("note", _ABOUT_PUSHING))
            self.repo_id = gr.Textbox(label="Repository", placeholder="me/my-adapter")
            self.token = gr.Textbox(label="Token that may write", type="password")
            self.private = gr.Checkbox(True, label="Private")
            self.push = gr.Button("Push")
            self.pushed = gr.HTML(elem_id="pushed")


_PLACEHOLDER = "Is this ticket about billing, delivery or a bug? My parcel is lost.\nIs this ticket about ..."
_ABOUT_PICTURE = (
    "Each dot is a training example of the index, or one of your inputs, where the vectors differ most (the first two principal components). "
    "Hover over a dot to read it."
)
_ABOUT_PUSHING = (
    "The adapted pipeline is published under your name: the adapter, what it learned from and its card; parts that are on the Hub already are "
    "named, others are published beside it. The token is used once and not kept."
)
