"""What several tests share: a tiny model and the way to the real data."""

import os
from pathlib import Path

import pytest
import torch
from tiny import tiny_config, tiny_hardware, tiny_supervised

from cai.composition import schema
from cai.lm.load import load_model

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)
schema()  # tests compose conf/ when they are imported


def pytest_addoption(parser):
    parser.addoption(
        "--every-stage", action="store_true", help="take every family of models through all stages"
    )


@pytest.fixture
def hardware():
    return tiny_hardware()


@pytest.fixture
def tiny(hardware):
    return load_model(tiny_config(), hardware)


@pytest.fixture
def supervised():
    return tiny_supervised()


@pytest.fixture(scope="session")
def real_data():
    folder = Path(os.environ.get("CAI_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no third-party data: set CAI_TEST_DATA to its folder")
    return folder
