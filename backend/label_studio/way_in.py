"""Entry to the queue: the addresses that people open, and instructions for these pages.

Label Studio's labelling stream follows the queue only in a browser where *Label All Tasks* was clicked; the browser
keeps that. Otherwise an address with `labeling=1` serves the order of the first tab. No address can click the
button, so people get the address of the project's list, together with `STEPS`.
"""

from carcond.settings import Settings

LABEL_ALL = "Label All Tasks"
"""Label Studio's button that follows the queue."""
AS_DISPLAYED = "Label Tasks As Displayed"
"""The entry in the button's menu that follows the tab's order instead."""
SUBMIT_KEYS = "Ctrl+Enter"

STEPS = (
    f'Log in and click "{LABEL_ALL}": the photo that teaches the model most opens.',
    f"Answer, then press {SUBMIT_KEYS}, or Submit: the next photo opens.",
    "A click on a row of the list opens that photo alone: it can be submitted too, but the page stays on it.",
    "The panels at the right are not needed: the small arrow at the top of each closes it.",
)
"""What to do at the project's list, in the words of Label Studio 1.23."""
HOTKEYS = "Keys 1 to 3 are for cleanliness, 4 and 5 for damage."
"""For projects with a label config of ours."""


def browser_base(settings: Settings) -> str:
    """Label Studio's address in browsers."""
    return (settings.label_studio_host or settings.label_studio_url).rstrip("/")


def project_url(base: str, project_id: int) -> str:
    """The address of a project's list, which leads to the queue."""
    return f"{base.rstrip('/')}/projects/{project_id}/data"


def tab_url(base: str, project_id: int, tab_id: int) -> str:
    """The address of one tab of the list."""
    return f"{project_url(base, project_id)}?tab={tab_id}"


def task_url(base: str, project_id: int, task_id: int, tab_id: int | None = None) -> str:
    """Address of one photo, opened from a tab of the list if one is named."""
    tab = f"tab={tab_id}&" if tab_id else ""
    return f"{project_url(base, project_id)}?{tab}task={task_id}"


def numbered_steps() -> str:
    """The steps as lines of text, numbered."""
    return "\n".join(f"{number}. {step}" for number, step in enumerate(STEPS, 1))
