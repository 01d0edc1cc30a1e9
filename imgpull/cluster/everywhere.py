"""The same question to many nodes at once.

Hides threads: a thousand requests one after the other take minutes. What one node answers, or that
it does not, is kept beside its name; nothing stops the others.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from imgpull.cluster.kube import ApiError

T = TypeVar("T")

_AT_ONCE = 16  # as many as the client keeps connections


def everywhere(names: Iterable[str], ask: Callable[[str], T]) -> dict[str, T | ApiError]:
    """What `ask` returns for each name, in the order of the names, or the ApiError it raised."""

    def answer(name: str) -> T | ApiError:
        try:
            return ask(name)
        except ApiError as error:
            return error

    listed = list(names)
    with ThreadPoolExecutor(min(_AT_ONCE, max(1, len(listed))), "everywhere") as pool:
        return dict(zip(listed, pool.map(answer, listed), strict=True))


def first_error(answers: Mapping[str, object]) -> ApiError | None:
    """The error of the first node that has one."""
    return next((each for each in answers.values() if isinstance(each, ApiError)), None)


def some(names: Iterable[str], most: int = 3) -> str:
    """Names for a message: the first few, and how many more there are."""
    listed = list(names)
    rest = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest
