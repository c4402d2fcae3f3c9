"""Shared fixtures. Real pages are used where they are at hand; elsewhere a test that needs them skips and says why."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real pages named by TF_LLM_DATA, else shared/data beside the repository."""
    folder = Path(os.environ.get("TF_LLM_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"needs the folder of real pages; {folder} is not there (set TF_LLM_DATA)")
    return folder
