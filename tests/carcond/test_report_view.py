from carcond.report_view import Measure, read_card
from tests.carcond.reports import broken_cards, full_card, old_card


def test_tasks_come_in_their_usual_order_with_their_names() -> None:
    card = full_card()
    card["holdout"] = dict(reversed(card["holdout"].items()))
    assert [task.name for task in read_card(card).tasks] == ["Cleanliness", "Damage"]


def test_a_figure_has_its_interval() -> None:
    assert read_card(full_card()).combined == Measure(0.6543, 0.55, 0.75)


def test_classes_have_the_names_that_people_read() -> None:
    cleanliness = read_card(full_card()).tasks[0]
    assert [each.name for each in cleanliness.classes] == ["clean", "slightly dirty", "very dirty"]


def test_an_old_card_has_its_confusion_and_its_likelihood() -> None:
    cleanliness, damage = read_card(old_card()).tasks
    assert (cleanliness.photos, cleanliness.labels) == (None, 0)
    assert damage.confusion == [[2, 0], [1, 0]]
    assert [each.name for each in damage.classes] == ["intact", "damaged"]
    assert damage.after.nll == 0.51
    assert damage.before.ece is None


def test_an_unknown_task_is_shown_by_its_key() -> None:
    card = {"holdout": {"rust": {"photos": 4, "accuracy": 0.5, "confusion": [[1, 1], [1, 1]]}}}
    (task,) = read_card(card).tasks
    assert (task.name, [each.name for each in task.classes]) == ("rust", ["class 1", "class 2"])


def test_what_is_left_of_the_sources_is_named_by_its_number() -> None:
    assert read_card(full_card()).sources[1].name == "12 others"


def test_an_empty_card_is_an_empty_report() -> None:
    report = read_card({})
    assert (report.tasks, report.gate, report.sources, report.annotators) == ([], None, [], [])


def test_no_malformed_part_stops_the_reading() -> None:
    for card in broken_cards():
        for task in read_card(card).tasks:
            assert not task.confusion or len(task.confusion) == len(task.classes)
