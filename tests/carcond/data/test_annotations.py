from carcond.data.annotations import ConsensusLabel, Opinion, merge_opinions


def opinion(annotator: int, minute: int = 0, **classes: str) -> Opinion:
    return Opinion(annotator, f"2026-01-01T10:{minute:02d}:00.000000Z", classes)


def test_one_opinion_is_the_label_in_full_agreement() -> None:
    merged = merge_opinions([opinion(1, damage="intact", cleanliness="clean")])
    assert merged == ConsensusLabel(
        {"damage": "intact", "cleanliness": "clean"}, {"damage": 1.0, "cleanliness": 1.0}, ties=()
    )


def test_the_majority_decides_and_its_share_is_kept() -> None:
    merged = merge_opinions([opinion(1, damage="intact"), opinion(2, damage="damaged"), opinion(3, damage="damaged")])
    assert merged.classes == {"damage": "damaged"}
    assert merged.agreement == {"damage": 2 / 3}


def test_most_votes_decide_even_when_they_are_less_than_half() -> None:
    said = ["clean", "clean", "slightly_dirty", "very_dirty"]
    merged = merge_opinions([opinion(i, cleanliness=c) for i, c in enumerate(said)])
    assert merged.classes == {"cleanliness": "clean"}
    assert merged.agreement == {"cleanliness": 0.5}


def test_a_tie_is_unknown_and_listed() -> None:
    merged = merge_opinions([opinion(1, damage="intact"), opinion(2, damage="damaged")])
    assert merged == ConsensusLabel({}, {}, ties=("damage",))


def test_a_tie_on_one_task_leaves_the_other_task_its_label() -> None:
    merged = merge_opinions(
        [opinion(1, damage="intact", cleanliness="clean"), opinion(2, damage="damaged", cleanliness="clean")]
    )
    assert merged.classes == {"cleanliness": "clean"}
    assert merged.ties == ("damage",)


def test_the_order_of_the_opinions_does_not_decide_a_tie() -> None:
    said = [opinion(1, 1, damage="intact"), opinion(2, 2, damage="damaged")]
    assert merge_opinions(said) == merge_opinions(said[::-1])


def test_only_the_latest_opinion_of_one_annotator_counts() -> None:
    said = [opinion(1, 5, damage="damaged"), opinion(1, 1, damage="intact"), opinion(2, 2, damage="damaged")]
    merged = merge_opinions(said)
    assert merged.classes == {"damage": "damaged"}
    assert merged.agreement == {"damage": 1.0}


def test_of_two_opinions_of_the_same_moment_the_one_given_last_counts() -> None:
    assert merge_opinions([opinion(1, damage="intact"), opinion(1, damage="damaged")]).classes == {"damage": "damaged"}


def test_a_moment_written_without_fractions_of_a_second_is_still_earlier() -> None:
    said = [
        Opinion(1, "2026-01-01T10:00:00.500000Z", {"damage": "damaged"}),
        Opinion(1, "2026-01-01T10:00:00Z", {"damage": "intact"}),
    ]
    assert merge_opinions(said).classes == {"damage": "damaged"}


def test_a_task_that_nobody_answered_is_unknown_and_no_tie() -> None:
    merged = merge_opinions([opinion(1, damage="damaged"), opinion(2)])
    assert merged == ConsensusLabel({"damage": "damaged"}, {"damage": 1.0}, ties=())


def test_no_opinion_makes_no_label() -> None:
    assert merge_opinions([]) == ConsensusLabel({}, {}, ties=())


def test_what_each_annotator_said_last_is_kept() -> None:
    merged = merge_opinions(
        [opinion(1, 1, damage="intact"), opinion(2, damage="damaged"), opinion(1, damage="damaged")]
    )
    assert merged.opinions == {1: {"damage": "intact"}, 2: {"damage": "damaged"}}
