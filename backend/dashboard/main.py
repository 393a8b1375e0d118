"""Script of each visit: the frame, the choice of the project, and one of the pages."""

from collections.abc import Callable
from functools import partial

import numpy as np
import streamlit as st
from PIL import Image

from backend.dashboard import jobs_page, learning_page, photo_page, quality_page, queue_page, versions_page
from backend.dashboard.cached import get_shared_services, project_title
from backend.dashboard.layout import show_style
from backend.dashboard.notes import show_error
from carcond.data.synthetic_car import draw_car
from carcond.errors import CarcondError

_NO_PROJECT = (
    "No project is connected yet. Start the stack with `scripts/up`, or connect the backend to a project of a Label "
    "Studio of your own; then reload this page."
)


def main() -> None:
    """Show the page that the address names."""
    st.set_page_config(page_title="carcond", page_icon=_icon(), layout="wide")
    show_style()
    try:
        project = _choose_project()
    except CarcondError as error:
        show_error(error)
        st.stop()
    page = st.navigation(
        [
            _page(partial(photo_page.show, project), "Photo", "photo_camera"),
            _page(partial(learning_page.show, project), "Learning", "show_chart"),
            _page(partial(versions_page.show, project), "Versions", "history"),
            _page(partial(queue_page.show, project), "Queue", "low_priority"),
            _page(partial(quality_page.show, project), "Quality", "fact_check"),
            _page(partial(jobs_page.show, project), "Jobs", "sync"),
        ],
        position="top",
    )
    try:
        page.run()
    except CarcondError as error:
        show_error(error)


@st.cache_data(show_spinner=False)
def _icon() -> Image.Image:
    """A drawn car. Streamlit's own icons would be fetched from the internet."""
    car = draw_car(np.random.default_rng(2)).layer
    car = car.crop(car.getbbox())
    icon = Image.new("RGBA", (car.width, car.width))
    icon.paste(car, (0, (car.width - car.height) // 2))
    return icon.resize((64, 64))


def _page(show: Callable[[], None], title: str, icon: str) -> "st.Page":
    return st.Page(show, title=title, icon=f":material/{icon}:", url_path=title.lower())


def _choose_project() -> int:
    """Let people choose a project; the address keeps the choice, and so does the visit from page to page."""
    projects = get_shared_services().store.project_ids()
    if not projects:
        st.title("No project yet")
        st.info(_NO_PROJECT)
        st.stop()
    asked = st.query_params.get("project", "")
    if "project" not in st.session_state and asked in map(str, projects):
        st.session_state["project"] = int(asked)
    project: int = st.selectbox("Project", projects, format_func=project_title, key="project", width=400)
    st.query_params["project"] = str(project)
    return project


main()
