"""The packages of the distribution; everything else about it is in pyproject.toml.

Installed, the sample data is inside the package, where it takes nobody else's name.
"""

from pathlib import Path

from setuptools import find_packages, setup

SAMPLES = [Path("sample_data"), *(folder for folder in Path("sample_data").iterdir() if folder.is_dir())]
PLACES = {".".join(["finetune", *folder.parts]): str(folder) for folder in SAMPLES}

setup(packages=[*find_packages(include=["finetune", "finetune.*"]), *PLACES], package_dir=PLACES)
