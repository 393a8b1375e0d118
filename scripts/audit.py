"""Supply checks: secrets in the repository's files, and known vulnerabilities of the packages in constraints.txt.

A secret that is none goes into `.secrets.baseline` (docs/security.md), a vulnerability that does not concern carcond
into `scripts/accepted_vulnerabilities.txt`.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from detect_secrets.core import baseline
from detect_secrets.core.potential_secret import PotentialSecret
from detect_secrets.core.secrets_collection import SecretsCollection
from detect_secrets.settings import default_settings, transient_settings

REPOSITORY = Path(__file__).resolve().parents[1]
BASELINE = ".secrets.baseline"
# Tests are full of passwords that are made up. Keys and tokens are found there, too.
_MADE_UP_IN_TESTS = {"Secret Keyword", "Basic Auth Credentials"}
# Per request: the service answers at once, or not at all.
_TIMEOUT_S = 5


def find_secrets(repository: Path) -> Iterator[str]:
    """Secrets in the files that git tracks and that are not in the baseline: file, line and kind, never the secret."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
    known = baseline.load_from_file(str(repository / BASELINE)) if (repository / BASELINE).exists() else None
    with transient_settings(known) if known else default_settings():
        found = SecretsCollection(root=str(repository))
        found.scan_files(*filter(None, listed.split("\0")))
    allowed = {_key(file, secret) for file, secret in (baseline.load(known) if known else ())}
    for file, secret in sorted(found, key=lambda each: (each[0], each[1].line_number)):
        is_made_up = file.startswith("tests/") and secret.type in _MADE_UP_IN_TESTS
        if file != BASELINE and not is_made_up and _key(file, secret) not in allowed:
            yield f"{file}:{secret.line_number}: {secret.type}"


def _key(file: str, secret: PotentialSecret) -> tuple[str, str, str]:
    """A secret without its line, which moves."""
    return file, secret.type, secret.secret_hash


def read_accepted(path: Path) -> dict[str, str]:
    """Vulnerability id -> reason why it is accepted."""
    lines = [line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines()]
    return {words[0]: words[1] for words in lines if words and not words[0].startswith("#")}


_NO_CONNECTION = re.compile("connect|reach|timed out|timeout", re.IGNORECASE)


def run_pip_audit(constraints: Path) -> dict[str, Any] | None:
    """The report of pip-audit; None when the vulnerability service could not be asked.

    Any other failure of it ends the audit.
    """
    options = [
        "--no-deps",
        "--disable-pip",
        "--format",
        "json",
        "--timeout",
        str(_TIMEOUT_S),
        "--progress-spinner",
        "off",
    ]
    command = [str(Path(sys.executable).with_name("pip-audit")), "--requirement", str(constraints), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        if _NO_CONNECTION.search(done.stderr):
            return None
        sys.exit(f"audit: pip-audit failed: {done.stderr[-1000:]}")
    return report


def find_vulnerabilities(report: Mapping[str, Any], accepted: Mapping[str, str]) -> list[str]:
    """Vulnerabilities of a report that are not accepted: package, release, id, and the releases that mend it."""
    return [
        f"{package['name']} {package['version']}: {found['id']} (fixed in: {' '.join(found['fix_versions']) or 'none'})"
        for package in report["dependencies"]
        for found in package.get("vulns", [])
        if not accepted.keys() & {found["id"], *found["aliases"]}
    ]


def count_unaudited(report: Mapping[str, Any]) -> int:
    """Number of packages that the service did not know: all of them, where it is a mirror without vulnerabilities."""
    return sum("skip_reason" in package for package in report["dependencies"])


def main() -> int:
    """Run both checks. Returns 1 if anything was found; a service that cannot be asked is said on standard error."""
    secrets = list(find_secrets(REPOSITORY))
    report = run_pip_audit(REPOSITORY / "constraints.txt")
    accepted = read_accepted(REPOSITORY / "scripts" / "accepted_vulnerabilities.txt")
    vulnerabilities = find_vulnerabilities(report, accepted) if report else []
    for line in [*(f"secret: {each}" for each in secrets), *(f"vulnerability: {each}" for each in vulnerabilities)]:
        print(f"audit: {line}", file=sys.stderr)
    unaudited = count_unaudited(report) if report else None
    if unaudited != 0:
        count = "NO PACKAGE" if unaudited is None else f"{unaudited} PACKAGES"
        verb = "WAS" if unaudited is None else "WERE NOT"
        print(
            f"audit: *** {count} {verb} CHECKED FOR VULNERABILITIES: no answer from PyPI's service ***", file=sys.stderr
        )
    print(f"audit: {len(secrets)} secrets, {len(vulnerabilities)} vulnerabilities")
    return 1 if secrets or vulnerabilities else 0


if __name__ == "__main__":
    sys.exit(main())
