"""Texts on a page."""

import re

import streamlit as st

_MARKUP = re.compile(r"([\\`*_\[\]<>$~:|#])")


def escaped(text: object) -> str:
    """Escape a foreign text for Markdown: it is shown literally, with pictures and links as plain text.

    E-mail addresses would become links unless a character that no address has stands before their @.
    """
    return _MARKUP.sub(r"\\\1", str(text)).replace("@", "\u2060@")


def show_note(text: str) -> None:
    """Show a remark in small letters. Streamlit's own captions have too little contrast."""
    st.markdown(f":small[{text}]")


def show_error(error: Exception) -> None:
    """Show an error's own sentence."""
    st.error(escaped(error))
