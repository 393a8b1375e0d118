"""Writes the packages that pyproject.toml names as lists for pip, one for each layer of the images."""

import tomllib
from pathlib import Path

# 350 MB with what it needs itself, and nothing that the images run imports it.
_LEFT_OUT = ("label-studio-sdk",)


def main() -> None:
    """Write runtime.txt, training.txt and build.txt into the working directory."""
    pyproject = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    project = pyproject["project"]
    runtime = [package for package in project["dependencies"] if not package.startswith(_LEFT_OUT)]
    lists = {
        "runtime.txt": runtime,
        # The pins of the first list hold for the second, or pip would replace what is installed.
        "training.txt": runtime + project["optional-dependencies"]["train"],
        "build.txt": pyproject["build-system"]["requires"],
    }
    for name, packages in lists.items():
        Path(name).write_text("".join(f"{package}\n" for package in packages), encoding="utf-8")


if __name__ == "__main__":
    main()
