"""The page "Jobs": present activity of the workers."""

from datetime import UTC, datetime

import streamlit as st

from backend.dashboard.cached import get_shared_services
from backend.dashboard.job_facts import Jobs, RunningJob, job_sentence, read_jobs
from backend.dashboard.notes import escaped, show_error
from backend.jobs.queue import get_job_queue
from backend.project.finetune_status import finetune_facts, finetune_text
from carcond.errors import QueueUnavailableError
from carcond.json_fields import sanitize_line


def show(project: int) -> None:
    """Show it."""
    st.title("Jobs")
    _show_now(project)


@st.fragment(run_every=2)
def _show_now(project: int) -> None:
    try:
        jobs = read_jobs(get_job_queue())
    except QueueUnavailableError as error:
        show_error(error)
        st.write("Until it is back nothing is learnt, though pre-labels are still served.")
        return
    if not jobs.workers:
        st.warning("No worker is alive: start one (python -m backend.worker). Without one nothing is learnt.")
    with st.container(horizontal=True):
        st.metric("Workers alive", jobs.workers, border=True)
        for queue, waiting in jobs.waiting.items():
            st.metric(f"Waiting {queue}", waiting, border=True)
        st.metric("Failed in the last hour", jobs.failed, border=True)
    st.header("Running", divider="gray")
    if not jobs.running:
        st.write("Nothing runs. A submitted label starts a turn at once.")
    for job in jobs.running:
        _show_job(job)
    _show_finetuning(project)
    st.header("The last turn of this project", divider="gray")
    _show_last_turn(jobs, project)


def _show_job(job: RunningJob) -> None:
    words = escaped(job_sentence(job, datetime.now(UTC)))
    if job.total:
        st.progress(min(job.done / job.total, 1.0), text=f"{words} ({job.done} of {job.total})")
    else:
        st.write(words)


def _show_finetuning(project: int) -> None:
    facts = finetune_facts(get_shared_services(), get_job_queue(), project)
    told = finetune_text(facts)
    if not told:
        return
    st.header("Fine-tuning of this project", divider="gray")
    for line in told.splitlines():
        st.write(escaped(line))
    if facts["state"] == "running" and facts.get("total"):
        st.progress(min(facts["done"] / facts["total"], 1.0), text=escaped(sanitize_line(facts.get("stage") or "")))


def _show_last_turn(jobs: Jobs, project: int) -> None:
    turns = jobs.turns.get(project)
    if turns is None:
        st.write("There was none yet.")
        return
    ended = datetime.fromtimestamp(turns.ended, UTC)
    total = sum(turns.seconds.values())
    st.write(f"It ended {ended:%Y-%m-%d %H:%M:%S} UTC and took {total:.1f} s; {turns.count} turns in all.")
    rows = [{"Stage": stage, "Seconds": f"{seconds:.2f}"} for stage, seconds in turns.seconds.items()]
    st.table(rows, hide_index=True)
