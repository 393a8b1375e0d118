"""The page "Photo": a photo in, the condition of the car out, predicted by the running backend."""

import base64
import json
import logging
from io import BytesIO

import numpy as np
import streamlit as st
from PIL import Image
from streamlit.delta_generator import DeltaGenerator

from backend.dashboard.cached import get_shared_services
from backend.dashboard.condition_client import ConditionRefusedError, Refusal, ask_condition
from backend.dashboard.notes import show_note
from backend.dashboard.photo_words import WORDS, PhotoWords
from backend.project.condition_schema import ConditionAnswer
from carcond.data.images import decode_photo
from carcond.data.synthetic_photos import draw_picture
from carcond.errors import TooManyPixelsError, UnreadableImageError
from carcond.reports.mobile_form import LANGUAGES, Language
from carcond.taxonomy import TASK_BY_KEY, name_in

logger = logging.getLogger(__name__)

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


# The answer may be off the screen when a drawing further down was clicked. A script runs again when it has changed.
_SHOW_ANSWER = """<script>
/* photo %d */ document.querySelector(".st-key-answer")?.scrollIntoView({block: "nearest"});
</script>"""


def show(project: int) -> None:
    """Show it."""
    heading = st.container()
    language: Language = st.segmented_control(
        "Language / Язык",
        LANGUAGES,
        default="en",
        required=True,
        format_func=lambda code: _LANGUAGE_NAMES[code],
        label_visibility="collapsed",
        key="language",
        persist_state="session",
    )
    words = WORDS[language]
    with heading:
        st.title(words.title)
        show_note(words.introduction)
    photo = _own_photo(words)
    # Filled last: a click on a drawing, which is below it, changes its content.
    answer, details = st.container(key="answer"), st.container()
    photo = _chosen_drawing(words) or photo
    if photo is None:
        return
    try:
        picture, told = _judge(project, photo, language, answer, words)
    except ConditionRefusedError as error:
        # Variables and addresses are for the operator, not for visitors.
        logger.warning("no condition: %s", error)
        limits = get_shared_services().settings
        megabytes, megapixels = limits.max_photo_bytes // 1_000_000, limits.max_photo_pixels // 1_000_000
        answer.error(words.refusals[error.refusal].format(megabytes=megabytes, megapixels=megapixels))
        return
    with answer:
        _show_answer(told, words, language)
        st.html(_SHOW_ANSWER % hash(photo), unsafe_allow_javascript=True)
    with details:
        _show_details(picture, told, words, language)


def _judge(
    project: int, photo: bytes, language: Language, place: DeltaGenerator, words: PhotoWords
) -> tuple[Image.Image, ConditionAnswer]:
    """Return the photo as it is shown, and the backend's answer.

    Raises:
        ConditionRefusedError: it is no photo, or too large; or the backend gave no answer.
    """
    settings = get_shared_services().settings
    if len(photo) > settings.max_photo_bytes:
        raise ConditionRefusedError(Refusal.TOO_LARGE, f"a photo of {len(photo)} bytes")
    try:
        picture = decode_photo(photo, target=_SHOWN_WIDTH, max_pixels=settings.max_photo_pixels)
    except TooManyPixelsError as error:
        raise ConditionRefusedError(Refusal.TOO_MANY_PIXELS, str(error)) from error
    except UnreadableImageError as error:
        raise ConditionRefusedError(Refusal.NO_PHOTO, str(error)) from error
    with place, st.spinner(words.at_work):
        return picture, ask_condition(settings, project, photo, language)


def _own_photo(words: PhotoWords) -> bytes | None:
    """The photo that was uploaded or taken last."""
    uploaded = st.file_uploader(
        words.upload,
        type=["jpg", "jpeg", "png", "webp", "bmp", "gif"],
        on_change=_forget_drawing,
        key="uploaded",
    )
    # Only on request: the browser would otherwise ask for permission at every visit.
    taken = st.camera_input(words.take, on_change=_forget_drawing) if st.toggle(words.camera) else None
    chosen = taken or uploaded
    return chosen.getvalue() if chosen else None


def _chosen_drawing(words: PhotoWords) -> bytes | None:
    """The drawing that was clicked, unless a photo came after it."""
    st.subheader(words.samples)
    show_note(words.samples_are_drawn)
    with st.container(horizontal=True, key="drawings"):
        for place, picture in enumerate(_drawings()):
            with st.container(width=150, key=f"drawing-card-{place}"):
                st.image(picture, alt=f"{words.sample} {place + 1}", width="stretch")
                if st.button(f"{words.sample} {place + 1}", key=f"drawing-{place}", width="stretch"):
                    st.session_state[_CHOSEN] = place
    if _CHOSEN not in st.session_state:
        return None
    drawing: bytes = _drawings()[st.session_state[_CHOSEN]]
    return drawing


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


def _show_answer(answer: ConditionAnswer, words: PhotoWords, language: Language) -> None:
    """Both answers, side by side on a phone too."""
    for message in answer.messages:
        st.warning(message)
    with st.container(horizontal=True, key="both-answers"):
        for key, told in answer.tasks.items():
            task = TASK_BY_KEY[key]
            with st.container(border=True, width=320, key=f"answer-{key}"):
                st.metric(name_in(language, task), name_in(language, task.condition(told.status)))
                for each in task.classes:  # the answer's own order is of the alphabet
                    probability = told.probabilities[each.key]
                    st.progress(probability, text=f"{name_in(language, each)}: {probability:.0%}")
    show_note(words.judged_by.format(version=answer.version))


def _show_details(picture: Image.Image, answer: ConditionAnswer, words: PhotoWords, language: Language) -> None:
    """The photo, where in it the answers were seen, and what applications get."""
    (seen,) = answer.photos
    left, right = st.columns([1, 2])
    with left:
        st.subheader(words.photo)
        st.image(picture, alt=words.photo, width="stretch")
    if seen.overlay:
        with right:
            st.subheader(words.attention)
            st.image(base64.b64decode(seen.overlay), alt=words.attention, width="stretch")
            show_note(words.attention_is)
    with st.expander(words.mobile):
        form = {"car_condition": answer.car_condition.model_dump()}
        st.code(json.dumps(form, indent=2, ensure_ascii=False), language="json", wrap_lines=True)
