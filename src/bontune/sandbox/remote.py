"""What the grader's code holds in place of a candidate's function: calls go over the wire, plain data comes back.

An object that is not plain data (a class, an instance, a generator) stays on its side. Where a test uses classes of the
program's, another stand-in holds it and forwards calls, attributes, items, length, truth and iteration; never a
comparison, a conversion to text, a hash or arithmetic, so no answer of the candidate's is mistaken for another. Where a
test expects plain data, an object can be called, or gone through once, and no more: its own ``startswith`` would say
yes to everything.

Containers among the arguments are shared (``shared``): what the candidate does to them in place is done to the test's,
in plain data. Its exceptions arrive as builtin classes or the standard library's (``errors``), with their text.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Iterator
from typing import Any

from bontune.base.grades import Verdict
from bontune.sandbox.errors import from_name


class Faults(BaseException):
    """The conversation is over; not an ``Exception``, so that a test's own handlers let it through."""

    def __init__(self, verdict: Verdict, reason: str) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.reason = reason


class Session:
    """A conversation with one candidate. The first fault ends it, and stays."""

    deadline: float
    """Time at which the session ends at the latest (monotonic clock)."""
    fault: Faults | None
    """Why it is over, once it is."""
    allows_objects: bool
    """Whether the test uses objects of the candidate's; else what is no plain data comes as a :class:`Stream`."""
    num_values: int
    """Number of values that the candidate has given: before the first, a failing test fails by itself."""
    has_given_object: bool = False
    """Whether the candidate has given an object of its own where plain data was expected."""
    last_raised: Exception | None = None
    """The latest exception that was the candidate's."""

    def exchange(self, *request: object) -> tuple[Any, ...]:
        """Ask, and wait for the reply's parts: plain data and stand-ins.

        Raises:
            Faults: no reply, or a malformed one.
            WireError: the request holds what cannot cross.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Hang up."""
        raise NotImplementedError

    def fail(self, verdict: Verdict, reason: str) -> Faults:
        """End the conversation; returns what is to be raised."""
        if self.fault is None:
            self.fault = Faults(verdict, reason)
        return self.fault

    def load(self, source: str, names: tuple[str, ...]) -> dict[str, Any]:
        """Execute the program; returns those of the names that it defines.

        Raises:
            Faults: it cannot be executed.
        """
        kind, *parts = self.exchange("load", source, names)
        if kind == "unloadable" and len(parts) == 2:
            raise self.fail(Verdict.FAILED, f"loading it raised {_words(parts[0])}: {_words(parts[1])}")
        if kind == "loaded" and len(parts) == 1 and type(parts[0]) is dict:
            return parts[0]
        if kind == "exited":
            raise self.fail(Verdict.FAILED, "the program exited while loading")
        raise self.fail(Verdict.FAILED, _words(f"loading it gave no module ({kind})"))

    def ask(self, *request: object) -> Any:
        """Ask for a value.

        Raises:
            Exception: what the candidate raised, as a builtin class.
            Faults: no value came, nor an exception.
        """
        kind, *parts = self.exchange(*request)
        if kind == "value" and len(parts) == 1:
            self.num_values += 1
            return parts[0]
        if kind == "raised" and len(parts) == 2 and type(parts[0]) is str and type(parts[1]) is str:
            self.last_raised = from_name(parts[0], parts[1][:300])
            raise self.last_raised
        if kind == "end" and request[0] in ("next", "send") and len(parts) == 1:
            raise _EndOfIteration(parts[0])
        if kind == "exited":
            raise self.fail(Verdict.FAILED, "the program exited")
        if kind == "unsendable" and len(parts) == 1:
            raise self.fail(Verdict.FAILED, f"it returned what cannot be sent: {_words(parts[0])}")
        raise self.fail(Verdict.FAILED, "a reply of the wrong form")


class _EndOfIteration(Exception):
    """A generator has returned; the argument is its value."""


def _words(text: object) -> str:
    """Text of the candidate's for a reason: short, one line, escaped."""
    return repr(text)[1:-1][:200] if type(text) is str else "?"


class Remote:
    """Stands for an object of the candidate's."""

    __slots__ = ("_Remote__number", "_Remote__session")

    def __init__(self, session: Session, number: int) -> None:
        object.__setattr__(self, "_Remote__session", session)
        object.__setattr__(self, "_Remote__number", number)

    def _number_in(self, session: Session) -> int:
        if self.__session is not session:
            raise ValueError("a stand-in of another session")
        return self.__number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__session.ask("call", self, args, tuple(kwargs.items()))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # protocols of numpy, copy and pickle must not find answers there
            raise AttributeError(name)
        return self.__session.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
        self.__session.ask("set", self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self.__session.ask("item", self, key)

    def __len__(self) -> int:
        length = self.__session.ask("len", self)
        if type(length) is not int or not 0 <= length < 2**62:
            raise self.__session.fail(Verdict.FAILED, "a length that is none")
        return length

    def __bool__(self) -> bool:
        return self.__session.ask("bool", self) is True

    def __iter__(self) -> Iterator[Any]:
        iterator = self.__session.ask("iter", self)
        if type(iterator) is not Remote:
            raise self.__session.fail(Verdict.FAILED, "an iterator that is none")
        while True:
            try:
                item = self.__session.ask("next", iterator)
            except _EndOfIteration:
                return
            yield item

    def __next__(self) -> Any:
        try:
            return self.__session.ask("next", self)
        except _EndOfIteration:
            raise StopIteration from None

    def __repr__(self) -> str:
        return "<an object of the program>"


class Stream:
    """Stands for an object where plain data was expected: its items, once, as a generator has them; or a function."""

    __slots__ = ("_items", "_remote")

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._items: Iterator[Any] | None = None

    def _number_in(self, session: Session) -> int:
        return self._remote._number_in(session)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._remote(*args, **kwargs)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._items is None:
            self._items = iter(self._remote)
        return next(self._items)

    def __repr__(self) -> str:
        return "<an object of the program>"


def generator_of(session: Session, remote: Remote) -> Generator[Any, Any, Any]:
    """A generator of the trusted side whose items, and whose value in the end, are the candidate's."""
    sent = None
    while True:
        try:
            item = session.ask("send", remote, sent)
        except _EndOfIteration as end:
            return end.args[0]
        sent = yield item


async def awaited(session: Session, remote: Remote) -> Any:
    """What a coroutine of the candidate's returns; it runs on its own side to its end."""
    return session.ask("await", remote)


Made = Generator[Any, Any, Any] | Coroutine[Any, Any, Any]
