"""The page "Jobs": what the workers do right now."""

from datetime import UTC, datetime

import streamlit as st

from backend.demo.cached import get_shared_services
from backend.demo.job_facts import Jobs, RunningJob, read_jobs
from backend.demo.notes import escaped, show_error
from backend.finetune_view import finetune_facts, finetune_text
from backend.jobs import get_job_queue
from carcond.card_values import plain
from carcond.errors import QueueUnavailableError


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
    of = f" of project {job.project_id}" if job.project_id else ""
    since = f", for {(datetime.now(UTC) - job.since).total_seconds():.0f} s" if job.since else ""
    words = f"{job.queue}{of}: {escaped(job.stage) or 'begins'}{since}"
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
        st.progress(min(facts["done"] / facts["total"], 1.0), text=escaped(plain(facts.get("stage") or "")))


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
