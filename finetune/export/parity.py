"""Does the export behave like what was tested? Held-out prompts are asked again, and the answers compared.

green   every answer is the same
amber   most are the same (free text: similar); the score is within its 95 % interval and not clearly worse
red     the score left its interval, too many answers differ, or answers no longer end: this must not be shipped
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from threading import Event

from finetune import chat, evaluate, train
from finetune.errors import DataError, ModelError
from finetune.evaluate.kinds import look
from finetune.evaluate.scores import chrf, scored
from finetune.evaluate.stats import difference, mean_interval, share_interval
from finetune.evaluate.task import Task
from finetune.export.strength import AS_TRAINED
from finetune.export.subject import ROWS
from finetune.models.template import Messages
from finetune.records import Json
from finetune.store import Run, Store

ALIKE = 0.7
"""Lowest similarity of the answers (1: identical) that still counts as a small difference.

Where answers are right or wrong, it is the share of identical ones: the score cannot see one wrong answer become
another, and chrF cannot when a digit decides. Quantising to 8 bits changed 11 of 40 answers; three in ten may change.
"""

ENDED = "end_of_turn"
RUNS_ON = " … (it does not end)"
"""Shown after such an answer, where it ended before."""

ENDLESS = 0.05
"""Largest share of the answers that ended before which may now run on to the limit."""

NO_QUESTION = "no_question"
"""Code of the error that no row can be asked."""

UNUSABLE = ("reload_failed", "llamacpp_failed")
"""Codes of errors that mean the export itself is broken: its check is red."""

Replay = Callable[[Sequence[Messages], int, bool], list[tuple[str, bool]]]
"""Asks an export: takes conversations, the most tokens of an answer, and whether answers open with a thought.

