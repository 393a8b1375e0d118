"""The page "Photo": a photo in, the condition of the car out. The running backend judges it."""

import base64
import json
from io import BytesIO

import numpy as np
import streamlit as st

from backend.demo.cached import get_shared_services
from backend.demo.condition_client import ask_condition
from backend.demo.notes import show_error, show_note
from backend.demo.photo_words import WORDS, PhotoWords
from backend.rest.answers import ConditionAnswer
from carcond.condition_form import LANGUAGES, Language
from carcond.errors import BackendError, UnreadableImageError
from carcond.images import decode_photo
from carcond.samples import draw_picture
from carcond.taxonomy import TASK_BY_KEY, name_in

_LANGUAGE_NAMES = {"en": "English", "ru": "Русский"}
_SHOWN_WIDTH = 640
# Seed, damage, cleanliness of each drawing.
_SAMPLES = (
    (11, "intact", "clean"),
    (5, "damaged", "clean"),
    (23, "intact", "slightly_dirty"),
    (8, "damaged", "slightly_dirty"),
    (4, "intact", "very_dirty"),
    (17, "damaged", "very_dirty"),
)
_CHOSEN = "chosen-drawing"


def show(project: int) -> None:
    """Show it."""
    language: Language = st.segmented_control(
        "Language / Язык",
        LANGUAGES,
        default="en",
        required=True,
        format_func=lambda code: _LANGUAGE_NAMES[code],
        key="language",
        persist_state="session",
    )
    words = WORDS[language]
    st.title(words.title)
    st.write(words.introduction)
    photo = _chosen_photo(words)
    if photo is None:
        return
    try:
        with st.spinner("…"):
            answer = ask_condition(get_shared_services().settings, project, photo, language)
        _show_answer(photo, answer, words, language)
    except (BackendError, UnreadableImageError) as error:
        show_error(error)


def _chosen_photo(words: PhotoWords) -> bytes | None:
    """What was uploaded, taken or clicked last."""
    uploaded = st.file_uploader(
        words.upload, type=["jpg", "jpeg", "png", "webp", "bmp", "gif"], on_change=_forget_drawing, key="uploaded"
    )
    # Not before somebody asks for it: the browser would ask for leave to use it at every visit.
    taken = st.camera_input(words.take, on_change=_forget_drawing) if st.toggle(words.camera) else None
    st.subheader(words.samples)
    show_note(words.samples_are_drawn)
    with st.container(horizontal=True):
        for place, picture in enumerate(_drawings()):
            with st.container(width=150):
                st.image(picture, alt=f"{words.sample} {place + 1}", width="stretch")
                if st.button(f"{words.sample} {place + 1}", key=f"drawing-{place}", width="stretch"):
                    st.session_state[_CHOSEN] = place
    if _CHOSEN in st.session_state:
        drawing: bytes = _drawings()[st.session_state[_CHOSEN]]
        return drawing
    chosen = taken or uploaded
    return chosen.getvalue() if chosen else None


def _forget_drawing() -> None:
    st.session_state.pop(_CHOSEN, None)


@st.cache_data(show_spinner=False)
def _drawings() -> list[bytes]:
    drawings = []
    for seed, damage, cleanliness in _SAMPLES:
        file = BytesIO()
        draw_picture(np.random.default_rng(seed), damage=damage, cleanliness=cleanliness).save(file, "JPEG", quality=88)
        drawings.append(file.getvalue())
    return drawings


def _show_answer(photo: bytes, answer: ConditionAnswer, words: PhotoWords, language: Language) -> None:
    for message in answer.messages:
        st.warning(message)
    (seen,) = answer.photos
    for (key, told), column in zip(answer.tasks.items(), st.columns(max(len(answer.tasks), 1)), strict=False):
        task = TASK_BY_KEY[key]
        with column, st.container(border=True):
            st.metric(name_in(language, task), name_in(language, task.condition(told.status)))
            for each in task.classes:  # the answer's own order is of the alphabet
                probability = told.probabilities[each.key]
                st.progress(probability, text=f"{name_in(language, each)}: {probability:.0%}")
    limit = get_shared_services().settings.max_photo_pixels
    show_note(words.judged_by.format(version=answer.version))
    left, right = st.columns([1, 2])
    with left:
        st.subheader(words.photo)
        st.image(decode_photo(photo, target=_SHOWN_WIDTH, max_pixels=limit), alt=words.photo, width="stretch")
    if seen.overlay:
        with right:
            st.subheader(words.attention)
            st.image(base64.b64decode(seen.overlay), alt=words.attention, width="stretch")
            show_note(words.attention_is)
    st.subheader(words.mobile)
    form = {"car_condition": answer.car_condition.model_dump()}
    st.code(json.dumps(form, indent=2, ensure_ascii=False), language="json", wrap_lines=True)
