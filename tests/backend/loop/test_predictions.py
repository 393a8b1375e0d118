import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from backend.label_studio.label_config import CONFIDENCE_TAG, SHOWN_TAG, LabelBinding, bind_label_config
from backend.label_studio.provision import shipped_label_config
from backend.loop.predictions import (
    BLANK_SHARE,
    RankedDrafts,
    chosen_classes,
    is_blank,
    queue_settings,
    rank_drafts,
)
from carcond.arrays import FloatArray
from carcond.data.split import HOLDOUT, draw_holdout, photo_draw
from carcond.model.head_fitting import fit_heads
from carcond.model.heads import Heads, joint_confidence
from carcond.model.inference import SURE
from carcond.query.live_queue import Pool, QueueSettings
from carcond.query.slots import EXPLORATION_SLOT
from carcond.query.uncertainty import combine_tasks, margin
from carcond.settings import Settings
from carcond.store.tables import Photo
from tests.backend.label_configs import BOXES, DAMAGE_ONLY, ENGLISH

COUNT, DIMENSION = 120, 8
SETTINGS = Settings(cold_start_labels=10, prelabel_min_confidence=0.7)
BINDING = bind_label_config(ENGLISH)


def make_embeddings(count: int = COUNT) -> FloatArray:
    return np.random.default_rng(0).normal(size=(count, DIMENSION)).astype(np.float32)


def make_pool(labelled: int = 40, held: int = 2, count: int = COUNT) -> Pool:
    embeddings = make_embeddings(count)
    generator = np.random.default_rng(1)
    position = np.arange(count)
    is_held = (position >= labelled) & (position < labelled + held)
    draws = generator.random(count, dtype=np.float32)
    return Pool(embeddings, position >= labelled, is_held, draws, np.zeros(count, dtype=int))


def test_a_replay_has_the_sizes_of_a_queue_with_default_settings() -> None:
    assert queue_settings(Settings()) == QueueSettings()


def rank(pool: Pool, heads: Heads | None, version: str, binding: LabelBinding, settings: Settings) -> RankedDrafts:
    task_ids = np.arange(len(pool.unlabelled)) + 1
    return rank_drafts(task_ids, pool, heads, version, binding=binding, settings=settings)


@pytest.fixture(scope="module")
def heads() -> Heads:
    embeddings = make_embeddings()
    classes = {
        "cleanliness": np.digitize(embeddings[:, 0], [-0.5, 0.5]).astype(np.int64),
        "damage": (embeddings[:, 1] > 0).astype(np.int64),
    }
    return fit_heads("tiny", embeddings, classes)


def ids(ranked: RankedDrafts) -> list[int]:
    return [draft.task_id for draft in (*ranked.queue, *ranked.of_rest(ranked.rest))]


def test_every_unlabelled_photo_gets_one_prediction(heads: Heads) -> None:
    ranked = rank(make_pool(), heads, "carcond-0001", BINDING, SETTINGS)
    assert sorted(ids(ranked)) == list(range(41, COUNT + 1))
    assert len(ranked.queue) == SETTINGS.queue_size


def test_answers_that_a_photo_does_not_open_with_are_hidden_unless_it_is_held_out(
    heads: Heads,
) -> None:
    pool = make_pool()
    ranked = rank(pool, heads, "carcond-0001", BINDING, SETTINGS)
    probabilities = heads.probabilities(pool.embeddings)
    answers = chosen_classes(probabilities)
    drafts = [*ranked.queue, *ranked.of_rest(ranked.rest)]
    for draft in drafts:
        chosen = BINDING.labels(draft.result)
        assert chosen.keys().isdisjoint(draft.hidden)
        known = {task: answer for task, answer in answers[draft.task_id - 1].items() if task not in chosen}
        assert draft.hidden == ({} if pool.holdout[draft.task_id - 1] else known)
    assert {len(draft.hidden) for draft in drafts} == {0, 1, 2}


def replace_min_confidence(value: float) -> Settings:
    return SETTINGS.model_copy(update={"prelabel_min_confidence": value})


def is_ordinary(pool: Pool, task_id: int) -> bool:
    """True if a photo opens with the answers that the model is sure of."""
    return not pool.holdout[task_id - 1] and pool.draws[task_id - 1] >= BLANK_SHARE


def test_results_are_the_most_probable_classes_where_the_model_is_sure(heads: Heads) -> None:
    pool = make_pool()
    ranked = rank(pool, heads, "carcond-0001", BINDING, SETTINGS)
    classes = chosen_classes(heads.probabilities(pool.embeddings))
    counts = Counter[int]()
    for draft in (*ranked.queue, *ranked.of_rest(ranked.rest)):
        sure = {task: answer for task, answer in classes[draft.task_id - 1].items() if answer[1] >= 0.7}
        assert draft.result == BINDING.result(sure if is_ordinary(pool, draft.task_id) else {})
        assert draft.model_version == "carcond-0001"
        counts[len(draft.result)] += 1
    assert counts.keys() == {0, 1, 2}


