"""The list of all parts of an image: each pinned package is in it, and each image has one."""

import json
import re
import subprocess
import sys
from pathlib import Path

from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
CYCLONEDX = str(Path(sys.executable).with_name("cyclonedx-py"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def components(sbom: Path) -> set[tuple[str, str]]:
    """Names and releases in a CycloneDX file."""
    read = json.loads(sbom.read_text(encoding="utf-8"))
    assert read["bomFormat"] == "CycloneDX"
    return {(canonicalize_name(each["name"]), each["version"]) for each in read["components"]}


def test_every_pinned_package_is_in_the_list_of_a_checkout(tmp_path: Path) -> None:
    sbom = tmp_path / "sbom.cdx.json"
    subprocess.run([CYCLONEDX, "requirements", "constraints.txt", "--output-file", str(sbom)], cwd=ROOT, check=True)
    pins = [line.split(";")[0].strip() for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()]
    pinned = {(canonicalize_name(name), version) for name, _, version in (pin.partition("==") for pin in pins if pin)}
    assert len(pinned) > 100
    assert components(sbom) == pinned


def test_an_environment_is_listed_as_the_images_do_it(tmp_path: Path) -> None:
    command = re.findall(r"cyclonedx-py (environment) (\S+) (--output-file) (\S+)", DOCKERFILE)
    assert command == [("environment", "/opt/packages/bin/python3", "--output-file", "/sbom.cdx.json")] * 3
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "packages")], check=True)
    sbom, python = tmp_path / "sbom.cdx.json", tmp_path / "packages" / "bin" / "python3"
    site = next((tmp_path / "packages").glob("lib/python*/site-packages"))
    installed = site / "some_package-1.2.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: some-package\nVersion: 1.2\n")
    subprocess.run([CYCLONEDX, "environment", str(python), "--output-file", str(sbom)], check=True)
    assert components(sbom) == {("some-package", "1.2")}


def test_each_image_has_its_list() -> None:
    for image, stage in {"backend": "sbom", "demo": "demo-sbom", "training": "training-sbom"}.items():
        (text,) = re.findall(rf"(?ms)^FROM \S+ AS {image}\n(.*?)(?=^FROM|\Z)", DOCKERFILE)
        assert f"COPY --from={stage} /sbom.cdx.json /usr/share/carcond/sbom.cdx.json\n" in text
