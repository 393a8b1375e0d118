"""Writes docs/licences.md: the dependencies of carcond and their licences, from the installed packages.

.venv/bin/python scripts/licences.py
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

PAGE = Path(__file__).resolve().parents[1] / "docs" / "licences.md"
# Development tools, which no installation of carcond includes.
_NOT_SHIPPED = {"dev"}
# Names of permissive licences, which require no more than a notice.
_PERMISSIVE = re.compile(
    r"Apache|\bMIT\b|\bBSD|\bISC\b|\bPSF|Python Software Foundation|\bCNRI|\bTCL\b|\bBSL-1\.0|\bHPND|\b0BSD|\bZlib",
    re.IGNORECASE,
)
_NOT_PERMISSIVE = re.compile(r"GPL|\bMPL|Mozilla|Proprietary|NVIDIA|\bEPL|\bSSPL|\bCDDL", re.IGNORECASE)
_REMARKS = {
    "certifi": "A list of certificates, used unchanged.",
    "psycopg": "Used unchanged, as a library of its own that anybody can replace.",
    "psycopg-binary": "As psycopg.",
    "tqdm": "Used unchanged.",
}
_NVIDIA = "Comes with PyTorch's build for CUDA alone; NVIDIA's own terms. PyTorch's build for CPUs has none of it."


@dataclass(frozen=True)
class Package:
    """An installed package and the licence that it states."""

    name: str
    licence: str

    @property
    def remark(self) -> str:
        """Remark on a licence that requires more than a notice; empty for a permissive one."""
        if not _NOT_PERMISSIVE.search(self.licence) and _PERMISSIVE.search(self.licence):
            return ""
        if self.name.startswith(("nvidia-", "cuda-")):
            return _NVIDIA
        return _REMARKS.get(self.name, "NOT LOOKED AT: say in scripts/licences.py why it may be used.")


def packages() -> list[Package]:
    """Installed direct and indirect dependencies of carcond, by name."""
    extras = set(distribution("carcond").metadata.get_all("Provides-Extra") or ()) - _NOT_SHIPPED
    found = _walk("carcond", ("", *extras), set())
    # Installed without its dependencies: its own pins are old.
    all_found = [each for each in (*found, distribution("label-studio-ml")) if each.name != "carcond"]
    return sorted({Package(_normal(each.name), _licence(each)) for each in all_found}, key=lambda package: package.name)


def _walk(name: str, extras: tuple[str, ...], seen: set[str]) -> Iterator[Distribution]:
    if _normal(name) in seen:
        return
    seen.add(_normal(name))
    try:
        found = distribution(name)
    except PackageNotFoundError:  # another platform's
        return
    yield found
    for text in found.requires or ():
        needed = Requirement(text)
        if any(needed.marker is None or needed.marker.evaluate({"extra": extra}) for extra in extras):
            yield from _walk(needed.name, ("", *needed.extras), seen)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _licence(found: Distribution) -> str:
    """Licence from the package's metadata, else from the first lines of its licence file."""
    facts = found.metadata.json
    stated, named = str(facts.get("license_expression") or ""), str(facts.get("license") or "").strip()
    classified = [c.split(" :: ")[-1] for c in found.metadata.get_all("Classifier") or () if c.startswith("License ::")]
    short = named if named and len(named) < 80 and named != "UNKNOWN" and "\n" not in named else ""
    return stated or "; ".join(classified) or short or _from_file(found)


def _from_file(found: Distribution) -> str:
    for file in found.files or ():
        if re.match(r"(licen[cs]e|copying)", file.name, re.IGNORECASE):
            match = _PERMISSIVE.search(" ".join(file.read_text(encoding="utf-8")[:300].split()))
            if match:
                return f"{match.group()} (its {file.name})"
    return "not stated"


def page() -> str:
    """The page."""
    all_packages = packages()
    other = [package for package in all_packages if package.remark]
    lines = [
        "# Licences",
        "",
        "<!-- Written by scripts/licences.py from the installed packages: install, and run it again. -->",
        "",
        "carcond is under the Apache License 2.0 (`LICENSE`). It contains no code of others; these packages are",
        "installed beside it, each under the licence that it states. Pretrained weights have terms of their own,",
        "and were made of ImageNet's pictures: look at them before you sell what was made with them.",
        "",
        "Label Studio (Apache-2.0), PostgreSQL, Redis or Valkey, Prometheus and Grafana are programs of their own,",
        "with licences of their own; none of them comes with carcond.",
        "",
        "## Not permissive",
        "",
        "| package | licence | |",
        "|---|---|---|",
        *(f"| {package.name} | {package.licence} | {package.remark} |" for package in other),
        "",
        "## Permissive",
        "",
        "| package | licence |",
        "|---|---|",
        *(f"| {package.name} | {package.licence} |" for package in all_packages if not package.remark),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
