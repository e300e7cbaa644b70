"""Everything that only looks: causes, single letters, one letter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.dead_letters.choosing import Choice
from regworkers_core.operations.dead_letters.groups import TREND_SECONDS, Groups
from regworkers_core.operations.dead_letters.letters import DeadMessage, read_message
from regworkers_core.operations.dead_letters.looking import Ended, Look, never
from regworkers_core.operations.dead_letters.queues import DeadQueue
from regworkers_core.operations.dead_letters.truth import Judge, Judged
from regworkers_core.runtime import Runtime

OnProgress = Callable[[int, int], None]
_LIST_BATCH = 50


def no_progress(_done: int, _expected: int) -> None:
    """The default of every `on_progress`: messages seen, and about how many there are."""


@dataclass(slots=True)
class Seen:
    """How much of the queues was seen. `partly` names those of which a part was not, and why; messages that others
    hold just now (`hidden`) cannot be seen by anybody.
    """

    messages: int = 0
    fitting: int = 0
    hidden: int = 0
    partly: dict[str, str] = field(default_factory=dict)

    def add(self, queue: DeadQueue, look: Look) -> None:
        self.messages += look.seen
        self.hidden += look.hidden
        if look.ended is not Ended.EMPTY:
            self.partly[queue.name] = look.ended.value if look.ended else "unfinished"

    def as_dict(self) -> dict[str, Any]:
        return {
            "seen": self.messages,
            "fitting": self.fitting,
            "hidden": self.hidden,
            "partly": self.partly,
        }


def open_look(
    runtime: Runtime,
    queue: DeadQueue,
    *,
    batch_messages: int = 100,
    seconds_more: float = 0.0,
    stopped: Callable[[], bool] = never,
) -> Look:
    """Raises UsageError for a dead-letter queue whose own redrive policy counts receives: a look would move its
    messages away.
    """
    if runtime.message_moves.has_redrive_policy(queue.name):
        raise UsageError(
            f"{queue.name} has a redrive policy of its own: a look would use up its receives. Take it away first"
        )
    return Look(
        runtime.queue(queue.name),
        wait_seconds=runtime.settings.dead_letters.look_wait_seconds,
        hide_seconds=runtime.settings.dead_letters.hide_seconds,
        batch_messages=batch_messages,
        seconds_more=seconds_more,
        stopped=stopped,
    )


def fitting(
    look: Look,
    queue: DeadQueue,
    choice: Choice,
    now: float,
    on_progress: OnProgress = no_progress,
) -> Iterator[list[DeadMessage]]:
    """The messages of a look that are meant, batch by batch; a batch may be empty."""
    for batch in look.batches():
        letters = [read_message(queue, message) for message in batch]
        yield [letter for letter in letters if choice.fits(letter, now)]
        on_progress(look.seen, max(look.expected, look.seen))


def group_letters(
    runtime: Runtime,
    queues: Sequence[DeadQueue],
    choice: Choice,
    *,
    judge: Judge | None = None,
    stopped: Callable[[], bool] = never,
    on_progress: OnProgress = no_progress,
) -> tuple[Groups, Seen]:
    """Causes with their trends; with a `judge` the truth of every message, too."""
    groups, seen, now = Groups(), Seen(), runtime.clock()
    for queue in queues:
        with open_look(runtime, queue, stopped=stopped) as look:
            for letters in fitting(look, queue, choice, now, on_progress):
                seen.fitting += len(letters)
                add_all(groups, letters, judge)
        seen.add(queue, look)
        set_trends(runtime, queue, groups, now)
    return groups, seen


def add_all(groups: Groups, letters: Sequence[DeadMessage], judge: Judge | None) -> list[Judged]:
    """Into their groups; what the judge said of each, nothing without one."""
    judged = judge(letters) if judge is not None and letters else []
    for number, letter in enumerate(letters):
        groups.add(letter, judged[number] if judged else None)
    return judged


def set_trends(runtime: Runtime, queue: DeadQueue, groups: Groups, now: float) -> None:
    if not any(group.queue == queue for group in groups):
        return
    middle, begin = iso(now - TREND_SECONDS), iso(now - 2 * TREND_SECONDS)
    history = runtime.dead_letter_history
    # Up to the next moment, for what fails now has the time of now.
    recent = history.failures(queue.source, middle, iso(now + 60))
    groups.set_trends(queue, history.failures(queue.source, begin, middle), recent)


def list_letters(
    runtime: Runtime, queues: Sequence[DeadQueue], choice: Choice, judge: Judge, *, limit: int
) -> tuple[list[Judged], Seen]:
    """The first `limit` that fit, each beside the truth. No more is received than that takes."""
    found: list[Judged] = []
    seen, now = Seen(), runtime.clock()
    for queue in queues:
        if len(found) >= limit:
            seen.partly[queue.name] = Ended.ENOUGH
            continue
        with open_look(runtime, queue, batch_messages=min(_LIST_BATCH, max(1, limit))) as look:
            for letters in fitting(look, queue, choice, now):
                wanted = letters[: limit - len(found)]
                found += judge(wanted) if wanted else []
                if len(found) >= limit:
                    look.enough()
        seen.add(queue, look)
    seen.fitting = len(found)
    return found, seen


def find_letter(runtime: Runtime, queue: DeadQueue, wanted: str, judge: Judge) -> tuple[Judged | None, Seen]:
    """The letter with this message id, or the first that is about the item with this id. None: it is not among what
    was seen, which may be a part.
    """
    found, seen, now = None, Seen(), runtime.clock()
    with open_look(runtime, queue) as look:
        for letters in fitting(look, queue, Choice(), now):
            for letter in letters:
                if letter.id == wanted or any(item.id == wanted for item in letter.items):
                    found = judge([letter])[0]
                    break
            if found is not None:
                break
    seen.add(queue, look)
    return found, seen
