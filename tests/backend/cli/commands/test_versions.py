import getpass
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from backend.cli.main import app
from backend.jobs.queue import JobQueue, get_job_queue
from backend.services import get_services
from carcond.errors import EncoderError, RegistryError, StoreError
from carcond.model.heads import Head, Heads
from carcond.model.version_card import VersionCard
from carcond.registry.pruning import prune
from carcond.registry.registry import Registry
from carcond.taxonomy import DAMAGE
from tests.backend.http_server import free_port
from tests.carcond.made_cards import full_card

PROJECT = 3

MakeSettings = Callable[..., Any]
OURS = ("--project", str(PROJECT))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["versions", *arguments], catch_exceptions=False)


def facts_of(*arguments: str) -> Any:
    """Standard output, which is JSON and nothing else."""
    return json.loads(run(*arguments, "--json").stdout)


def error_of(*arguments: str) -> str:
    with pytest.raises((RegistryError, EncoderError)) as caught:
        run(*arguments)
    return str(caught.value)


def card(number: int, accepted: bool = True) -> VersionCard:
    made = full_card() | {"created": f"2026-03-01T10:00:0{number}+00:00", "encoder_id": "tiny-00000000"}
    made["gate"] |= {"accepted": accepted, "reason": "not worse" if accepted else "worse, damage"}
    return VersionCard(**made)


@pytest.fixture
def registry(models_dir: Path) -> Registry:
    """Versions 1, 2, 4, which served one after the other, and 3, which was refused."""
    made = Registry(models_dir, PROJECT)
    for number in (1, 2, 3, 4):
        head = Head(DAMAGE, np.full((2, 32), number, np.float32), np.zeros(2, np.float32), 1.5, cross_fitted=True)
        made.write(Heads("tiny-00000000", {"damage": head}), card(number, accepted=number != 3), [])
        if number != 3:
            made.promote(number, why="not worse")
    return made


@pytest.fixture(autouse=True)
def _no_redis(make_settings: MakeSettings, registry: Registry) -> None:
    """The settings of the commands; nobody answers at their Redis."""
    make_settings()


@pytest.fixture
def jobs(job_queue: JobQueue, registry: Registry) -> JobQueue:
    """The same with a Redis."""
    return job_queue


def serving(registry: Registry) -> int:
    version = Registry(registry.root.parents[1], PROJECT).current()
    assert version
    return version.number


# list and show


def test_all_versions_are_listed_the_newest_first_with_the_serving_one_marked() -> None:
    lines = run("list", *OURS).stdout.splitlines()
    rows = [line.split() for line in lines if "carcond-" in line]
    assert [row[0] if row[0] != "*" else row[1] for row in rows] == [f"carcond-000{n}" for n in (4, 3, 2, 1)]
    assert [row[0] == "*" for row in rows] == [True, False, False, False]
    assert [row[-1] for row in rows] == ["accepted", "refused", "accepted", "accepted"]
    assert all("310 + 90" in " ".join(row) for row in rows)
    assert max(map(len, lines)) <= 100


def test_the_list_as_json_has_labels_scores_and_verdicts() -> None:
    rows = facts_of("list", *OURS)
    assert [(row["number"], row["serving"]) for row in rows] == [(1, False), (2, False), (3, False), (4, True)]
    assert rows[2]["gate"] == {"accepted": False, "reason": "worse, damage"}
    assert rows[0]["labels"] == {"train": 310, "holdout": 90}
    assert set(rows[0]["holdout"]["damage"]) == {"photos", "accuracy", "macro_f1"}


def test_a_broken_card_is_listed_as_one(registry: Registry) -> None:
    (registry.root / "versions" / "0002" / "card.json").write_text("{")
    assert "cannot be read" in run("list", *OURS).stdout
    assert "cannot be read" in facts_of("list", *OURS)[1]["error"]


def test_a_card_of_before_there_was_a_gate_is_listed(registry: Registry) -> None:
    old = {key: value for key, value in card(1).facts().items() if key != "gate"}
    (registry.root / "versions" / "0001" / "card.json").write_text(json.dumps(old))
    assert facts_of("list", *OURS)[0]["gate"] is None
    assert run("list", *OURS).stdout.splitlines()[-2].endswith("none")


