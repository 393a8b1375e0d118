"""Texts on a page."""

import re

import streamlit as st

_MARKUP = re.compile(r"([\\`*_\[\]<>$~:|#])")


def escaped(text: object) -> str:
    """A text that others wrote, as Markdown that shows it as it is: their pictures and links stay words."""
    return _MARKUP.sub(r"\\\1", str(text))


def show_note(text: str) -> None:
    """A remark in small letters. Streamlit's own captions are too pale to be read by everybody."""
    st.markdown(f":small[{text}]")


def show_error(error: Exception) -> None:
    """What went wrong, in its own sentence."""
    st.error(escaped(error))
