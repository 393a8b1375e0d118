"""Layout that Streamlit has no parameter for: less height, above all on a phone."""

import streamlit as st

# Containers carry their key as a class. Streamlit itself stacks columns below 640 pixels.
_STYLE = """<style>
.stMainBlockContainer { padding-top: 4rem; padding-bottom: 2rem; }
/* Clear of the bar at the top, when it is scrolled to. */
.st-key-answer { scroll-margin-top: 4.5rem; }
@media (max-width: 640px) {
  .stMainBlockContainer h1 { font-size: 1.6rem; padding: 0.25rem 0 0.9rem; }
  .stMainBlockContainer h2 { font-size: 1.3rem; }
  .stMainBlockContainer h3 { font-size: 1.1rem; padding: 0.25rem 0 0.9rem; }
  .stMainBlockContainer [data-testid=stVerticalBlock] { gap: 0.6rem; }
  .stMetric { padding: 0.4rem 0.7rem; }
  /* Words of a table break rather than that it scrolls sideways. */
  .stTable th, .stTable td { padding: 0.2rem 0.3rem; font-size: 0.8rem; }
  .stTable * { overflow-wrap: anywhere !important; }
  .stMetric [data-testid=stMetricValue] { font-size: 1.3rem; }
  /* Photo: both answers side by side, three drawings in a row. */
  .st-key-both-answers { flex-wrap: nowrap; gap: 0.5rem; }
  .st-key-both-answers > * { flex: 1 1 0; width: auto; min-width: 0; padding: 0.4rem; }
  .st-key-drawings > * { flex: 0 0 30%; }
  /* Cards: the photo beside its words. */
  [class*="st-key-photo-card-"] {
    display: grid; grid-template-columns: 100px 1fr; align-items: start; width: 100%; padding: 0.5rem;
  }
  [class*="st-key-photo-card-"] > :first-child { grid-row: 1 / span 3; }
  .st-key-photo-cards > * { width: 100%; flex: 1 1 100%; }
}
</style>"""


def show_style() -> None:
    """Apply it to the page."""
    st.html(_STYLE)