def test_a_setting_of_0_suggests_every_answer_and_the_holdout_still_has_none(heads: Heads) -> None:
    pool = make_pool()
    ranked = rank(pool, heads, "carcond-0001", BINDING, replace_min_confidence(0.0))
    for draft in (*ranked.queue, *ranked.of_rest(ranked.rest)):
        assert len(draft.result) == (2 if is_ordinary(pool, draft.task_id) else 0)


def test_one_photo_in_twenty_beside_the_holdout_opens_blank() -> None:
    """Also where tasks and groups have the same numbers, as in the first project of a new Label Studio."""
    photos = [Photo(project_id=1, task_id=number, url="", group=number, drawn=False) for number in range(1, 4001)]
    draw_holdout(photos)
    draws = {photo.task_id: photo_draw(1, photo.task_id) for photo in photos}
    others = [draws[photo.task_id] for photo in photos if photo.side != HOLDOUT]
    share = np.mean([is_blank(False, draw) for draw in others])
    assert len(others) == 3600
    assert share == pytest.approx(BLANK_SHARE, abs=0.01)
    assert all(is_blank(True, draw) for draw in draws.values())


def test_no_blank_photo_can_be_told_from_another(heads: Heads) -> None:
    """Neither by a class nor by the reason, in a label config with all lines."""
    pool = make_pool(held=6)
    ranked = rank(pool, heads, "carcond-0001", bind_label_config(BOXES), SETTINGS)
    blank = [d for d in (*ranked.queue, *ranked.of_rest(ranked.rest)) if not is_ordinary(pool, d.task_id)]
    assert {d.slot == EXPLORATION_SLOT for d in blank} == {True, False}
    assert len({str(d.result) for d in blank}) == 1


def test_scores_of_the_queue_are_the_joint_confidence(heads: Heads) -> None:
    pool = make_pool()
    confidence = joint_confidence(heads.probabilities(pool.embeddings))
    for draft in rank(pool, heads, "carcond-0001", BINDING, SETTINGS).queue:
        if draft.slot != EXPLORATION_SLOT:
            assert draft.score == pytest.approx(confidence[draft.task_id - 1], abs=1e-6)


def test_the_queue_is_made_of_the_photos_with_the_smallest_margins(heads: Heads) -> None:
    """Smallest over both tasks, each divided by its mean, as a slow plain rule finds them."""
    pool = make_pool()
    ranked = rank(pool, heads, "carcond-0001", BINDING, SETTINGS)
    shares = []
    for rows in heads.probabilities(pool.embeddings).values():
        uncertain = [1 - (sorted(row)[-1] - sorted(row)[-2]) for row in rows.tolist()]
        mean = float(np.mean([value for value, wanted in zip(uncertain, pool.unlabelled, strict=True) if wanted]))
        shares.append([value / mean for value in uncertain])
    informative = [sum(values) for values in zip(*shares, strict=True)]
    eligible = np.flatnonzero(pool.unlabelled & ~pool.holdout)
    best = sorted(eligible, key=lambda i: -informative[i])[: SETTINGS.queue_size * SETTINGS.candidate_factor]
    chosen = {draft.task_id - 1 for draft in ranked.queue if draft.slot != EXPLORATION_SLOT}
    assert len(chosen) > 10
    assert chosen <= {int(i) for i in best}


def test_with_many_labels_the_smallest_margins_alone_decide(heads: Heads) -> None:
    """With few, some of the smallest give way to larger ones of other groups."""
    beyond = []
    for labelled in (49, 50):
        pool = make_pool(labelled)
        ranked = rank(pool, heads, "carcond-0001", BINDING, SETTINGS)
        chosen = [draft.task_id - 1 for draft in ranked.queue if draft.slot != EXPLORATION_SLOT]
        unlabelled = np.flatnonzero(pool.unlabelled)
        probabilities = heads.probabilities(pool.embeddings[unlabelled])
        scores = combine_tasks({task: margin(rows[np.newaxis]) for task, rows in probabilities.items()})
        order = unlabelled[np.argsort(-scores, kind="stable")]
        best = [i for i in order.tolist() if not pool.holdout[i]][: len(chosen)]
        beyond.append(len(set(chosen) - set(best)))
    assert beyond[0] > 0
    assert beyond[1] == 0


