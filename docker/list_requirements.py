"""`list_requirements.py [EXTRA ...]`: the packages that pyproject.toml names as lists for pip, one for each layer."""

import sys
import tomllib
from pathlib import Path


def main() -> None:
    """Write runtime.txt, with the extras that are named, train.txt, demo.txt and build.txt."""
    pyproject = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    extras = pyproject["project"]["optional-dependencies"]
    unknown = set(sys.argv[1:]) - set(extras)
    if unknown:
        sys.exit(f"expected extras of pyproject.toml ({', '.join(extras)}), got {', '.join(sorted(unknown))}")
    runtime = sum((extras[name] for name in sys.argv[1:]), pyproject["project"]["dependencies"])
    lists = {
        "runtime.txt": runtime,
        # The pins of the first list hold for the others, or pip would replace what is installed.
        "train.txt": runtime + extras["train"],
        "demo.txt": runtime + extras["demo"],
        "build.txt": pyproject["build-system"]["requires"],
    }
    for name, packages in lists.items():
        Path(name).write_text("".join(f"{package}\n" for package in packages), encoding="utf-8")


if __name__ == "__main__":
    main()