@pytest.mark.parametrize("name", ["3", "0003", "carcond-0003"])
def test_a_version_is_named_in_three_ways(name: str) -> None:
    shown = run("show", *OURS, name).stdout
    assert "Report card of carcond-0003" in shown
    assert "Gate: refused" in shown
    assert "It does not serve." in shown


def test_what_became_of_a_version_is_shown() -> None:
    shown = run("show", *OURS, "2").stdout
    assert "promoted from carcond-0001 to carcond-0002 by loop: not worse" in shown
    assert "promoted from carcond-0002 to carcond-0004 by loop" in shown
    facts = facts_of("show", *OURS, "4")
    assert facts["version"] == "carcond-0004"
    assert facts["serving"] is True
    assert [(each["from"], each["to"], each["who"]) for each in facts["promotions"]] == [(2, 4, "loop")]


def test_the_page_of_a_version_is_printed() -> None:
    assert run("show", *OURS, "1", "--html").stdout.strip().startswith("<!doctype html>")
    assert run("show", *OURS, "1", "--html", "--json").exit_code == 2


@pytest.mark.parametrize("name", ["", "seven", "-1", "carcond-", "carcond_0001", "²", "1" * 5000, "0x1"])
def test_a_name_that_is_no_version_is_told(name: str) -> None:
    with pytest.raises(RegistryError, match="expected a version like 7, 0007 or carcond-0007"):
        run("show", *OURS, "--", name)


def test_a_version_or_project_that_does_not_exist_is_told() -> None:
    for command in (
        ["show", *OURS, "9"],
        ["promote", *OURS, "9", "--why", "a try"],
    ):
        assert error_of(*command) == "there is no version 9; there are 1 to 4"
    with pytest.raises(StoreError, match="project 8 is not known here"):
        run("list", "--project", "8")


def test_before_the_first_version_it_is_told_how_to_get_one() -> None:
    get_services().store.add_project(8)
    assert error_of("list", "--project", "8") == "project 8 has no version yet: label photos of two classes of one task"


# promote and rollback


def test_a_rollback_goes_back_by_the_record_and_a_second_one_further(jobs: JobQueue, registry: Registry) -> None:
    facts = facts_of("rollback", *OURS, "--why", "calls wet cars dirty", "--by", "anna")
    assert serving(registry) == 2
    assert (facts["action"], facts["from"], facts["to"]) == ("rollback", 4, 2)
    assert (facts["who"], facts["why"], facts["publishing"]) == ("anna", "calls wet cars dirty", True)
    run("rollback", *OURS, "--why", "still")
    assert serving(registry) == 1
    assert "a version that served before carcond-0001" in error_of("rollback", *OURS, "--why", "still")


def test_a_promotion_is_recorded_with_the_machines_user_and_makes_one_turn_wait(
    jobs: JobQueue, registry: Registry
) -> None:
    result = run("promote", *OURS, "1", "--why", "finds scratches")
    assert result.stdout.splitlines()[0] == (
        f"promoted from carcond-0004 to carcond-0001 and pinned by {getpass.getuser()}: finds scratches"
    )
    assert 'carcond versions unpin --project 3 --why "..."' in result.stdout
    assert serving(registry) == 1
    assert registry.promotions()[-1].who == getpass.getuser()
    assert len(jobs.queues()[0]) == 1


def test_a_user_without_a_name_is_known_by_their_number(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    def nameless() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nameless)
    run("promote", *OURS, "1", "--why", "finds scratches")
    assert registry.promotions()[-1].who == f"user {os.getuid()}"


def test_without_redis_the_promotion_holds_and_the_user_is_told(registry: Registry) -> None:
    result = run("rollback", *OURS, "--why", "calls wet cars dirty")
    assert result.exit_code == 0
    assert serving(registry) == 2
    assert "carcond-0002 serves, but Label Studio's queue keeps the old order" in result.stderr
    assert "Redis" in result.stderr
    assert get_job_queue().settings.redis_url.startswith("redis://127.0.0.1:1/")
    assert facts_of("rollback", *OURS, "--why", "still")["publishing"] is False


def test_a_refused_version_may_be_promoted_and_it_is_said_that_it_was(jobs: JobQueue, registry: Registry) -> None:
    result = run("promote", *OURS, "3", "--why", "I looked at its answers")
    assert serving(registry) == 3
    assert "carcond-0003 had been refused: worse, damage" in result.stderr