@pytest.mark.parametrize("labelled", [5, 40, 60])
def test_nothing_behind_the_queue_is_served_before_it(heads: Heads, labelled: int) -> None:
    """Label Studio serves the lowest score of a slot first, whatever it was that chose the queue."""
    ranked = rank(make_pool(labelled), heads, "carcond-0001", BINDING, SETTINGS)
    last = {slot: max(d.score for d in ranked.queue if d.slot == slot) for slot in {d.slot for d in ranked.queue}}
    assert all(draft.score > last.get(draft.slot, -1) for draft in ranked.of_rest(ranked.rest))


def test_behind_the_queue_a_score_is_the_confidence_wherever_that_is_high_enough(heads: Heads) -> None:
    pool = make_pool()
    ranked = rank(pool, heads, "carcond-0001", BINDING, SETTINGS)
    confidence = joint_confidence(heads.probabilities(pool.embeddings))
    raised = [draft for draft in ranked.of_rest(ranked.rest) if draft.score > confidence[draft.task_id - 1] + 1e-6]
    assert all(draft.score >= confidence[draft.task_id - 1] - 1e-6 for draft in ranked.of_rest(ranked.rest))
    assert len(raised) < len(ranked.rest) / 2


def test_the_exploration_slot_holds_the_holdout_and_no_others(heads: Heads) -> None:
    ranked = rank(make_pool(held=5), heads, "carcond-0001", BINDING, SETTINGS)
    in_slot = {
        draft.task_id for draft in (*ranked.queue, *ranked.of_rest(ranked.rest)) if draft.slot == EXPLORATION_SLOT
    }
    assert in_slot == {41, 42, 43, 44, 45}
    assert len(in_slot & {draft.task_id for draft in ranked.queue}) == 2


@pytest.mark.parametrize("labelled", [5, 40, 60])
def test_photos_that_may_be_open_stay_in_their_slots(heads: Heads, labelled: int) -> None:
    pool = make_pool(labelled)
    kept = np.where(pool.unlabelled & (np.arange(COUNT) % 2 == 0), np.arange(COUNT) % 9 + 1, 0)
    ranked = rank(replace(pool, kept_slots=kept), heads, "carcond-0001", BINDING, SETTINGS)
    slots = {draft.task_id - 1: draft.slot for draft in (*ranked.queue, *ranked.of_rest(ranked.rest))}
    fixed = [i for i in np.flatnonzero(kept).tolist() if not pool.holdout[i]]
    assert {i: slots[i] for i in fixed} == {i: int(kept[i]) for i in fixed}


def test_a_photo_of_the_holdout_leaves_the_slot_that_it_was_kept_in(heads: Heads) -> None:
    pool = make_pool()
    kept = np.full(COUNT, 5)
    ranked = rank(replace(pool, kept_slots=kept), heads, "carcond-0001", BINDING, SETTINGS)
    assert {d.slot for d in ranked.queue if pool.holdout[d.task_id - 1]} == {EXPLORATION_SLOT}


def test_the_queue_begins_with_one_photo_of_each_slot(heads: Heads) -> None:
    ranked = rank(make_pool(), heads, "carcond-0001", BINDING, SETTINGS)
    slots = {draft.slot for draft in ranked.queue}
    assert len({draft.slot for draft in ranked.queue[: len(slots)]}) == len(slots) > 1


def test_without_a_model_representative_photos_come_with_empty_results() -> None:
    ranked = rank(make_pool(labelled=0), None, "carcond-0000", BINDING, SETTINGS)
    assert all(draft.result == [] for draft in (*ranked.queue, *ranked.of_rest(ranked.rest)))
    assert all(0 <= draft.score < 0.01 for draft in ranked.queue if draft.slot != EXPLORATION_SLOT)
    behind = [d.score for d in ranked.of_rest(ranked.rest)]
    assert behind == sorted(behind)


def test_during_the_cold_start_representative_photos_are_selected(heads: Heads) -> None:
    pool = make_pool(labelled=5)
    early = rank(pool, heads, "carcond-0001", BINDING, Settings(cold_start_labels=6))
    cold = rank(pool, None, "carcond-0001", BINDING, Settings(cold_start_labels=6))
    late = rank(pool, heads, "carcond-0001", BINDING, Settings(cold_start_labels=5))
    assert {d.task_id for d in early.queue} == {d.task_id for d in cold.queue} != {d.task_id for d in late.queue}


@pytest.mark.parametrize("with_model", [True, False])
@pytest.mark.parametrize(
    ("count", "labelled", "drawn"), [(0, 0, 0), (1, 0, 0), (1, 1, 0), (2, 0, 2), (3, 0, 1), (5, 5, 0)]
)
def test_small_pools_are_ranked_whole(heads: Heads, with_model: bool, count: int, labelled: int, drawn: int) -> None:
    pool = make_pool(labelled, drawn, count)
    ranked = rank(pool, heads if with_model else None, "carcond-0001", BINDING, SETTINGS)
    assert sorted(ids(ranked)) == list(range(labelled + 1, count + 1))


