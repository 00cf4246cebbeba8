"""What several tests share: a tiny model and the way to the real data."""

import os
from pathlib import Path

import pytest
import torch
from tiny import tiny_config, tiny_hardware

from cai.composition import schema
from cai.config import OptimizerConfig, OptimizerKind, Schedule
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
def optimizer():
    return OptimizerConfig(
        kind=OptimizerKind.adamw,
        lr=1e-2,
        schedule=Schedule.cosine,
        warmup=0.1,
        weight_decay=0.0,
        max_grad_norm=1.0,
        batch_size=4,
        epochs=2,
    )


@pytest.fixture(scope="session")
def real_data():
    folder = Path(os.environ.get("CAI_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no third-party data: set CAI_TEST_DATA to its folder")
    return folder