def test_a_reason_is_asked_for(registry: Registry) -> None:
    assert run("rollback", *OURS).exit_code == 2
    assert run("promote", *OURS, "1", "--why", " ").exit_code == 2
    assert serving(registry) == 4


@pytest.mark.parametrize("breakage", ["heads", "encoder", "missing", "serving"])
def test_what_cannot_serve_is_not_promoted(breakage: str, registry: Registry) -> None:
    version = "1"
    if breakage == "heads":
        (registry.root / "versions" / "0001" / "heads.safetensors").write_bytes(b"broken")
    elif breakage == "encoder":
        (registry.root.parents[1] / "encoders" / "tiny-00000000" / "encoder.onnx").unlink()
    else:
        version = {"missing": "9", "serving": "4"}[breakage]
    assert error_of("promote", *OURS, version, "--why", "a try")
    assert serving(registry) == 4
    assert len(registry.promotions()) == 3


def test_a_reason_cannot_command_the_terminal(jobs: JobQueue, registry: Registry) -> None:
    result = run("promote", *OURS, "1", "--why", "\x1b[2Jgone", "--by", "[bold]anna")
    assert "\x1b" not in result.stdout
    assert "[bold]anna" in result.stdout
    assert "\x1b" not in run("show", *OURS, "1").stdout


# pin and unpin


def test_a_rollback_pins_and_says_what_ends_it(jobs: JobQueue, registry: Registry) -> None:
    result = run("rollback", *OURS, "--why", "calls wet cars dirty", "--by", "anna")
    assert result.stdout.splitlines()[0] == (
        "rolled back from carcond-0004 to carcond-0002 and pinned by anna: calls wet cars dirty"
    )
    assert f'carcond versions unpin --project {PROJECT} --why "..."' in result.stdout
    pin = registry.pin()
    assert pin
    assert pin.version == 2


@pytest.mark.parametrize("version", ["", "4", "1"])
def test_a_version_is_pinned_by_name_or_the_serving_one_without(
    version: str, jobs: JobQueue, registry: Registry
) -> None:
    facts = facts_of("pin", *OURS, *filter(None, [version]), "--why", "measured", "--by", "anna")
    number = int(version or 4)
    assert (facts["action"], facts["to"], facts["pinned"]) == ("promote" if number == 1 else "pin", number, True)
    assert serving(registry) == number
    assert len(jobs.queues()[0]) == 1


def test_unpinning_asks_for_a_turn_and_says_what_follows(jobs: JobQueue, registry: Registry) -> None:
    registry.pin_serving(4, "anna", "measured")
    result = run("unpin", *OURS, "--why", "done", "--by", "ben")
    assert result.stdout.splitlines() == [
        "unpinned carcond-0004 by ben: done",
        "The newest version that the gate accepted serves from the next turn on.",
    ]
    assert registry.pin() is None
    assert len(jobs.queues()[0]) == 1


def test_without_redis_a_pin_holds_and_the_user_is_told(registry: Registry) -> None:
    result = run("pin", *OURS, "--why", "measured")
    assert result.exit_code == 0
    assert registry.pin()
    assert "The worker learns of that in its next turn: Redis" in result.stderr


def test_what_cannot_be_pinned_or_unpinned_is_told(registry: Registry) -> None:
    assert error_of("pin", *OURS, "9", "--why", "a try") == "there is no version 9; there are 1 to 4"
    assert "none is; carcond-0004 serves" in error_of("unpin", *OURS, "--why", "a try")
    run("pin", *OURS, "--why", "measured", "--by", "anna")
    assert error_of("pin", *OURS, "4", "--why", "a try") == "carcond-0004 is pinned by anna: measured already"
    assert run("pin", *OURS, "1", "--why", " ").exit_code == 2
    assert serving(registry) == 4


@pytest.fixture
def held(registry: Registry) -> Registry:
    """Version 2 is pinned; 5 was fitted since."""
    registry.promote(2, "anna", "measured", pinned=True)
    registry.write(registry.load(1).heads, card(5), [])
    return registry


