"""Laws of errors: each says what happened and one thing to do, and survives another process."""

import copy
import pickle
import re

import pytest

from imgpull import errors
from imgpull.errors import ImgpullError

TREE: list[type[ImgpullError]] = [ImgpullError, *ImgpullError.__subclasses__()]


@pytest.mark.parametrize("kind", TREE)
def test_an_error_reads_as_what_happened_then_what_to_do(kind: type[ImgpullError]) -> None:
    error = kind("replicas=500 cannot fit nodes=3", hint="use nodes=10")
    assert str(error) == "replicas=500 cannot fit nodes=3\n  use nodes=10"
    assert str(kind("nothing can be done")) == "nothing can be done"


@pytest.mark.parametrize("kind", TREE)
def test_an_error_crosses_processes_whole(kind: type[ImgpullError]) -> None:
    error = kind("it broke", hint="mend it")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert (twin.message, twin.hint, str(twin)) == (error.message, error.hint, str(error))


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn = re.findall(r"── (\w+)", errors.__doc__ or "")
    assert drawn == [kind.__name__ for kind in TREE[1:]]
