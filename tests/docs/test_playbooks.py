"""Every alert has a section in docs/playbooks.md and leads to it; what a section tells people to run is there."""

import re
from pathlib import Path

import pytest
import typer
import yaml

from backend.cli.main import app
from tests.backend.web.test_monitoring import ALERTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "playbooks.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"(?ms)^## (\w+)\n(.*?)(?=^## |\Z)", PAGE))
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
PROGRAMS = {"docker", "carcond", "df", "set", "scripts/up"}


def commands() -> list[list[str]]:
    """All that stands in code spans and begins like a command, as words."""
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", PAGE)]
    return [span.split() for span in spans if span.split()[0] in PROGRAMS and (" " in span or span == "carcond")]


def test_every_alert_has_a_section_and_each_section_an_alert() -> None:
    assert list(SECTIONS) == [alert["alert"] for alert in ALERTS]


def test_every_alert_leads_to_its_section() -> None:
    for alert in ALERTS:
        assert alert["annotations"]["playbook"] == f"docs/playbooks.md#{alert['alert'].lower()}"


@pytest.mark.parametrize("alert", SECTIONS)
def test_a_section_says_what_it_means_what_people_notice_what_to_look_at_and_what_to_do(alert: str) -> None:
    assert re.findall(r"(?m)^\*\*(.+?)\.\*\* \S", SECTIONS[alert]) == ["Means", "People notice", "Look at", "Do"]


@pytest.mark.parametrize("alert", SECTIONS)
def test_a_section_names_something_to_run_or_to_open(alert: str) -> None:
    assert re.search(r"`(docker|carcond) |Grafana", SECTIONS[alert].partition("**Look at.**")[2])


def test_carcond_has_the_commands_and_options_that_are_named() -> None:
    named = [words for words in commands() if words[0] == "carcond"]
    assert len(named) > 5
    for words in named:
        command = typer.main.get_command(app)
        for word in words[1:]:
            if word.startswith("-"):
                assert any(word in option.opts for option in command.params), words
            elif not word.isdecimal():
                command = command.get_command(None, word)  # type: ignore[attr-defined]  # a group, or it fails
                assert command is not None, words


def test_compose_has_the_services_that_are_named() -> None:
    named = [words for words in commands() if words[:2] == ["docker", "compose"] and words[2] != "exec"]
    assert len(named) > 5
    for words in named:
        assert words[2] in ("logs", "ps", "up", "restart"), words
        services = [word for word in words[3:] if not word.startswith("-") and not word.isdecimal()]
        assert services, words
        assert set(services) <= SERVICES.keys(), words