def test_versions_that_a_pin_holds_back_are_listed_as_such(held: Registry) -> None:
    listed = run("list", *OURS).stdout
    verdicts = {line.split()[0]: line.split()[-1] for line in listed.splitlines() if " carcond-" in line}
    assert verdicts["carcond-0005"] == "held"
    assert verdicts["carcond-0003"] == "refused"
    assert "carcond-0002 is pinned by anna: measured" in listed
    rows = {row["number"]: row for row in facts_of("list", *OURS)}
    assert [number for number, row in rows.items() if row["pinned"]] == [2]
    assert {number: row["not_served"] for number, row in rows.items() if row["not_served"]} == {
        5: "carcond-0002 is pinned by anna: measured"
    }


def test_a_version_says_that_it_is_pinned_or_why_it_does_not_serve(held: Registry) -> None:
    assert "It serves. carcond-0002 is pinned by anna: measured." in run("show", *OURS, "2").stdout
    shown = run("show", *OURS, "5").stdout
    assert "It does not serve. carcond-0002 is pinned by anna: measured." in shown
    assert facts_of("show", *OURS, "5")["not_served"] == "carcond-0002 is pinned by anna: measured"
    assert "and pinned by anna: measured" in run("show", *OURS, "2").stdout


# Pruned versions


@pytest.fixture
def pruned(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Version 2 was pruned."""
    monkeypatch.setattr("carcond.registry.pruning.NEWEST", 1)
    prune(registry)
    assert registry.numbers() == [1, 3, 4]
    return registry


def test_pruned_versions_are_counted_in_the_list_and_shown_with_all(pruned: Registry) -> None:
    listed = run("list", *OURS).stdout
    assert "carcond-0002" not in listed
    assert listed.splitlines()[-1] == f"pruned and not listed: 1; carcond versions list --project {PROJECT} --all"
    every = run("list", *OURS, "--all").stdout.splitlines()
    assert next(line.split()[:2] for line in every if "carcond-0002" in line) == ["-", "carcond-0002"]
    assert every[-1] == "* serves; - pruned, only its figures are left"
    rows = {row["number"]: row for row in facts_of("list", *OURS, "--all")}
    assert list(rows) == [1, 2, 3, 4]
    assert rows[2]["pruned"]
    assert rows[2]["labels"] == {"train": 310, "holdout": 90}
    assert rows[1]["kept"] == "the first version"


def test_a_pruned_version_shows_its_figures_and_when_it_was_pruned(pruned: Registry) -> None:
    shown = run("show", *OURS, "2").stdout
    assert shown.startswith("carcond-0002\n  pruned: ")
    assert "labels: 310 for training, 90 held out" in shown
    assert "gate: accepted: not worse" in shown
    assert "promoted from carcond-0001 to carcond-0002 by loop" in shown
    facts = facts_of("show", *OURS, "2")
    assert facts["pruned"]
    assert len(facts["promotions"]) == 2


def test_what_needs_a_pruned_version_s_files_says_that_they_are_gone(pruned: Registry) -> None:
    for command in (
        ["show", *OURS, "2", "--html"],
        ["promote", *OURS, "2", "--why", "a try"],
        ["pin", *OURS, "2", "--why", "a try"],
    ):
        assert "carcond-0002 was pruned on " in error_of(*command)
    assert serving(pruned) == 4


# Running web processes


@pytest.fixture
def backend(registry: Registry, tmp_path: Path) -> Iterator[str]:
    """Two gunicorn workers, each a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}", "backend.app:create_app()"]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                httpx.get(f"{url}/health")
                break
            except httpx.TransportError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.1)
        yield url
        process.terminate()


def told_versions(url: str, count: int = 12) -> set[str]:
    """What several requests, spread over the workers, are told of the project."""
    body = {"project": f"{PROJECT}.1795378294", "schema": "", "hostname": ""}
    return {httpx.post(f"{url}/setup", json=body, timeout=30).json()["model_version"] for _ in range(count)}


@pytest.mark.slow
def test_running_web_processes_serve_the_version_at_once(backend: str, registry: Registry) -> None:
    assert told_versions(backend) == {"carcond-0004"}
    run("rollback", *OURS, "--why", "calls wet cars dirty")
    assert told_versions(backend) == {"carcond-0002"}
    run("promote", *OURS, "4", "--why", "it does not")
    assert told_versions(backend) == {"carcond-0004"}
