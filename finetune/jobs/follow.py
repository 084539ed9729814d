"""Follows jobs: their logs into the record, a wish to stop to Hugging Face, and what they left home again.

One thread a run, in whichever process supervises runs; the record says which one does (`record.follow_alone`), so a
server that was killed is replaced by the next, which reads the log from its beginning and adds what is new. While
Hugging Face cannot be reached the run stays running: it does run there, and its time limit holds without us.
"""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from finetune import settings
from finetune.errors import FinetuneError, NotAllowed, RunError
from finetune.jobs import left
from finetune.jobs.account import Unreachable, client, login_of, told
from finetune.jobs.bring import finish, take
from finetune.jobs.lines import Reader
from finetune.jobs.record import beat, begin, follow_alone, job_of, say
from finetune.jobs.submit import find, submitted
from finetune.schema import LOCAL
from finetune.store import ACTIVE, Run, Store
from finetune.train.process import alive
from finetune.train.start import CANCELS

if TYPE_CHECKING:
    from huggingface_hub import HfApi, JobInfo

OVER = ("COMPLETED", "CANCELED", "ERROR", "DELETED")
LOOK = 3.0
"""Seconds between two looks at a job that waits for its machine, or has just fallen silent."""

WAITS = (5.0, 10.0, 20.0, 40.0, 60.0)
"""Seconds after which Hugging Face is asked again while it cannot be reached."""

TAIL = 30
"""Last lines of a job's log that are kept if it fails."""

FORGOTTEN = 24 * 3600
"""Seconds after the end of a job's time limit for which what it left waits to be fetched: until its visitor signs in,
or there is room for it."""

SIGN_IN = "Sign in with Hugging Face to keep following the job; in the meantime it keeps running there."
OF_LOGINS = ("hub_login", "hub_token", "jobs_forbidden")
"""Codes of errors that another login may end."""

_following: dict[str, "Follower"] = {}
"""The threads of this process, whichever of its supervisors began them, by run."""
_looking = threading.Lock()


class Followers:
    """The jobs that this process follows.

    Example:
        >>> followers = Followers(store, (os.getpid(), started(os.getpid())))
        >>> followers.look(store.runs(states=ACTIVE))
    """

    def __init__(self, store: Store, me: tuple[int, float]):
        self.store, self.me = store, me

    def look(self, runs: Sequence[Run]) -> None:
        """Follow those of these runs that nobody else follows, and pass on a wish to stop."""
        with _looking:  # a request that deletes has a supervisor of its own
            self._look(runs)

    def _look(self, runs: Sequence[Run]) -> None:
        for run_id in [run_id for run_id, follower in _following.items() if not follower.is_alive()]:
            del _following[run_id]
        for run in runs:
            follower = _following.get(run.id)
            if follower:
                if run.asked == "stop":
                    follower.cancel(run)
            elif self._is_others(run):
                continue
            elif login_of(run) is None:
                if not (run.owner == LOCAL and settings.read().shared):  # the operator's, with a login not known here
                    self._wait_for_login(run)
            elif follow_alone(self.store, run, self.me):
                _following[run.id] = Follower(self.store, run.id)
                _following[run.id].start()

    def close(self) -> None:
        """Follow none any more; the jobs go on, and the next process follows them."""
        for follower in [*_following.values()]:
            if follower.store is self.store:
                follower.over.set()

    def _is_others(self, run: Run) -> bool:
        """Whether another process follows it, or one is just submitting it, perhaps this one."""
        others = (run.claimer, run.claimer_started) != self.me
        return alive(run.claimer, run.claimer_started) and (others or run.state == "validating")

    def _wait_for_login(self, run: Run) -> None:
        if not _given_up(self.store, run, "Nobody signed in to fetch what the job left."):
            say(self.store, run, SIGN_IN)


