from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (ROOT / "src/recross_hf/_version.py").read_text(encoding="utf-8").splitlines()
    if line.startswith("__version__")
)

EXTRAS = {
    "bm25": ["bm25s>=0.2"],
    "peft": ["peft>=0.17"],
    "plot": ["matplotlib>=3.8"],
    "quality": ["ruff>=0.14", "mypy>=2.0", "import-linter>=2.7", "types-PyYAML>=6.0"],
}
EXTRAS["examples"] = EXTRAS["bm25"] + EXTRAS["peft"] + EXTRAS["plot"]
EXTRAS["benchmarks"] = ["sentence-transformers>=5.0", "psutil>=5.9"]
EXTRAS["test"] = (
    EXTRAS["examples"]
    + EXTRAS["quality"]
    + ["pytest>=8.0", "hypothesis>=6.100", "setuptools>=68", "sentence-transformers>=5.0"]
)

setup(
    name="recross_hf",
    version=VERSION,
    description="Adapt a multi-task language model to an unseen task from a few unlabelled inputs (ReCross).",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords="few-shot, retrieval augmentation, cross-task generalization, transformers, huggingface",
    package_dir={"": "src"},
    packages=find_packages("src"),
    include_package_data=True,
    package_data={
        "recross_hf": [
            "py.typed",
            "card_templates/*.md",
            "evaluation/report/*.html",
            "starter_data/**/*",
            "tasks/*.yaml",
        ]
    },
    python_requires=">=3.11",
    install_requires=[
        "torch>=2.4",
        "transformers>=5.0",
        "accelerate>=1.1",
        "datasets>=4.0",
        "evaluate>=0.4.5",
        "filelock>=3.12",
        "huggingface_hub>=1.0",
        "faiss-cpu>=1.15",
        "safetensors>=0.4",
        "pyarrow>=16",
        "numpy>=1.26",
        "jinja2>=3.1",
        "pyyaml>=6.0",
        "tqdm>=4.66",
    ],
    extras_require=EXTRAS,
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
