"""What the site is made of beside the pages in docs/: files of the root, which are not copied, and the notebooks as pages."""

from __future__ import annotations

import re
from pathlib import Path

import griffe
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

import recross_hf

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCE_OF = {
    "contributing.md": ROOT / "CONTRIBUTING.md",
    "changelog.md": ROOT / "CHANGELOG.md",
    "security.md": ROOT / "SECURITY.md",
    "measurements.md": ROOT / "benchmarks/results/README.md",
}
_PAGE_OF = {path: page for page, path in SOURCE_OF.items()} | {ROOT / "README.md": "index.md"}
# A link to a file: no picture, no address, no anchor alone.
_LINK = re.compile(r"(?<!!)\[((?:[^][]|\[[^][]*\])*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> None:
    """Refuses to build where a public name is on no page of the API, or has no docstring, or a method of it has none."""
    public = sorted({*recross_hf.__all__} - {"__version__"})
    shown = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    if unshown := [name for name in public if f"\n::: recross_hf.{name}\n" not in shown]:
        raise PluginError(
            f"Expected each public name in docs/api/, found no {', '.join(unshown)}. Add them to a page."
        )
    package = griffe.load("recross_hf", search_paths=[str(ROOT / "src")])
    missing = []
    for name in public:
        target = package[name].final_target
        members = target.members.values() if target.is_class else ()
        missing += [one.path for one in (target, *filter(_needs_docstring, members)) if not one.has_docstring]
    if missing:
        raise PluginError(f"Expected a docstring of each public name, found none of {', '.join(missing)}. Write them.")


def _needs_docstring(member: griffe.Object | griffe.Alias) -> bool:
    """Whether a member of a class is a method or a property, and no other form of one that a base class has."""
    if member.is_alias or member.name.startswith("_") or not (member.is_function or "property" in member.labels):
        return False
    return not any(member.name in base.all_members for base in member.parent.mro())


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files of the root, and a page for each notebook."""
    for page, path in SOURCE_OF.items():
        files.append(File.generated(config, page, abs_src_path=str(path)))
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        page, name = notebook.src_uri.removesuffix(".ipynb"), Path(notebook.src_uri).stem
        text, resources = MarkdownExporter().from_notebook_node(
            nbformat.read(notebook.abs_src_path, as_version=4),
            resources={"unique_key": name, "output_files_dir": f"{name}_files"},
        )
        files.append(File.generated(config, f"{page}.md", content=_plain_tables(text)))
        for path, content in resources["outputs"].items():
            files.append(File.generated(config, f"{Path(page).parent}/{path}", content=content))
    return files


def _plain_tables(text: str) -> str:
    """A notebook's text with the tables of pandas in the site's style."""
    without_style = re.sub(r"<style scoped>.*?</style>\n?", "", text, flags=re.DOTALL)
    return without_style.replace(' border="1" class="dataframe"', "").replace(' style="text-align: right;"', "")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leads links to the site's pages; of a file that the site lacks, the link goes to the repository, where it has an address."""
    source = SOURCE_OF.get(page.file.src_uri, DOCS / page.file.src_uri)

    def led(match: re.Match[str]) -> str:
        text, link, anchor = match[1], match[2], match[3] or ""
        target = (source.parent / link).resolve()
        if not target.exists():
            raise PluginError(f"{source.relative_to(ROOT)}: expected a file at {link}, found none. Mend the link.")
        if target in _PAGE_OF or target.is_relative_to(DOCS):
            found = _PAGE_OF.get(target) or str(target.relative_to(DOCS)).replace(".ipynb", ".md")
            return f"[{text}]({'../' * page.file.src_uri.count('/')}{found}{anchor})"
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{target.relative_to(ROOT)}{anchor})"
        return text

    code_apart = re.split(r"(^```.*?^```)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if number % 2 else _LINK.sub(led, part) for number, part in enumerate(code_apart))