def _given_up(store: Store, run: Run, why: str) -> bool:
    """Whether the job must have ended so long ago that its run is not waited for any more. It ends then."""
    job = job_of(run)
    if time.time() < (job.submitted or run.created) + job.seconds + FORGOTTEN:
        return False
    begin(store, run)
    reason = " ".join([why, f"It is in the private repository {job.repo}."])
    only = ("running",) if job.id else ("validating",)
    to = "failed" if job.id else "cancelled"
    store.move(run.id, to, only_from=only, asked=None, ended=time.time(), code="job_lost", reason=reason)
    return True


def abandon(store: Store, run: Run) -> None:
    """End a run that is to be deleted: cancel its job if somebody is signed in who may, and fetch nothing.

    A job that cannot be cancelled goes on until its time limit, on the account that it was started with.

    Example:
        >>> abandon(store, run); store.run(run.id).state
        'cancelled'
    """
    job, token = job_of(run), login_of(run)
    if token and job.id:
        with contextlib.suppress(FinetuneError), told(token):
            client(token).cancel_job(job_id=job.id, namespace=job.account)
    over: dict[str, Any] = {"ended": time.time(), "asked": None, "code": CANCELS["stop"], "reason": "Stopped."}
    store.move(run.id, "cancelled", only_from=ACTIVE, **over)


