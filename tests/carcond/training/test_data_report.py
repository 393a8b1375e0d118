from carcond.training.data_report import TrainingReport


def test_all_that_was_not_used_is_in_the_json() -> None:
    report = TrainingReport(used=2, sides={"train": 2}, labels={"damage": {"intact": 1, "damaged": 1}})
    report.unmapped_words["Номер"] = [f"{i}.jpg" for i in range(9)]
    report.missing_photos.append("gone.jpg")
    report.unreadable_photos["bad.jpg"] = "no photo"
    report.add_conflict("both.jpg", "damage", {"intact", "damaged"}, "annotators differ")
    report.skipped["skipped.jpg"] = "not annotated"
    assert report.as_json() == {
        "used": 2,
        "sides": {"train": 2},
        "labels": {"damage": {"intact": 1, "damaged": 1}},
        "unmapped_labels": [{"label": "Номер", "count": 9, "photos": ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]}],
        "missing_photos": ["gone.jpg"],
        "unreadable_photos": [{"photo": "bad.jpg", "reason": "no photo"}],
        "conflicts": [
            {
                "photo": "both.jpg",
                "task": "damage",
                "classes": ["damaged", "intact"],
                "reason": "annotators differ",
            }
        ],
        "skipped": [{"photo": "skipped.jpg", "reason": "not annotated"}],
    }
    text = "\n".join(report.lines())
    for told in ("photos used: 2 (2 train)", "Номер (9)", "gone.jpg", "bad.jpg", "both.jpg damage", "skipped.jpg"):
        assert told in text


def test_where_all_is_well_only_the_counts_are_told() -> None:
    report = TrainingReport(used=1, sides={"train": 1}, labels={"damage": {"intact": 1}})
    assert report.lines() == ["photos used: 1 (1 train)", "damage: 1 intact"]
