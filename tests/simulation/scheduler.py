"""Threads as greenlets, run one at a time in an order that one seed decides, on virtual time.

`Scheduler` is what `fairdraw.scheduling` is given in a play. A thread goes on until it waits: for a
server, a lock, an event, a future or a time. The seed then picks one of those that can go on. If none can, the time
jumps to the next one that something waits for, so an hour of waiting costs nothing.

A `Process` is what dies and freezes as a whole. After a crash its threads are never resumed: what they would do
while they are collected, in a `finally` for instance, is refused.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, CancelledError
from heapq import heappop, heappush
from random import Random
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

# 2026-11-26T00:00:00Z. Nothing depends on it.
EPOCH = 1_795_651_200.0
# A thread that takes a lock is overtaken by another this often: Python switches between any two instructions.
_OVERTAKEN = 0.02
MOST_STEPS = 3_000_000


class Killed(GreenletExit):
    """Raised in the threads of a process that is dead. Only what catches BaseException sees it."""


class Stuck(Exception):
    """All threads wait, and for no time; or they go on for ever."""


class Process:
    """`skew`: seconds by which its clock is ahead of the true time; `hangs`: its next call to a server of this name
    does not return for some seconds.
    """

    def __init__(self, name: str, skew: float = 0.0) -> None:
        self.name, self.skew = name, skew
        self.dead = False
        self.frozen_until = 0.0
        self.hangs: tuple[str, float] | None = None


class Task:
    """A thread. `ticket` is that of its present wait, 0 while it does not wait."""

    __slots__ = ("function", "greenlet", "joining", "name", "over", "process", "ticket", "woken")

    def __init__(self, function: Callable[[], object], name: str, process: Process) -> None:
        self.function, self.name, self.process = function, name, process
        self.greenlet: Any = None
        self.ticket = 0
        self.woken = self.over = False
        self.joining: list[Task] = []


class Thread:
    """`threading.Thread`, as far as the product uses it."""

    def __init__(self, scheduler: Scheduler, task: Task) -> None:
        self._scheduler, self._task = scheduler, task

    def join(self, timeout: float | None = None) -> None:
        self._scheduler.until(lambda: not self.is_alive(), self._task.joining, timeout)

    def is_alive(self) -> bool:
        return not (self._task.over or self._task.process.dead)


class Scheduler:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.time = EPOCH
        self.steps, self.most_steps = 0, MOST_STEPS
        # Exceptions that ended a thread.
        self.raised: list[tuple[str, BaseException]] = []
        self._tickets = itertools.count(1)
        self._ready: list[Task] = []
        self._timers: list[tuple[float, int, Task]] = []
        self._tasks: list[Task] = []
        self._hub: Any = None
        self.current: Task = Task(lambda: None, "", Process("none"))

    # What a play does

    def spawn(self, function: Callable[[], object], name: str, process: Process) -> Thread:
        task = Task(function, name, process)
        task.greenlet = greenlet(lambda: self._body(task), self._hub)
        self._tasks.append(task)
        self._ready.append(task)
        return Thread(self, task)

    def run(self, main: Callable[[], object]) -> None:
        """Run `main` as a thread, and all that it starts, until `main` has ended. Raises what `main` raised."""
        self._hub = getcurrent()
        thread = self.spawn(main, "main", Process("main"))
        begun = len(self.raised)
        try:
            while thread.is_alive():
                task = self._next()
                if task is None:
                    raise Stuck(self._why_stuck())
                task.greenlet.switch()
        finally:
            self._collect()
        for name, error in self.raised[begun:]:
            if name == "main":
                raise error

    def kill(self, process: Process) -> None:
        """As `kill -9`."""
        process.dead = True
        for task in self._tasks:
            if task.process is process:
                for each in task.joining:
                    self.wake(each)

    def _next(self) -> Task | None:
        """The thread that goes on now, None if there is none."""
        ready, timers, random = self._ready, self._timers, self.random.random
        while self.steps < self.most_steps:
            while not ready:
                if not timers:
                    return None
                at, ticket, task = heappop(timers)
                if task.ticket == ticket:
                    self.time = max(self.time, at)
                    task.ticket = 0
                    ready.append(task)
            index = int(random() * len(ready))
            task, ready[index] = ready[index], ready[-1]
            ready.pop()
            process = task.process
            if process.dead:
                continue
            if process.frozen_until > self.time:
                task.ticket = ticket = next(self._tickets)
                heappush(timers, (process.frozen_until, ticket, task))
                continue
            self.steps += 1
            self.current = task
            return task
        return None

    def _let_others_go_on(self, task: Task) -> None:
        """From the thread `task`, straight to the next one: the hub is only asked when there is none."""
        following = self._next()
        if following is not task:
            (self._hub if following is None else following.greenlet).switch()
        if task.process.dead:
            raise Killed

    def _why_stuck(self) -> str:
        if self.steps >= self.most_steps:
            return f"{self.steps} steps, and {self.current.name} still goes on"
        waiting = [f"{task.process.name}: {task.name}" for task in self._tasks if not task.over]
        return f"all wait for each other: {', '.join(waiting)}"

    def _body(self, task: Task) -> None:
        try:
            task.function()
        except GreenletExit:
            pass
        except BaseException as error:
            self.raised.append((task.name, error))
        task.over = True
        for each in task.joining:
            self.wake(each)

    def _collect(self) -> None:
        """End all threads of the play, without effect."""
        for task in self._tasks:
            task.process.dead = True
        for task in self._tasks:
            while not task.over and task.greenlet:
                self.current = task
                task.greenlet.throw(Killed)
                if not task.over and not task.greenlet.dead:
                    raise Stuck(f"{task.name} goes on although its process is dead")
                break

    # Waiting

    def park(self, timeout: float | None) -> bool:
        """Wait until `wake`, or for `timeout` seconds. Whether it was woken."""
        task = self.current
        if task.process.dead:
            raise Killed
        task.ticket = ticket = next(self._tickets)
        if timeout is not None:
            heappush(self._timers, (self.time + (timeout if timeout > 0 else 0.0), ticket, task))
        task.woken = False
        self._let_others_go_on(task)
        return task.woken

    def wake(self, task: Task) -> None:
        if task.ticket:
            task.ticket, task.woken = 0, True
            self._ready.append(task)

    def step_aside(self) -> None:
        """Let others go on now and then, if there are any."""
        if self.random.random() < _OVERTAKEN:
            task = self.current
            if task.process.dead:
                raise Killed
            self._ready.append(task)
            self._let_others_go_on(task)

    def until(self, holds: Callable[[], object], waiting: list[Task], timeout: float | None = None) -> bool:
        """Wait in the list `waiting` until `holds()`, for at most `timeout` seconds. Whether it holds."""
        give_up = None if timeout is None else self.time + timeout
        while not holds():
            if give_up is not None and self.time >= give_up:
                return False
            waiting.append(self.current)
            try:
                self.park(None if give_up is None else give_up - self.time)
            finally:
                waiting.remove(self.current)
        return True

    # What the product asks for: the attributes of `fairdraw.scheduling.RealWorld`

    def monotonic(self) -> float:
        return self.time - EPOCH + 1000.0

    def now(self) -> float:
        return self.time + self.current.process.skew

    def sleep(self, seconds: float) -> None:
        self.park(seconds)

    def start(self, function: Callable[[], object], name: str) -> Thread:
        return self.spawn(function, name, self.current.process)

    def lock(self) -> Lock:
        return Lock(self)

    def condition(self) -> Condition:
        return Condition(self)

    def event(self) -> Event:
        return Event(self)

    def future(self) -> Future:
        return Future(self)

    def pool(self, threads: int, name: str) -> Pool:
        return Pool(self, threads, name)

    def wait(
        self, pending: Iterable[Future], timeout: float | None = None, return_when: str = "ALL_COMPLETED"
    ) -> tuple[set[Future], set[Future]]:
        # In the order in which they were made: the order of a set is that of addresses.
        futures = sorted(pending, key=lambda future: future.number)

        def enough() -> bool:
            done = [future for future in futures if future.is_done]
            if return_when == FIRST_COMPLETED:
                return bool(done)
            if return_when == FIRST_EXCEPTION and any(future.error is not None for future in done):
                return True
            return len(done) == len(futures)

        if not enough() and (timeout is None or timeout > 0):
            waiting: list[Task] = []
            for future in futures:
                future.watched_by.append(waiting)
            try:
                self.until(enough, waiting, timeout)
            finally:
                for future in futures:
                    future.watched_by.remove(waiting)
        done = {future for future in futures if future.is_done}
        return done, set(futures) - done


class Lock:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._held = False
        self._waiting: list[Task] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._scheduler._ready:
            self._scheduler.step_aside()
        if self._held:
            if not blocking:
                return False
            if not self._scheduler.until(
                lambda: not self._held, self._waiting, None if timeout < 0 else timeout
            ):
                return False
        self._held = True
        return True

    def release(self) -> None:
        self._held = False
        for task in self._waiting:
            self._scheduler.wake(task)

    def locked(self) -> bool:
        return self._held

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()


class Condition(Lock):
    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler)
        self._noticed: list[Task] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.release()
        self._noticed.append(self._scheduler.current)
        try:
            woken = self._scheduler.park(timeout)
        finally:
            self._noticed.remove(self._scheduler.current)
        self._scheduler.until(lambda: not self._held, self._waiting)
        self._held = True
        return woken

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        give_up = None if timeout is None else self._scheduler.time + timeout
        while not (holds := predicate()):
            left = None if give_up is None else give_up - self._scheduler.time
            if left is not None and left <= 0:
                break
            self.wait(left)
        return holds

    def notify(self, n: int = 1) -> None:
        for task in self._noticed[:n]:
            self._scheduler.wake(task)

    def notify_all(self) -> None:
        self.notify(len(self._noticed))


class Event:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._set = False
        self._waiting: list[Task] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        for task in self._waiting:
            self._scheduler.wake(task)

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        return self._set or self._scheduler.until(lambda: self._set, self._waiting, timeout)


class Future:
    """`concurrent.futures.Future`, as far as the product uses it."""

    _numbers = itertools.count()

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.number = next(Future._numbers)
        self.is_done = self._running = self._cancelled = False
        self.error: BaseException | None = None
        self._value: Any = None
        self._waiting: list[Task] = []
        self.watched_by: list[list[Task]] = [self._waiting]
        self._callbacks: list[Callable[[Future], object]] = []

    def done(self) -> bool:
        return self.is_done

    def running(self) -> bool:
        return self._running and not self.is_done

    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> bool:
        if self._cancelled:
            return True
        if self._running or self.is_done:
            return False
        self._cancelled = True
        self._end()
        return True

    def set_running_or_notify_cancel(self) -> bool:
        self._running = not self._cancelled
        return self._running

    def set_result(self, value: Any) -> None:
        self._value = value
        self._end()

    def set_exception(self, error: BaseException) -> None:
        self.error = error
        self._end()

    def result(self, timeout: float | None = None) -> Any:
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self._value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self.is_done and not self._scheduler.until(lambda: self.is_done, self._waiting, timeout):
            raise TimeoutError
        if self._cancelled:
            raise CancelledError
        return self.error

    def add_done_callback(self, callback: Callable[[Future], object]) -> None:
        if self.is_done:
            callback(self)
        else:
            self._callbacks.append(callback)

    def _end(self) -> None:
        self.is_done = True
        for waiting in self.watched_by:
            for task in waiting:
                self._scheduler.wake(task)
        for callback in self._callbacks:
            callback(self)


class Pool:
    """`ThreadPoolExecutor`: a thread is started for a call while fewer than `threads` run."""

    def __init__(self, scheduler: Scheduler, threads: int, name: str) -> None:
        self._scheduler, self._threads, self._name = scheduler, threads, name
        self._running = 0
        self._calls: deque[tuple[Future, Callable[[], Any]]] = deque()
        self._ended: list[Task] = []
        self._closed = False

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = Future(self._scheduler)
        self._calls.append((future, lambda: function(*args, **kwargs)))
        if self._running < self._threads:
            self._running += 1
            self._scheduler.start(self._work, self._name)
        return future

    def map(self, function: Callable[..., Any], *iterables: Iterable[Any]) -> Iterable[Any]:
        futures = [self.submit(function, *each) for each in zip(*iterables, strict=False)]
        return (future.result() for future in futures)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._closed = True
        if cancel_futures:
            while self._calls:
                self._calls.popleft()[0].cancel()
        if wait:
            self._scheduler.until(lambda: not self._running, self._ended)

    def _work(self) -> None:
        while self._calls:
            future, call = self._calls.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except GreenletExit:
                    raise
                except BaseException as error:
                    future.set_exception(error)
        self._running -= 1
        for task in self._ended:
            self._scheduler.wake(task)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
