"""Shared fixtures. Real pages are used where they are at hand; elsewhere a test that needs them skips and says why."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_addoption(parser):
    parser.addoption("--thorough", action="store_true", help="also run the tests that are marked thorough")


def pytest_collection_modifyitems(config, items):
    """Leaves out what takes long, so that the default run stays under ten minutes on two cores."""
    if config.getoption("--thorough"):
        return
    skip = pytest.mark.skip(reason="thorough: takes long; run with --thorough")
    for item in items:
        if item.get_closest_marker("thorough"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real pages named by TF_LLM_DATA, else shared/data beside the repository."""
    folder = Path(os.environ.get("TF_LLM_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"needs the folder of real pages; {folder} is not there (set TF_LLM_DATA)")
    return folder
