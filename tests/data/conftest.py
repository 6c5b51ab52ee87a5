"""Tiny sources, one of each layout that more than one file of tests damages."""

from __future__ import annotations

from pathlib import Path

import pytest

from foreframe.data.layouts import bair_lab, dance_lab


@pytest.fixture
def bair(tmp_path: Path) -> Path:
    bair_lab.example(tmp_path / "bair")
    return tmp_path / "bair"


@pytest.fixture
def dance(tmp_path: Path) -> Path:
    dance_lab.example(tmp_path / "dance")
    return tmp_path / "dance"
