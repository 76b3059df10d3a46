"""A project whose `data` is the folder of public data sets that RECASTER_TEST_DATA names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent
CIFAR10 = ("data.source=data/cifar10/train.zip", "data.published_splits.test=data/cifar10/test.zip")
"""What points the recipes of CIFAR-10 to the copy in that folder: lossy, a little harder."""


def make_project(folder: Path) -> Path:
    """`folder` with the repository's recipes and stages, and a link to the data."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "dvc.yaml", folder)
    shutil.copytree(ROOT / "recipes", folder / "recipes", dirs_exist_ok=True)
    data = folder / "data"
    data.unlink(missing_ok=True)
    data.symlink_to(Path(os.environ["RECASTER_TEST_DATA"]).resolve(), target_is_directory=True)
    return folder