def test_equal_photos_are_ranked(heads: Heads) -> None:
    pool = make_pool(0, 0, 30)
    same = replace(pool, embeddings=np.ones_like(pool.embeddings))
    assert len(ids(rank(same, heads, "carcond-0001", BINDING, SETTINGS))) == 30


def test_the_config_decides_which_tasks_are_predicted(heads: Heads) -> None:
    ranked = rank(make_pool(), heads, "carcond-0001", bind_label_config(DAMAGE_ONLY), SETTINGS)
    assert {region["from_name"] for draft in ranked.queue for region in draft.result} == {"damage"}


def test_the_same_pool_is_ranked_the_same(heads: Heads) -> None:
    first, second = (rank(make_pool(), heads, "v", BINDING, SETTINGS) for _ in range(2))
    assert first.queue == second.queue
    assert first.of_rest(first.rest) == second.of_rest(second.rest)


def test_the_chosen_class_is_the_most_probable_one() -> None:
    probabilities = {
        "cleanliness": np.array([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]], dtype=np.float32),
        "damage": np.array([[0.4, 0.6], [0.70001, 0.29999]], dtype=np.float32),
    }
    assert chosen_classes(probabilities) == [
        {"cleanliness": ("slightly_dirty", 0.5), "damage": ("damaged", 0.6)},
        {"cleanliness": ("clean", 0.9), "damage": ("intact", 0.7)},
    ]


def reasons(ranked: RankedDrafts) -> dict[int, str]:
    return {d.task_id: d.result[-1]["value"]["text"][0] for d in (*ranked.queue, *ranked.of_rest(ranked.rest))}


def test_where_the_config_has_room_each_photo_of_the_queue_tells_why_it_was_chosen(heads: Heads) -> None:
    pool = make_pool()
    binding = bind_label_config(BOXES)
    ranked = rank(pool, heads, "carcond-0001", binding, SETTINGS)
    lines, probabilities = reasons(ranked), heads.probabilities(pool.embeddings)
    doubts = {task: np.sort(rows)[:, -2] - np.sort(rows)[:, -1] + 1 for task, rows in probabilities.items()}
    means = {task: doubt[pool.unlabelled].mean() for task, doubt in doubts.items()}
    for draft in ranked.queue:
        position = draft.task_id - 1
        if not draft.result[:-1]:
            assert lines[draft.task_id] == "carcond-0001: no answer suggested, judge by the photo."
            continue
        most = max(doubts, key=lambda task: doubts[task][position] / means[task])
        is_sure = probabilities[most][position].max() >= SURE
        uncertain = f"no photo left is much less sure ({most})" if is_sure else f"uncertain about {most}"
        assert f"Chosen because {uncertain}." in lines[draft.task_id]
    assert {line.rpartition("about ")[2] for line in lines.values()} >= {"damage.", "cleanliness."}
    assert not any("Chosen" in lines[draft.task_id] for draft in ranked.of_rest(ranked.rest))


def test_the_default_config_shows_confidences_and_no_reason_so_the_holdout_looks_like_the_rest(heads: Heads) -> None:
    ranked = rank(make_pool(), heads, "carcond-0012", bind_label_config(shipped_label_config()), SETTINGS)
    assert {draft.slot == EXPLORATION_SLOT for draft in ranked.queue} == {True, False}
    for draft in (*ranked.queue, *ranked.of_rest(ranked.rest)):
        (text,) = [region["value"]["text"][0] for region in draft.result if region["type"] == "textarea"]
        names = [r["from_name"] for r in draft.result]
        answers = r"([a-z ]+ \d+ %|cleanliness: no suggestion), ((intact|damaged) \d+ %|damage: no suggestion)"
        blank = "no answer suggested, judge by the photo"
        assert re.fullmatch(rf"({answers if names[:-2] else blank}) · carcond-0012", text)
        assert names[-2:] == [CONFIDENCE_TAG, SHOWN_TAG]


def test_before_there_is_an_answer_there_is_no_confidence() -> None:
    ranked = rank(make_pool(), None, "carcond-0000", bind_label_config(shipped_label_config()), SETTINGS)
    assert {len(draft.result) for draft in ranked.queue} == {0}


def test_representative_photos_with_answers_tell_that_they_are(heads: Heads) -> None:
    pool = make_pool(labelled=5)
    ranked = rank(pool, heads, "carcond-0001", bind_label_config(BOXES), replace_min_confidence(0.0))
    lines = reasons(ranked)
    chosen = [lines[draft.task_id] for draft in ranked.queue if is_ordinary(pool, draft.task_id)]
    assert chosen
    assert all("representative" in line for line in chosen)
