import numpy as np
import pytest

from carcond.analysis.anchoring import (
    MINIMUM_ANSWERS,
    MINIMUM_DIFFERENT,
    PrelabelAnswers,
    anchoring_facts,
    estimate_anchoring,
)
from carcond.data.annotations import Prelabel
from carcond.store.tables import AnnotationRow


def simulate(count: int, rate: float, seed: int, blind_share: float = 0.05) -> tuple[PrelabelAnswers, PrelabelAnswers]:
    """Answers of an annotator who keeps wrong pre-labels at a rate: with the pre-label shown, and hidden at random.

    The model is right about as often as it says, and surer pre-labels are wrong less often.
    """
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.5, 1.0, count)
    same = rng.random(count) < 0.95 * confidence
    blind = rng.random(count) < blind_share
    equal = np.where(blind, same, same | (rng.random(count) < rate))
    return PrelabelAnswers(confidence[~blind], equal[~blind]), PrelabelAnswers(confidence[blind], equal[blind])


def answers(equal: int, different: int, confidence: float = 0.8) -> PrelabelAnswers:
    count = equal + different
    return PrelabelAnswers(np.full(count, confidence), np.arange(count) < equal)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.8])
def test_a_known_rate_is_found_in_many_answers(rate: float) -> None:
    found = estimate_anchoring(*simulate(100_000, rate, seed=1))
    assert found.rate == pytest.approx(rate, abs=0.04)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.8])
def test_the_interval_holds_the_rate_nineteen_times_in_twenty(rate: float) -> None:
    found = [estimate_anchoring(*simulate(1500, rate, seed)) for seed in range(200)]
    intervals = [each.interval for each in found if each.interval]
    assert len(intervals) > 190
    assert np.mean([low <= rate <= high for low, high in intervals]) > 0.91


def test_the_rate_is_abbotts_formula_where_all_confidences_are_equal() -> None:
    found = estimate_anchoring(answers(90, 10), answers(24, 8))
    assert (found.kept, found.agreed) == (0.9, 0.75)
    assert found.rate == pytest.approx((0.9 - 0.75) / (1 - 0.75))


def test_surer_pre_labels_being_shown_is_not_taken_for_anchoring() -> None:
    """Everybody answers alike, but the pre-labels shown are surer than those hidden."""
    rng = np.random.default_rng(0)

    def answered(confidence: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> PrelabelAnswers:
        return PrelabelAnswers(confidence, rng.random(len(confidence)) < confidence)

    shown, blind = answered(rng.beta(6, 2, 40_000)), answered(rng.beta(2, 2, 20_000))
    found = estimate_anchoring(shown, blind)
    assert found.kept
    assert found.agreed
    assert found.rate is not None
    assert (found.kept - found.agreed) / (1 - found.agreed) > 0.4
    assert found.rate < 0.1


def test_pre_labels_less_sure_than_any_that_is_shown_do_not_count() -> None:
    unsure = answers(0, 500, confidence=0.3)
    sure = answers(24, 8)
    both = PrelabelAnswers(*(np.concatenate(pair) for pair in zip(_parts(unsure), _parts(sure), strict=True)))
    assert estimate_anchoring(answers(90, 10), both) == estimate_anchoring(answers(90, 10), sure)


def _parts(each: PrelabelAnswers) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    return each.confidence, each.equal


def test_a_person_who_contradicts_what_is_shown_is_not_called_anchored() -> None:
    found = estimate_anchoring(answers(50, 50), answers(25, 7))
    assert found.rate == 0
    assert found.interval
    assert found.interval[0] == 0


def test_too_few_answers_give_no_rate_and_say_how_many_more() -> None:
    nothing = estimate_anchoring(answers(0, 0), answers(0, 0))
    assert (nothing.rate, nothing.interval, nothing.kept, nothing.agreed) == (None, None, None, None)
    assert nothing.missing_shown == MINIMUM_ANSWERS
    assert nothing.missing_blind >= MINIMUM_ANSWERS
    few = estimate_anchoring(answers(12, 0), answers(6, 6))
    assert (few.missing_shown, few.missing_blind, few.rate) == (MINIMUM_ANSWERS - 12, MINIMUM_ANSWERS - 12, None)


def test_with_a_model_that_hardly_errs_more_answers_are_needed() -> None:
    found = estimate_anchoring(answers(300, 2), answers(60, 2))
    assert found.rate is None
    assert found.missing_shown == 0
    # Two in sixty-two differ, so five take about 130.
    assert 40 < found.missing_blind < 100
    enough = estimate_anchoring(answers(300, 2), answers(125, MINIMUM_DIFFERENT))
    assert enough.rate is not None


def row(number: int, annotator: int, given: str, prelabel: Prelabel | None, cancelled: bool = False) -> AnnotationRow:
    prelabels = None if prelabel is None else {"damage": list(prelabel)}
    return AnnotationRow(
        project_id=1,
        annotation_id=number,
        task_id=number,
        annotator=annotator,
        updated_at="2026-01-01T10:00:00Z",
        cancelled=cancelled,
        classes={"damage": given},
        prelabels=prelabels,
    )


def test_answers_are_counted_by_annotator_and_all_together() -> None:
    shown, hidden = Prelabel("damaged", 0.9, shown=True), Prelabel("damaged", 0.9, shown=False)
    rows = [
        row(1, 7, "damaged", shown),
        row(2, 7, "intact", shown),
        row(3, 7, "damaged", hidden),
        row(4, 8, "damaged", shown),
        row(5, 8, "intact", shown._replace(class_key=None)),
    ]
    facts = anchoring_facts(rows, held_out=())
    assert set(facts) == {"damage"}
    counts = [
        (each["annotator"], each["shown"], each["kept"], each["blind"], each["agreed"]) for each in facts["damage"]
    ]
    assert counts == [(None, 4, 0.5, 1, 1.0), (7, 2, 0.5, 1, 1.0), (8, 2, 0.5, 0, None)]


def test_the_holdout_skipped_photos_and_labels_without_a_known_pre_label_do_not_count() -> None:
    hidden = Prelabel("damaged", 0.9, shown=False)
    rows = [row(1, 7, "damaged", hidden), row(2, 7, "damaged", hidden, cancelled=True), row(3, 7, "damaged", None)]
    assert anchoring_facts(rows, held_out={1}) == {}
