"""Package metadata of tf_llm. Tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

REQUIREMENTS = [
    "absl-py>=2.1",
    "fastwarc>=1.0.2,<3",
    "keras>=3.13,<3.16",
    "matplotlib>=3.8",
    # NLTK's tokenisers changed within 3.10 (opening quotes in 3.10.1): stay on what the vocabularies were made with.
    "nltk>=3.10.1,<3.11",
    "numpy>=1.26",
    "regex>=2021.8.3",  # NLTK's engine
    "resiliparse>=1.0.2,<3",
    "sentencepiece>=0.2,<0.3",
    "tensorflow>=2.18,<2.22",
    # Its ops are compiled against one minor version of TensorFlow; there is no wheel for Windows.
    "tensorflow-text>=2.18,<2.22; platform_system != 'Windows'",
    "tqdm>=4.66",
]
EXTRAS = {
    "dev": ["pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "ruff>=0.8"],
    # What the assistant reads: dates, calendars and what is repeated in them, units, the zone of this machine.
    "assistant": ["dateparser>=1.2", "icalendar>=6", "pint>=0.24", "recurring-ical-events>=3.3", "tzlocal>=5"],
    "chatbot": ["pyyaml>=6"],  # conversations in ChatterBot's form
    "cloud": ["fsspec>=2024.2", "gcsfs>=2024.2", "s3fs>=2024.2"],  # files in s3:// and gs://
    "datasets": ["datasets>=4"],  # those of the Hugging Face Hub; since 4 no code of theirs is executed
    "kaggle": ["kagglehub>=0.3"],
    "gradio": ["gradio>=5"],  # a chatbot's page in a notebook
    # Published models. safetensors knows numpy's bfloat16 from 0.4.5 on.
    "hugging_face": ["huggingface_hub>=0.23", "safetensors>=0.4.5"],
    "languages": ["langdetect>=1.0.9", "py3langid>=0.3"],  # which language a page is in, where its archive does not say
    "parquet": ["pyarrow>=18"],  # files of tables by columns
    "litert": ["ai-edge-litert>=1.2"],  # to run what export_lite writes; TensorFlow itself does the writing
    "onnx": ["onnxruntime>=1.18", "tf2onnx>=1.17"],  # to run, and to write; tf2onnx knows numpy 2 from 1.17 on
    "jax": ["jax>=0.7"],  # training with Keras on JAX; on a TPU jax[tpu], which brings the TPU's library
    # Closer to what people cut out of a page. Its dependency jusText needs a part of lxml that has left it.
    "trafilatura": ["lxml_html_clean>=0.4", "trafilatura>=2"],
    # What the search engine is built on: word endings, spelling, the inverted index.
    "search": ["PyStemmer>=2.2", "rapidfuzz>=3.6", "tantivy>=0.26"],
    "serve": ["fastapi>=0.115", "prometheus-client>=0.20", "uvicorn>=0.30"],  # a trained model behind HTTP
    # Preparing on a cluster of Apache Spark, which needs Java 17 as well; Spark 4 warns of newer versions of pandas.
    "spark": ["pandas>=2.2,<3", "pyarrow>=18", "pyspark>=4,<5"],
    "tensorboard": ["tensorboard>=2.18"],  # to look at what a run writes for it; writing needs nothing
    "wikipedia": ["mwparserfromhell>=0.6.5"],  # its dumps; what articles are written in
    # openai is the client that the server is tried with, schemathesis what tries to break it. Playwright drives the
    # page in Chromium, which has to be there, and axe looks whether everybody can use it.
    # faust-cchardet, orjson, python-magic (which needs the system's libmagic), spacy and warcio are for datatrove.
    "peers": [
        "axe-playwright-python>=0.1.5",
        "beautifulsoup4>=4.12",
        "bm25s>=0.3",
        "datasketch>=1.6",
        "datatrove>=0.6",
        "faust-cchardet>=2.1",
        "jusText>=3",
        "keras-hub>=0.21",
        "lxml>=5",
        "lxml_html_clean>=0.4",
        "moto[server]>=5",
        "openai>=1.50",
        "orjson>=3.9",
        "playwright>=1.45",
        "python-magic>=0.4.27",
        "rensa>=0.5",
        "schemathesis>=4",
        "spacy>=3.8",
        "torch>=2.4",
        "trafilatura>=2",
        "transformers>=5,<6",
        "warcio>=1.7.4",
    ],
}
# `all` is every optional capability.
EXTRAS["all"] = sorted({need for name, needs in EXTRAS.items() if name not in ("dev", "peers") for need in needs})

setup(
    name="tf_llm",
    version="0.1.0",
    description="How large language models are trained, in Keras and TensorFlow, to be read and to be run",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["tf_llm", "tf_llm.*"]),
    package_data={
        "tf_llm": [
            "*.txt",
            "apps/assistant/grammar/*.txt",
            "apps/server/web/*.css",
            "apps/server/web/*.html",
            "apps/server/web/*.js",
            "prepare/*.css",
            "text/*.txt",
        ]
    },
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
