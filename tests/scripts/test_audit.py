import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts import audit

ROOT = Path(__file__).resolve().parents[2]
# Put together here: whole, it would be found in this file.
PLANTED = "AKIA" + "IOSFODNN7EXAMPL0"
REPORT: dict[str, Any] = {
    "dependencies": [
        {"name": "flask", "version": "1.0", "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2"]}]},
        {"name": "torch", "skip_reason": "not found"},
    ]
}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository without secrets, which is the one that is audited; the vulnerability service is away."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "accepted_vulnerabilities.txt").write_text("# none\n")
    (tmp_path / "constraints.txt").write_text("flask==3.1.0\n")
    monkeypatch.setattr(audit, "REPOSITORY", tmp_path)
    monkeypatch.setattr(audit, "run_pip_audit", lambda _: None)
    return tmp_path


def commit(repository: Path, name: str, text: str) -> None:
    path = repository / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    subprocess.run(["git", "add", name], cwd=repository, check=True)


def test_a_planted_secret_fails_and_is_not_printed(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(repository, "settings.py", f'first = 1\nkey = "{PLANTED}"\n')
    assert audit.main() == 1
    printed = capsys.readouterr()
    assert "audit: secret: settings.py:2: AWS Access Key" in printed.err
    assert PLANTED not in printed.err + printed.out


@pytest.mark.parametrize("text", [f'key = "{PLANTED}"', "-----BEGIN RSA " + "PRIVATE KEY-----\n"])
def test_keys_are_found_in_tests_too(repository: Path, text: str) -> None:
    commit(repository, "tests/test_it.py", text)
    assert len(list(audit.find_secrets(repository))) == 1


def test_made_up_passwords_are_for_tests(repository: Path) -> None:
    commit(repository, "tests/test_it.py", 'password = "correct horse"\n')
    assert list(audit.find_secrets(repository)) == []
    commit(repository, "it.py", 'password = "correct horse"\n')
    assert list(audit.find_secrets(repository)) == ["it.py:1: Secret Keyword"]


def test_what_is_in_the_baseline_is_no_secret_wherever_it_stands(repository: Path) -> None:
    commit(repository, "it.py", 'password = "correct horse"\n')
    scan = [str(Path(sys.executable).with_name("detect-secrets")), "scan", "--no-verify", "it.py"]
    made = subprocess.run(scan, cwd=repository, capture_output=True, text=True, check=True).stdout
    commit(repository, audit.BASELINE, made)
    commit(repository, "it.py", '\n\npassword = "correct horse"\n')
    assert list(audit.find_secrets(repository)) == []
    commit(repository, "it.py", 'password = "another horse"\n')
    assert list(audit.find_secrets(repository)) == ["it.py:1: Secret Keyword"]


def test_without_the_service_it_says_so_loudly_and_does_not_fail(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main() == 0
    assert "*** NO PACKAGE WAS CHECKED FOR VULNERABILITIES" in capsys.readouterr().err


def test_a_vulnerability_fails_unless_it_is_accepted(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "run_pip_audit", lambda _: REPORT)
    assert audit.main() == 1
    error = capsys.readouterr().err
    assert "audit: vulnerability: flask 1.0: PYSEC-1 (fixed in: 2)" in error
    assert "*** 1 PACKAGES WERE NOT CHECKED" in error
    (repository / "scripts" / "accepted_vulnerabilities.txt").write_text("CVE-1 carcond calls none of it\n")
    assert audit.main() == 0


def test_an_answer_of_pip_audit_that_is_no_report_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    program = tmp_path / "pip-audit"
    program.write_text("#!/bin/sh\necho 'could not reach the service' >&2\nexit 1\n")
    program.chmod(0o755)
    assert audit.run_pip_audit(tmp_path / "constraints.txt") is None
    program.write_text(f"#!/bin/sh\necho '{json.dumps(REPORT)}'\nexit 1\n")
    assert audit.run_pip_audit(tmp_path / "constraints.txt") == REPORT


def test_a_pip_audit_that_fails_for_another_reason_fails_the_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    program = tmp_path / "pip-audit"
    program.write_text("#!/bin/sh\necho 'no such option: --no-deps' >&2\nexit 2\n")
    program.chmod(0o755)
    with pytest.raises(SystemExit, match="no such option"):
        audit.run_pip_audit(tmp_path / "constraints.txt")


def test_ci_runs_it() -> None:
    script = (ROOT / "scripts" / "test").read_text()
    assert "\nscripts/audit >" in script
    assert '\nwait "$audit" || status=1\n' in script
