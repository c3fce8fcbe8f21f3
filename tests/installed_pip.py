"""Stands in for pip where there is no network: installs by copying what is installed already.

Usage: `pip install --require-hashes --only-binary=:all: --prefix=DIR --requirement=FILE`, and no
other. The copies are of this environment, which pip filled from files of the same hashes.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from importlib.metadata import Distribution, distribution
from importlib.util import cache_from_source
from pathlib import Path

from packaging.requirements import Requirement


def requirements(text: str) -> list[Requirement]:
    """Those of a requirements file that this machine needs; each must have hashes."""
    found = []
    for block in re.findall(r"^\w.*(?:\n +.*)*", text, re.MULTILINE):
        if "--hash=sha256:" not in block:
            sys.exit(f"No hash: {block}")
        requirement = Requirement(re.split(r"\\|--hash|#", block)[0])
        if requirement.marker is None or requirement.marker.evaluate():
            found.append(requirement)
    return found


def copy(found: Distribution, site_packages: Path) -> None:
    """Copy the files of a package; its programs, which name their Python, stay behind.

    pip lists what it has compiled among the files; `make setup` compiles without pip.
    """
    for file in found.files or ():
        if ".." not in file.parts and file.suffix != ".pyc":
            copy_file(Path(str(found.locate_file(file))), site_packages / file)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, and what it has been compiled to."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
    if source.suffix == ".py" and (compiled := Path(cache_from_source(str(source)))).exists():
        copied = Path(cache_from_source(str(target)))
        copied.parent.mkdir(exist_ok=True)
        shutil.copy2(compiled, copied)


def main(arguments: list[str]) -> None:
    """Install, or end with a sentence."""
    parser = argparse.ArgumentParser(prog="pip", allow_abbrev=False)
    parser.add_argument("command", choices=["install"])
    parser.add_argument("--require-hashes", action="store_true", required=True)
    parser.add_argument("--only-binary", choices=[":all:"], required=True)
    parser.add_argument("--prefix", type=Path, required=True)
    parser.add_argument("--requirement", type=Path, required=True)
    options = parser.parse_args(arguments)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site_packages = options.prefix / "lib" / version / "site-packages"
    for requirement in requirements(options.requirement.read_text("utf-8")):
        found = distribution(requirement.name)
        if found.version not in requirement.specifier:
            sys.exit(f"{requirement} is needed and {found.version} is installed: run make setup.")
        copy(found, site_packages)


if __name__ == "__main__":
    main(sys.argv[1:])