Returns each answer, and whether it ended by itself.
"""


@dataclass(frozen=True)
class Question:
    """The rows of an evaluation that are asked, by their `places` in it. `skipped` counts those without a question.

    They are asked of the adapter at a `strength`; only at 1 are the evaluation's answers of use. `learned`: the run was
    trained on them, since nothing is held out.
    """

    task: Task
    places: tuple[int, ...]
    skipped: int
    strength: float = AS_TRAINED
    learned: bool = False


@dataclass(frozen=True)
class Parity:
    """`same` of `n` answers are identical; scores are means over the rows (shares right, or chrF for free text).

    `endless` counts the answers that ended before and now run on to the limit. `problem` says why the export could not
    be asked; `score_after` is None then. `rows` is the evidence: prompt, expected, before, after.
    """

    n: int
    same: int
    score_before: float
    score_after: float | None
    ci: tuple[float, float]
    likeness: float
    status: str
    rows: tuple[dict[str, str], ...] = ()
    endless: int = 0
    problem: str = ""

    def as_dict(self) -> Json:
        """For programs, without the evidence."""
        return {name: value for name, value in asdict(self).items() if name != "rows"}

    @property
    def sentence(self) -> str:
        """For people."""
        if self.score_after is None:
            return f"Do not ship this. {self.problem}"
        runs_on = f"{self.endless} now run on to the token limit; " if self.endless else ""
        numbers = (
            f"{self.same} of {self.n} answers are the same; {runs_on}score {self.score_before:.2f} before, "
            f"{self.score_after:.2f} after"
        )
        return {
            "green": f"Loaded again, it answers like the tuned model here: {numbers}.",
            "amber": f"Loaded again, it answers almost like the tuned model here: {numbers}, within its interval.",
            "red": f"Do not ship this: loaded again, it does not answer like the tuned model here: {numbers}.",
        }[self.status]


def question(store: Store, run: Run, rows: int = ROWS, strength: float = AS_TRAINED) -> Question:
    """The first of the evaluation's rows, without whole texts, which hold no question.

    Where nothing is held out, the rows that were learned: whether two models answer alike can be seen on them too.

    Raises:
        DataError: there is none, or the rows are not here.

    Example:
        >>> len(question(store, run).places)
        40
    """
    learned = False
    try:
        task = evaluate.of_run(run, store)
    except DataError as error:
        if error.code != evaluate.NOTHING_HELD_OUT:
            raise
        task, learned = evaluate.of_learned(run, store), True
    places = [place for place, row in enumerate(task.rows) if row.prompt]
    if not places:
        raise DataError("The rows are plain text without a prompt: there is nothing to ask.", code=NO_QUESTION)
    return Question(task, tuple(places[:rows]), len(task.rows) - len(places), strength, learned)


def check(run: Run, asked: Question, replay: Replay, engine: chat.Engine) -> Parity:
    """Ask the export and compare it with the evaluated adapter; an export that cannot be asked is red.

    Answers that the evaluation recorded here are reused; the others are asked now.

    Raises:
        FinetuneError: the base or the adapter cannot be asked, or it takes too long.

    Example:
        >>> check(run, question(store, run), lambda *job: reload.answers(folder, *job), engine).status
        'green'
    """
    task = asked.task
    most = evaluate.longest(task)
    known = _before(run, asked, most, engine)
    chosen, before = [task.rows[place] for place in known], list(known.values())
    prompts = [[dict(message) for message in row.prompt] for row in chosen]
    texts, questions = [row.answer for row in chosen], [row.asked for row in chosen]
    try:
        after = replay(prompts, most, task.thinking)
    except ModelError as error:
        if error.code not in UNUSABLE:
            raise
        nothing = compare(before, [("", False)] * len(before), texts, questions, task.kind)
        return replace(
            nothing, same=0, score_after=None, likeness=0.0, status="red", rows=(), endless=0, problem=error.what
        )
    return compare(before, after, texts, questions, task.kind)


def _before(run: Run, asked: Question, most: int, engine: chat.Engine) -> dict[int, tuple[str, bool]]:
    """The adapter's own answers by their rows' places, without prompts that do not fit.

    Those that an imported run brought along cannot be trusted, and are asked again.

    Raises:
        DataError: no prompt fits.
    """
    task = asked.task
    answered = [] if train.imported(run) or asked.strength != AS_TRAINED else evaluate.answered(task)
    known = {one.row: (one.text, one.stop) for one in answered if one.arm == "tuned"}
    missing = [place for place in asked.places if place not in known]
    prompts = [[dict(message) for message in task.rows[place].prompt] for place in missing]
    asks = [chat.Ask(prompt, run, task.thinking, strength=asked.strength) for prompt in prompts]
    expected, sampling = [task.rows[place].answer for place in missing], chat.Sampling(max_tokens=most)
    if missing:
        with closing(engine.judge(asks, expected, task.model, [sampling] * len(asks), Event(), task.source)) as judged:
            known |= {missing[number]: (reply.text, reply.stop) for number, reply, _ in judged}
    fitting = [place for place in asked.places if known[place][1] != "too_long"]
    if not fitting:
        raise DataError("None of the prompts fits into the model's context: there is nothing to ask.", code=NO_QUESTION)
    return {place: (known[place][0], known[place][1] == ENDED) for place in fitting}


def compare(
    before: Sequence[tuple[str, bool]],
    after: Sequence[tuple[str, bool]],
    expected: Sequence[str],
    prompts: Sequence[str],
    kind: str,
) -> Parity:
    """Compare answers to the same prompts before and after the export, each with whether it ended by itself.

    Example:
        >>> compare([("a", True)] * 9, [("a", True)] * 9, ["a"] * 9, ["?"] * 9, "label").status
        'green'
    """
    scores = [
        [_score(text, want, kind) for (text, _), want in zip(said, expected, strict=True)] for said in (before, after)
    ]
    first, second = (sum(values) / len(values) for values in scores)
    ci = mean_interval(scores[0]) if kind == "free" else share_interval(round(sum(scores[0])), len(scores[0]))
    ended = sum(one for _, one in before)
    lost = [one and not other for (_, one), (_, other) in zip(before, after, strict=True)]
    texts = [(_whole(one), _whole(other)) for (one, _), (other, _) in zip(before, after, strict=True)]
    same = sum(one == other and not endless for (one, other), endless in zip(texts, lost, strict=True))
    likeness = sum(_alike(one, other, kind) for one, other in texts) / len(texts)
    small = (
        likeness >= ALIKE
        and ci[0] <= second <= ci[1]
        and (kind == "free" or not _clearly_worse(*scores))
        and sum(lost) <= ENDLESS * ended
    )
    status = "green" if same == len(texts) else "amber" if small else "red"
    rows = tuple(
        {"prompt": prompt, "expected": want, "before": one, "after": other + (RUNS_ON if endless else "")}
        for prompt, want, (one, other), endless in zip(prompts, expected, texts, lost, strict=True)
    )
    return Parity(len(texts), same, first, second, ci, round(likeness, 4), status, rows, sum(lost))


def _whole(text: str) -> str:
    """Without surrounding white space, and without half a character where an answer was cut."""
    return text.strip().rstrip("\ufffd").strip()


def _score(text: str, expected: str, kind: str) -> float:
    found = scored(text, expected, kind)
    return float(bool(found.right)) if kind != "free" else found.parts["chrF"]


def _alike(one: str, other: str, kind: str) -> float:
    """1 for the same answer, however it is written, and 0 for another; for free text, its chrF.

    The lower chrF of the two directions, so that text that runs on counts as a difference.
    """
    if kind == "free":
        return 1.0 if one == other else min(chrf(one, other), chrf(other, one))
    return float(one == other or bool(look(one, kind, other).right))


def _clearly_worse(before: Sequence[float], after: Sequence[float]) -> bool:
    """Row by row: the paired test sees a loss that the interval of a single score is too wide for."""
    found = difference(after, before)
    return found.clear and found.mean < 0
