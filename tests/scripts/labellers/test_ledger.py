from scripts.labellers.ledger import Ledger, Meant

INTACT, DAMAGED = Meant({"damage": "intact"}), Meant({"damage": "damaged"})


def test_the_last_word_of_each_person_counts() -> None:
    ledger = Ledger()
    ledger.write(1, 10, INTACT)
    ledger.write(1, 10, DAMAGED)
    ledger.write(1, 11, INTACT)
    assert ledger.entries() == {(1, 10): DAMAGED, (1, 11): INTACT}


def test_labels_are_the_majority_and_a_tie_is_unknown() -> None:
    ledger = Ledger()
    for user, meant in ((10, DAMAGED), (11, DAMAGED), (12, INTACT)):
        ledger.write(1, user, meant)
    ledger.write(2, 10, DAMAGED)
    ledger.write(2, 11, Meant({"damage": "intact", "cleanliness": "clean"}))
    assert ledger.labels() == {1: {"damage": "damaged"}, 2: {"cleanliness": "clean"}}


def test_a_skipped_photo_and_an_empty_answer_are_no_labels() -> None:
    ledger = Ledger()
    ledger.write(1, 10, Meant(skipped=True))
    ledger.write(2, 10, Meant({}))
    assert ledger.labels() == {}
    assert len(ledger.entries()) == 2


def test_a_label_is_confirmed_when_it_is_saved_and_the_one_before_stays_so_until_then() -> None:
    ledger = Ledger()
    ledger.write(1, 10, INTACT)
    ledger.confirm(1, 10)
    ledger.write(1, 10, DAMAGED)
    ledger.write(2, 10, DAMAGED)
    assert ledger.confirmed() == {(1, 10): INTACT}
    ledger.confirm(1, 10)
    assert ledger.confirmed() == {(1, 10): DAMAGED}
