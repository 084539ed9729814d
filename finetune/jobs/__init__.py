"""Train elsewhere, same run: a run as a job of Hugging Face Jobs, on the account of whoever starts it.

`submit` sends rows, settings and this package; the same worker trains there; a `Supervisor` here follows the job's log
into the same record, so that every page, command and curve works as for a run of this machine; and what the job left
comes home through a private repository of the user's. See docs/jobs.md.

    hardware   which machines there are, for how long, at what price at most
    submit     what is refused, what is sent (`payload`), and the job
    there      the job's side; what it says (`lines`) and what it leaves (`left`)
    follow     the job's log into the record (`record`), and its end (`bring`)
    account    whose login it is, and what the Hub says when it refuses

Importing this package is quick: huggingface_hub is imported inside the functions.
"""

from finetune.jobs.account import forget, login, offered, remember
from finetune.jobs.hardware import FLAVOR, TIMEOUT, Flavor, Offer, choose, limit
from finetune.jobs.record import Job, job_of
from finetune.jobs.submit import machines, refuse_here, submit

__all__ = [
    "FLAVOR",
    "TIMEOUT",
    "Flavor",
    "Job",
    "Offer",
    "choose",
    "forget",
    "job_of",
    "limit",
    "login",
    "machines",
    "offered",
    "refuse_here",
    "remember",
    "submit",
]
