from scripts.labellers.ledger import Meant
from scripts.labellers.notebook import QUEUES, Labelled, Notebook, Wait
from scripts.labellers.traffic import OpenedTask


def served(task_id: int, queue: str = QUEUES[0]) -> OpenedTask:
    return OpenedTask(task_id, {}, queue, "carcond-0001", 1, has_answers=True, has_line=True, is_fresh=True)


def kinds(notebook: Notebook) -> list[str]:
    return [incident.kind for incident in notebook.incidents]


def test_a_photo_that_somebody_else_has_open_is_served_twice() -> None:
    notebook = Notebook()
    notebook.serve("anna", 1, served(7))
    notebook.serve("boris", 2, served(7))
    assert kinds(notebook) == ["served_twice"]


def test_a_photo_that_somebody_else_has_labelled_is_served_twice_but_a_skipped_one_is_not() -> None:
    notebook = Notebook()
    notebook.ledger.write(7, 1, Meant({"damage": "intact"}))
    notebook.ledger.write(8, 1, Meant(skipped=True))
    notebook.serve("boris", 2, served(7))
    notebook.serve("boris", 2, served(8))
    assert kinds(notebook) == ["served_twice"]


def test_whoever_is_served_the_next_photo_has_left_the_one_before() -> None:
    notebook = Notebook()
    notebook.serve("anna", 1, served(7))
    notebook.serve("anna", 1, served(8))
    notebook.serve("anna", 1, served(8, QUEUES[1]))  # after a reload
    notebook.serve("boris", 2, served(7))
    assert notebook.incidents == []


def test_a_photo_of_another_queue_is_out_of_the_queue() -> None:
    notebook = Notebook()
    for queue in ("Data manager queue", "Skipped queue", ""):
        notebook.serve("anna", 1, served(7, queue))
    assert kinds(notebook) == ["out_of_queue"] * 3


def test_only_a_photo_that_nobody_has_open_or_labelled_is_free() -> None:
    notebook = Notebook()
    notebook.serve("anna", 1, served(7))
    notebook.ledger.write(8, 1, Meant(skipped=True))
    assert [notebook.is_free(task_id) for task_id in (7, 8, 9)] == [False, False, True]
    notebook.close("anna")
    assert notebook.is_free(7)


def test_figures_have_the_keys_that_machines_read() -> None:
    notebook = Notebook()
    notebook.labelled += [
        Labelled(1, 0, was_right=True),
        Labelled(2, 3, was_right=False),
        Labelled(3, 3, was_right=True),
    ]
    notebook.waits += [Wait(seconds, 0.1, 0.1, 0.1) for seconds in (0.2, 0.4, 3.0)]
    figures = notebook.figures()
    assert figures["slot_counts"] == {"0": 1, "3": 2}
    assert figures["wait_for_next_s"] == {"median": 0.4, "p95": 2.74}
    keys = ("submits", "refused", "blank", "out_of_queue", "served_twice", "page_errors")
    assert [figures[key] for key in keys] == [0] * 6


def test_nobody_who_waited_has_no_median() -> None:
    assert Notebook().figures()["wait_for_next_s"] == {"median": None, "p95": None}