class Follower(threading.Thread):
    """One run's thread. `over` ends it at its next look."""

    def __init__(self, store: Store, run_id: str):
        super().__init__(name=f"follow-{run_id}", daemon=True)
        self.store, self.run_id = store, run_id
        self.over = threading.Event()
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._missed: set[int] = set()
        self._cancelling: threading.Thread | None = None
        self._cancelled = False
        self._failed, self._silent_since = 0, ""

    def run(self) -> None:
        """Look until the run has ended or is gone, nobody is signed in any more, or `over` is set."""
        while not self.over.is_set():
            try:
                wait = self._try(self.store.run(self.run_id))
            except RunError as error:  # deleted meanwhile; else a record that was locked for long
                wait = None if error.code == "run_unknown" else WAITS[-1]
            if wait is None:
                return
            self.over.wait(wait)

    def _try(self, run: Run) -> float | None:
        """One look, whatever comes of it; the seconds until the next, None if there is none."""
        try:
            token = login_of(run)
            if run.state not in ACTIVE or token is None or not self._look(run, client(token), token):
                return None
            self._failed, self._silent_since = 0, ""
            return LOOK
        except Unreachable as error:
            return self._unreachable(run, error)
        except FinetuneError as error:
            if error.code == "run_unknown":
                raise
            self._troubled(run, error)
        except Exception:
            logging.exception("Run %s could not be followed; it is tried again", self.run_id)
        return WAITS[-1]

    def _troubled(self, run: Run, error: FinetuneError) -> None:
        """Say what is in the way, and what to do: sign in, or make room for what the job left."""
        logging.error("Run %s could not be followed: %s", self.run_id, error)
        why = SIGN_IN if error.code in OF_LOGINS else error.fix
        if not _given_up(self.store, run, error.what):
            say(self.store, run, " ".join(part for part in (error.what, why) if part))

    def _unreachable(self, run: Run, error: Unreachable) -> float:
        """Say so once, with the time at which it began; the seconds until the next attempt."""
        self._silent_since = self._silent_since or time.strftime("%H:%M UTC", time.gmtime())
        text = f"Not reachable since {self._silent_since}. The job keeps running there, and this is tried again."
        say(self.store, run, f"{error.what} {text}")
        self._failed += 1
        return WAITS[min(self._failed, len(WAITS)) - 1]

    def _look(self, run: Run, api: "HfApi", token: str) -> bool:
        """One look, which lasts as long as the log goes on; False when there is nothing more to look at."""
        job = job_of(run)
        if not job.id:
            return self._look_for(run, api, token)
        info = self._inspect(run, api, token)
        stage = str(info.status.stage) if info else "DELETED"
        if stage not in (*OVER, "RUNNING"):
            self._pass_on(run)
            say(self.store, run, None)
            return True
        begin(self.store, run)
        run = self.store.run(run.id)
        if stage == "RUNNING":
            self._pass_on(run)
            say(self.store, run, None)
            self._read(run, api, token, follow=True)
            return True
        if stage == "ERROR":  # its last lines say why
            self._read(run, api, token, follow=False)
        finish(self.store, run, info, [*self.tail], api, token)
        return False

    def _look_for(self, run: Run, api: "HfApi", token: str) -> bool:
        """A run whose submission was cut short: its job, if there is one, or its end."""
        job = job_of(run)
        if job.repo and (info := find(api, run, job, token)):
            submitted(self.store, run, job, info)
            return True
        reason = "The program that was starting the job ended before the job had started."
        ended: dict[str, Any] = {"ended": time.time(), "asked": None, "code": "job_not_started", "reason": reason}
        self.store.move(run.id, "cancelled", only_from=("validating",), **ended)
        return False

    def _inspect(self, run: Run, api: "HfApi", token: str) -> "JobInfo | None":
        """The job; None if it was deleted. Another account is told the same of it, so whose login it is is seen."""
        job = job_of(run)
        try:
            with told(token):
                return api.inspect_job(job_id=job.id, namespace=job.account)
        except RunError as error:
            if error.code != "jobs_gone":
                raise
        with told(token):
            who = str(api.whoami()["name"])
        if who != job.account:
            raise NotAllowed(f"The job belongs to another account, {job.account}.", code="hub_login")
        return None

    def _read(self, run: Run, api: "HfApi", token: str, follow: bool) -> None:
        """Read the log from its beginning, and add what is new; until it ends, or misses something for the first time.

        What a log misses once may be there when it is read again; what it misses twice is done without.
        """
        reader, at = Reader(), job_of(run).read
        self.tail.clear()
        for line in self._lines(run, api, token, follow):
            if self.over.is_set():
                return
            said = reader.read(line)
            if said is None:
                self.tail.append(line)
            elif "seconds" in said:
                _beat(self.store, run, said)
            elif (event := _event(said)) and event.number > at:
                if event.number > at + 1 and event.number not in self._missed:
                    self._missed.add(event.number)
                    return
                take(self.store, run, event)
                at = event.number

    @staticmethod
    def _lines(run: Run, api: "HfApi", token: str, follow: bool) -> Iterator[str]:
        """The lines of the log, none with the token: a job may print its environment."""
        job = job_of(run)
        with told(token):
            lines: Iterable[str] = api.fetch_job_logs(job_id=job.id, namespace=job.account, follow=follow)
            for line in lines:
                yield line.replace(token, "…").rstrip("\r\n")

    def _pass_on(self, run: Run) -> None:
        if run.asked == "stop":
            self.cancel(run)

    def cancel(self, run: Run) -> None:
        """Have the job cancelled, in a thread: this one may be waiting for a line of the log."""
        if self._cancelled or (self._cancelling and self._cancelling.is_alive()) or not job_of(run).id:
            return
        self._cancelling = threading.Thread(target=self._cancel, args=(run,), daemon=True)
        self._cancelling.start()

    def _cancel(self, run: Run) -> None:
        job, token = job_of(run), login_of(run)
        if token is None:
            return
        try:
            with told(token):
                client(token).cancel_job(job_id=job.id, namespace=job.account)
        except FinetuneError as error:
            if error.code != "jobs_gone":
                text = ["The job could not be cancelled yet.", error.what, "This is tried again."]
                say(self.store, run, " ".join(text))
                self.over.wait(WAITS[0])
                return
        self._cancelled = True


def _beat(store: Store, run: Run, said: Any) -> None:
    seconds, memory = said.get("seconds"), said.get("memory")
    if isinstance(seconds, int | float) and isinstance(memory, int) and 0 <= seconds < 1e9 and 0 <= memory < 2**53:
        beat(store, run, float(seconds), memory)


def _event(said: Any) -> left.Told | None:
    try:
        return left.Told.model_validate(said)
    except ValidationError:
        return None
