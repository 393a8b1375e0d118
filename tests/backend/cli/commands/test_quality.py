import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from backend.cli.main import app
from backend.project.label_review import TAB
from backend.project.quality_view import anchoring_cells, judged_lines, quality_text, review_text
from carcond.errors import LabelTableError, StoreError
from tests.backend.drawings import draw_photo
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage

COUNT = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty drawn photos with labels, of which one is wrong."""
    lines = ["file,damage"]
    for i in range(COUNT):
        damage = ("intact", "damaged")[i % 2]
        (tmp_path / f"{i:02}.jpg").write_bytes(draw_photo(i, damage=damage))
        lines.append(f"{i:02}.jpg,{damage if i != 20 else 'damaged'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    return tmp_path


@pytest.fixture
def mistaken(garage: Garage) -> tuple[Garage, int]:
    """A project of sixty photos, labelled by two, who disagree on the one whose label is wrong."""
    ids = garage.add_photos(COUNT)
    garage.settle()
    wrong = ids[30]
    garage.label(*(i for i in ids if i != wrong))
    garage.label(*ids[:10], annotator=2)
    garage.studio.annotate(wrong, cleanliness="very_dirty", damage=garage.truth[wrong]["damage"])
    garage.settle()
    return garage, wrong


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_quality_of_a_folder_names_the_wrong_label(folder: Path, make_settings: Any) -> None:
    make_settings()
    report = json.loads(run("quality", "--photos", str(folder), "--labels", str(folder / "labels.csv"), "--json"))
    assert (report["photos"], report["labelled"], report["measured"]) == (COUNT, COUNT, COUNT)
    assert report["balance"]["damage"]["intact"]["labels"] == COUNT // 2 - 1
    assert len(report["small"]) == COUNT
    suspect = report["suspects"][0]
    assert (suspect["photo"], suspect["given"], suspect["likely"]) == ("20.jpg", "damaged", "intact")


def test_a_folder_without_labels_is_reported_without_an_encoder(
    folder: Path, make_settings: Any, tmp_path: Path
) -> None:
    make_settings(CARCOND_MODELS_DIR=str(tmp_path / "nothing"))
    report = json.loads(run("quality", "--photos", str(folder), "--json"))
    assert report["labelled"] == 0
    assert "suspects" not in report


def test_photos_with_names_that_are_no_utf_8_are_told(folder: Path, make_settings: Any) -> None:
    make_settings()
    (folder / os.fsdecode(b"\xea.jpg")).write_bytes(b"no photo")
    assert r"\udcea.jpg" in run("quality", "--photos", str(folder))


def test_without_an_encoder_labels_are_counted_and_not_judged(folder: Path, make_settings: Any, tmp_path: Path) -> None:
    make_settings(CARCOND_MODELS_DIR=str(tmp_path / "nothing"))
    result = CliRunner().invoke(
        app, ["quality", "--photos", str(folder), "--labels", str(folder / "labels.csv"), "--json"]
    )
    assert json.loads(result.stdout)["labelled"] == COUNT
    assert "labels were not judged" in result.stderr


def test_quality_of_a_project_tells_pictures_agreement_and_suspects(mistaken: tuple[Garage, int]) -> None:
    garage, wrong = mistaken
    report = json.loads(run("quality", "--project", str(PROJECT), "--json"))
    assert (report["photos"], report["labelled"], report["measured"]) == (COUNT, COUNT, COUNT)
    assert report["agreement"]["damage"]["photos"] == 10
    assert report["agreement"]["damage"]["alpha"] == 1
    assert report["suspects"][0]["photo"] == wrong
    assert garage.studio.tabs == {}


def test_quality_measures_photos_that_were_embedded_before_looks_were_kept(mistaken: tuple[Garage, int]) -> None:
    garage, wrong = mistaken
    garage.services.store.update_photos(PROJECT, [{"task_id": wrong, "width": None, "sharpness": None}])
    assert json.loads(run("quality", "--project", str(PROJECT), "--json"))["measured"] == COUNT


def test_review_shows_the_wrong_label_in_label_studio(mistaken: tuple[Garage, int]) -> None:
    garage, wrong = mistaken
    report = json.loads(run("review", "--project", str(PROJECT), "--top", "1", "--json"))
    (photo,) = report["photos"]
    assert photo["photo"] == wrong
    assert photo["doubts"][0] | {"suspicion": None} == {
        "task": "cleanliness",
        "given": "very_dirty",
        "by": ["user 1"],
        "likely": "clean",
        "suspicion": None,
    }
    assert garage.studio.listed(TAB) == [wrong]
    tab = next(number for number, data in garage.studio.tabs.items() if data["title"] == TAB)
    assert photo["link"].endswith(f"/projects/{PROJECT}/data?tab={tab}&task={wrong}")
    assert report["tab"].endswith(f"/projects/{PROJECT}/data?tab={tab}")


def test_a_dry_run_changes_nothing(mistaken: tuple[Garage, int]) -> None:
    garage, wrong = mistaken
    garage.studio.writes.clear()
    report = json.loads(run("review", "--project", str(PROJECT), "--dry-run", "--json"))
    assert report["photos"][0]["photo"] == wrong
    assert report["tab"] is None
    assert garage.studio.writes == []


def test_clear_takes_the_tab_back(mistaken: tuple[Garage, int]) -> None:
    garage, _ = mistaken
    run("review", "--project", str(PROJECT))
    assert json.loads(run("review", "--project", str(PROJECT), "--clear", "--json")) == {}
    assert [data["title"] for data in garage.studio.tabs.values()] == ["Default"]
    assert "no tab" in run("review", "--project", str(PROJECT), "--clear")


def test_as_text_the_photo_its_label_and_what_it_looks_like_are_told(mistaken: tuple[Garage, int]) -> None:
    _, wrong = mistaken
    text = run("review", "--project", str(PROJECT), "--top", "1")
    line = next(line for line in text.splitlines() if line.strip().startswith(f"{wrong} "))
    assert "very_dirty" in line
    assert "clean" in line
    text = run("quality", "--project", str(PROJECT))
    assert "Krippendorff's alpha 1.000" in text
    assert "Suspected labels" in text


def test_labels_beside_their_pre_labels_are_counted_by_name(mistaken: tuple[Garage, int]) -> None:
    garage, _ = mistaken
    garage.add_photos(3)
    garage.settle()
    left = [t.id for t in garage.studio.tasks(PROJECT) if not t.annotations and not garage.opens_blank(t.id)]
    for task_id in left:
        garage.studio.annotate_page(task_id, annotator=5, **garage.truth[task_id])
    garage.settle()
    report = json.loads(run("quality", "--project", str(PROJECT), "--json"))
    counts = {(row["annotator"], row["shown"] + row["blind"]) for row in report["anchoring"]["cleanliness"]}
    assert counts == {(None, len(left)), ("user 5", len(left))}
    text = run("quality", "--project", str(PROJECT))
    assert "Labels of damage beside the pre-label" in text
    assert "user 5" in text


def test_a_rate_of_kept_pre_labels_is_given_with_its_interval_or_what_it_needs() -> None:
    row = {"annotator": None, "shown": 400, "kept": 0.9, "blind": 30, "agreed": 0.75}
    known = anchoring_cells(row | {"rate": 0.6, "interval": [0.2, 0.8], "missing_shown": 0, "missing_blind": 0})
    assert list(known.values()) == ["all", "400", "90%", "30", "75%", "60% (20% to 80%)"]
    few = {"rate": None, "interval": None, "kept": None, "agreed": None, "missing_shown": 3, "missing_blind": 14}
    words = list(anchoring_cells(row | few).values())
    assert words[2] == "–"
    assert words[-1] == "not known: needs 3 more with the pre-label shown and 14 more with it hidden"


@pytest.mark.parametrize("command", ["quality", "review"])
def test_a_project_that_is_not_known_is_told_as_such(command: str, garage: Garage) -> None:
    for known in (PROJECT, 400):
        garage.services.store.add_project(known)
    with pytest.raises(StoreError, match=rf"project 99 is not known here \(known: {PROJECT}, 400\)\. For a stack"):
        run(command, "99")


def test_a_folder_without_photos_is_told_as_such(tmp_path: Path, make_settings: Any) -> None:
    make_settings()
    with pytest.raises(LabelTableError, match="expected photos"):
        run("quality", "--photos", str(tmp_path))


@pytest.mark.parametrize("arguments", [[], ["1", "--photos", "."], ["1", "--labels", "labels.csv"]])
def test_quality_wants_a_project_or_a_folder(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["quality", *arguments])
    assert result.exit_code == 2


def test_names_from_anywhere_are_shown_as_they_are() -> None:
    row = {"task": "damage", "given": "intact", "likely": "damaged", "suspicion": 0.9}
    judged = {"damage": {"labels": 20, "suspected": 1, "too_few": ["intact"]}}
    faults = dict.fromkeys(("unreadable", "small", "blurred", "dark", "bright"), ())
    facts = {
        **faults,
        **dict.fromkeys(("photos", "labelled", "measured"), 3),
        "balance": {},
        "copies": [],
        "conflicting_copies": [{"task": "damage", "classes": {"[red]a.jpg": "intact", "b.jpg": "damaged"}}],
        "agreement": {},
        "judged": judged,
        "suspects": [{"photo": f"[bold]{i}.jpg", **row} for i in range(12)],
    }
    text = quality_text(facts)
    assert "[red]a.jpg intact, b.jpg damaged" in text
    assert "[bold]0.jpg" in text
    assert "and 2 more" in text
    assert "too few labels to judge: intact" in text
    photos = [{"photo": 7, "suspicion": 0.9, "link": "http://ls/projects/1/data?task=7", "doubts": [row, row]}]
    assert "looks like" in review_text({"judged": judged, "photos": photos, "tab": None})
    assert "no label looks wrong" in review_text({"judged": {}, "photos": [], "tab": None})


def test_alpha_that_is_not_known_is_not_shown_as_a_number() -> None:
    pair = {"first": 1, "second": 2, "photos": 5, "agreement": 1.0, "kappa": None}
    agreement = {"damage": {"photos": 5, "alpha": None, "pairs": [pair], "conflicts": []}}
    facts = {
        **dict.fromkeys(("unreadable", "small", "blurred", "dark", "bright", "copies", "conflicting_copies"), ()),
        **dict.fromkeys(("photos", "labelled", "measured"), 5),
        "balance": {},
        "agreement": agreement,
    }
    assert quality_text(facts).count("not known") == 2


@pytest.mark.parametrize(("labels", "suspected", "early"), [(27, 14, True), (27, 0, False), (100, 14, False)])
def test_it_says_when_there_are_too_few_labels_to_suspect_any(labels: int, suspected: int, early: bool) -> None:
    judged = {"damage": {"labels": labels, "suspected": suspected, "too_few": []}}
    assert ("it is early" in judged_lines(judged)) == early
