"""The expressions of `exclude`: what they mean, and how they point at what is wrong in them."""

import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from commands import copy_project, python, run_py
from hypothesis import assume, given
from hypothesis import strategies as st

from imgpull.config import schema, sweeping
from imgpull.errors import ConfigError
from imgpull.sweep.exclude import exclusion

VALUES: dict[str, Any] = {
    "deployments": 10,
    "replicas": 5,
    "qps": 2.5,
    "nodes": 20,
    "cache": "cold",
    "trials": 3,
    "max_hours": None,
    "metrics_wait": "10m",
    "wait_timeout": "1h30m",
    "allow": ["node"],
    "image": {
        "name": "vllm",
        "digest": None,
        "layers": [
            {"compressed_bytes": "2GB", "unpacked_bytes": "5GiB"},
            {"compressed_bytes": "500MB", "unpacked_bytes": "1GiB"},
        ],
    },
    "cluster": {
        "name": "aks_d4ds_v5",
        "kubernetes_version": "1.30",
        "node": {"vm_size": "Standard_D4ds_v5", "vcpus": 4, "nic_mbit_s": 10000.0},
        "kubelet": {"serializeImagePulls": True},
    },
    "engine": {"kind": "sim"},
}


def holds(text: str, **values: Any) -> bool:
    return exclusion(text).holds({**VALUES, **values})


# What expressions mean


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("replicas * deployments > nodes * 2", True),
        ("replicas * deployments > nodes * 3", False),
        ("image=vllm and qps>5", False),
        ("image == vllm AND qps<5", True),
        ("image = 'vllm'", True),
        ('image != "vllm"', False),
        ("vllm = image", True),
        ("cluster=aks_d4ds_v5 or nodes=1", True),
        ("not image = vllm", False),
        ("Not (image = vllm and nodes = 1)", True),
        ("image in (vllm, pytorch_large)", True),
        ("image not in [vllm, 'a b']", False),
        ("qps in (1, 5/2)", True),
        ("replicas not in (1, 2)", True),
        ("2 + 3 * 4 = 14", True),
        ("(2 + 3) * 4 = 20", True),
        ("10 - 3 - 2 = 5", True),
        ("100 / 10 / 5 = 2", True),
        ("-replicas = -5 and - -replicas = 5", True),
        ("0.1 + 0.2 = 0.3", True),
        (".5*2=1. and 1<=1 and 1>=1", True),
        ("pods = 50", True),
        ("image.layers = 2", True),
        ("image.compressed_bytes = 2.5GB", True),
        ("image.unpacked_bytes > 5GiB and image.unpacked_bytes < 6.5Gi", True),
        ("metrics_wait < wait_timeout", True),
        ("wait_timeout = 90m and wait_timeout > 5400s - 1ms", True),
        ("wait_timeout / metrics_wait = 9", True),
        ("metrics_wait * 2 < 21m", True),
        ("metrics_wait = auto", False),
        ("max_hours = null and image.digest = null", True),
        ("max_hours = 5", False),
        ("max_hours != 5", True),
        ("cluster.node.vm_size = Standard_D4ds_v5", True),
        ("cluster.node.nic_mbit_s / 8 > 1000", True),
        ("cluster.kubernetes_version = '1.30'", True),
        ("cluster.kubelet.serializeImagePulls", True),
        ("cluster.kubelet.serializeImagePulls = false", False),
        ("engine = sim and cache = cold", True),
        ("nodes = 1 and 10 / (nodes - 1) > 1", False),
        ("nodes > 0 or 10 / (nodes - 20) > 1", True),
    ],
)
def test_an_expression_means_what_it_says(text: str, meaning: bool) -> None:
    assert holds(text) is meaning


def test_a_key_may_have_a_value_in_one_cell_and_none_in_the_next() -> None:
    wait = exclusion("metrics_wait = auto")
    assert [wait.holds({**VALUES, "metrics_wait": each}) for each in ("auto", "5m")] == [
        True,
        False,
    ]
    with pytest.raises(ConfigError, match="metrics_wait is auto here"):
        holds("metrics_wait > 5m", metrics_wait="auto")


# Any expression, against Python's own arithmetic

NAMES: dict[str, Fraction | int] = {
    "deployments": 10,
    "replicas": 5,
    "nodes": 20,
    "trials": 3,
    "qps": Fraction(5, 2),
}
Meant = tuple[str, Callable[[], Any]]


def _joined(
    sign: str, compute: Callable[[Any, Any], Any]
) -> Callable[[tuple[Meant, Meant]], Meant]:
    return lambda pair: (
        f"({pair[0][0]} {sign} {pair[1][0]})",
        lambda: compute(pair[0][1](), pair[1][1]()),
    )


def _pairs(operand: st.SearchStrategy[Meant]) -> st.SearchStrategy[tuple[Meant, Meant]]:
    return st.tuples(operand, operand)


plain_numbers: st.SearchStrategy[Meant] = st.one_of(
    st.integers(0, 30).map(lambda n: (str(n), lambda: Fraction(n))),
    st.decimals(0, 9, places=2).map(lambda n: (str(n), lambda: Fraction(n))),
    st.sampled_from(sorted(NAMES)).map(lambda name: (name, lambda: Fraction(NAMES[name]))),
)
numbers = st.recursive(
    plain_numbers,
    lambda inner: st.one_of(
        _pairs(inner).map(_joined("+", lambda a, b: a + b)),
        _pairs(inner).map(_joined("-", lambda a, b: a - b)),
        _pairs(inner).map(_joined("*", lambda a, b: a * b)),
        _pairs(inner).map(_joined("/", lambda a, b: a / b)),
        inner.map(lambda one: (f"-{one[0]}", lambda: -one[1]())),
    ),
    max_leaves=6,
)
comparisons = st.one_of(
    _pairs(numbers).map(_joined("<", lambda a, b: a < b)),
    _pairs(numbers).map(_joined("<=", lambda a, b: a <= b)),
    _pairs(numbers).map(_joined(">", lambda a, b: a > b)),
    _pairs(numbers).map(_joined(">=", lambda a, b: a >= b)),
    _pairs(numbers).map(_joined("=", lambda a, b: a == b)),
    _pairs(numbers).map(_joined("!=", lambda a, b: a != b)),
    st.sampled_from(["vllm", "other"]).map(lambda t: (f"image = {t}", lambda: t == "vllm")),
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        _pairs(inner).map(
            lambda p: (f"({p[0][0]} and {p[1][0]})", lambda: p[0][1]() and p[1][1]())
        ),
        _pairs(inner).map(lambda p: (f"({p[0][0]} or {p[1][0]})", lambda: p[0][1]() or p[1][1]())),
        inner.map(lambda one: (f"(not {one[0]})", lambda: not one[1]())),
    ),
    max_leaves=5,
)


@given(conditions)
def test_every_expression_means_what_arithmetic_and_logic_say(meant: Meant) -> None:
    text, oracle = meant
    assume(len(text) < 500)
    try:
        wanted = oracle()
    except ZeroDivisionError:
        with pytest.raises(ConfigError, match="division by zero"):
            holds(text)
        return
    assert holds(text) is wanted


# Without parentheses: chains and precedence, against Python's, which is the usual one.
flat = st.lists(
    st.tuples(st.sampled_from("+-*/"), st.integers(1, 9)), min_size=1, max_size=8
)  # fmt: skip


@given(st.integers(1, 9), flat, st.integers(-50, 50))
def test_precedence_is_that_of_school(first: int, rest: list[tuple[str, int]], other: int) -> None:
    text = f"{first}" + "".join(f" {sign} {n}" for sign, n in rest)
    exact = f"Fraction({first})" + "".join(f" {sign} Fraction({n})" for sign, n in rest)
    assert holds(f"{text} > {other}") is (eval(exact, {"Fraction": Fraction}) > other)


@given(st.lists(st.sampled_from(["1=1", "1=2", "not 1=1"]), min_size=1, max_size=6), st.data())
def test_and_binds_tighter_than_or_and_not_tightest(parts: list[str], data: st.DataObject) -> None:
    text = parts[0]
    for part in parts[1:]:
        text += f" {data.draw(st.sampled_from(['and', 'or']))} {part}"
    assert holds(text) is eval(text.replace("=", "=="))


def require_answer(text: str) -> None:
    """A condition has an answer; what is none is refused with its place and a way out."""
    try:
        answer: object = holds(text)
    except ConfigError as refused:
        answer = bool(refused.hint) and bool(re.search(r"\n *\^$", refused.message))
        answer = answer or "pointless"
    assert isinstance(answer, bool)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_a_condition_or_an_error_that_shows_it(text: str) -> None:
    require_answer(text)


@given(
    st.lists(
        st.sampled_from(
            ["(", ")", "and", "or", "not", "in", "=", "<", "-", "*", ",", "[", "]", "image", "qps",
             "vllm", "5", "3m", "2GB", "'x'", "nodes", "null", "cluster", "cluster.node.vcpus"]
        ),
        max_size=12,
    )
)  # fmt: skip
def test_any_order_of_words_and_signs_is_a_condition_or_an_error(words: list[str]) -> None:
    require_answer(" ".join(words))


# Errors


@pytest.mark.parametrize(
    ("text", "words", "under", "hint"),
    [
        ("image > 5", "text and a number cannot be compared", ">", ""),
        ("qps = '5'", "a number and text cannot be compared", "=", "in quotes"),
        ("cluster.kubernetes_version = 1.30", "text and a number", "=", "'1.30'"),
        ("image < vllm", "text has no order", "<", "use = or !="),
        ("image + 1 > 2", "this is text, nothing to compute with", "image", ""),
        ("trial = 1", "a combination is left out with all of its trials", "trial", "use trials="),
        ("qps > 5 and replcas > 3", "unknown name 'replcas'", "replcas", "did you mean 'replicas'"),
        ("imge = vllm", "unknown name 'imge'", "imge", "did you mean 'image'?"),
        ("cluster.node.vcpu > 3", "unknown name", "cluster.node", "'cluster.node.vcpus'"),
        ("image = llama-3", "unknown name 'llama'", "llama", "quotes"),
        ("qps > 5 / (nodes - 20)", "division by zero", "/", "replicas > 1 and"),
        ("replicas * 5", "the whole is a number, not a condition", "replicas", "compare it"),
        ("qps and image = vllm", "this is a number, not a condition", "qps", "compare it"),
        ("not qps", "this is a number, not a condition", "qps", "compare it"),
        ("wait_timeout > 600", "a duration and a number", ">", "3m"),
        ("wait_timeout > 5GB", "a duration and a size", ">", ""),
        ("wait_timeout * metrics_wait > 5", "a duration * a duration", "*", ""),
        ("max_hours > 5", "max_hours is null here", "max_hours", "max_hours = null"),
        ("cluster.node = 5", "it is a group or a list", "cluster.node", ""),
        ("1 < qps < 5", "only two values", "< 5", "1 < qps and qps < 5"),
        ("(qps > 5", "'(' in column 1 is not closed before the end", None, "add ')'"),
        ("qps > 5)", "')' is one too many", ")", ""),
        ("qps >", "a value is missing", None, ""),
        ("qps > * 5", "a value is wanted before '*'", "*", ""),
        ("image in vllm", "'in' wants a list", "vllm", "image in (vllm"),
        ("qps not 5", "'not' here wants an 'in'", "not", ""),
        ("image = 'vllm", "a quote is never closed", "'", ""),
        ("qps > 5 && nodes = 1", "'&' has no meaning", "&", ""),
        ("qps > 5x", "'5x' is no number, duration or size", "5x", "quote it"),
        ("qps > 1e9", "'1e9' is no number", "1e9", ""),
        ("", "an expression is empty", None, ""),
        ("   ", "an expression is empty", None, ""),
        ("__import__('os')", "'(' is one too many here", "(", ""),
        ("__class__ = 5", "unknown name '__class__'", "__class__", ""),
    ],
)
def test_an_error_points_at_its_column(text: str, words: str, under: str | None, hint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as raised:
        holds(text)
    _, shown, caret = raised.value.message.split("\n")
    column = caret.index("^")
    assert shown == f"    {text}"
    assert column == len(shown) if under is None else shown[column:].startswith(under)
    assert raised.value.hint
    assert hint in raised.value.hint


def test_mistakes_show_in_the_first_cell_even_where_and_or_or_would_skip_them() -> None:
    with pytest.raises(ConfigError, match="unknown name"):
        holds("nodes = 1 and replcas = 5")
    with pytest.raises(ConfigError, match="cannot be compared"):
        holds("nodes = 20 or image > 5")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 50_000 + "1" + ")" * 50_000,
        "(" * 900 + "1=1" + ")" * 900,
        "not " * 450 + "1=1",
        "-" * 1900 + "1 = 1",
        "1+" * 100_000 + "1 > 1",
        "a" * 100_000,
        "image in (" * 100 + "1",
    ],
)
def test_no_expression_exhausts_the_interpreter(text: str) -> None:
    with pytest.raises(ConfigError):
        holds(text)


def test_a_long_flat_expression_is_no_deep_one() -> None:
    assert holds("1" + "+1" * 900 + " = 901")
    assert holds(" or ".join(["nodes=1"] * 150) + " or nodes=20")
    assert holds("2" + "*9" * 900 + " > 1")


def test_of_a_long_expression_the_part_around_the_mistake_is_shown() -> None:
    with pytest.raises(ConfigError) as raised:
        holds("nodes=1 or " * 100 + "replcas=2" + " or nodes=1" * 30)
    _, shown, caret = raised.value.message.split("\n")
    assert len(shown) <= 80
    assert shown[caret.index("^") :].startswith("replcas")


@pytest.mark.parametrize("odd", [float("inf"), float("nan")])
def test_a_value_that_is_no_number_is_named(odd: float) -> None:
    with pytest.raises(ConfigError, match="qps"):
        holds("qps > 5", qps=odd)


# From the command line and from files


MATRIX = ("-m", "replicas=1,5", "qps=5,10", "tracking=none", "until=render")


def rendered(out: str) -> list[str]:
    return [line.split(":")[0] for line in out.splitlines()[:-1]]


def test_an_expression_on_the_command_line_leaves_cells_out(tmp_path: Path) -> None:
    ended = run_py(tmp_path, *MATRIX, 'exclude=["replicas * qps > 45", "image=vllm and qps>5"]')
    assert ended.status == 0
    assert rendered(ended.out) == ["r1 q5", "r1 q10", "r5 q5"]
    assert ended.err == "note: exclude 'image=vllm and qps>5' leaves out nothing of this matrix\n"


def test_what_does_not_fit_is_left_out_before_it_is_refused(tmp_path: Path) -> None:
    big = ("-m", "replicas=1,500", "tracking=none", "until=render")
    refused = run_py(tmp_path, *big)
    assert refused.status == 2
    assert "cannot fit" in refused.err
    ended = run_py(tmp_path, *big, "exclude=['pods > nodes * cluster.node.max_pods']")
    assert ended.status == 0
    assert rendered(ended.out) == ["pytorch_large n10 r1"]


def test_an_experiment_may_exclude(tmp_path: Path, project: Path) -> None:
    (project / "conf/experiment/corner.yaml").write_text(
        "# @package _global_\n"
        "# What is left of a square without a corner?\n"
        "hydra: {sweeper: {params: {replicas: '1,5', qps: '5,10'}}}\n"
        'exclude: ["replicas=5 and qps=10"]\n'
    )
    ended = python(project, "run.py", "experiment=corner", "tracking=none", "until=render")
    assert ended.status == 0, ended.err
    assert rendered(ended.out) == ["r1 q5", "r1 q10", "r5 q5"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return copy_project(tmp_path)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("replicas > 0", "exclude leaves nothing to run: of 4 combinations 'replicas > 0' 4"),
        ("replicas > vllm", "unknown name 'vllm'"),
        ("replicas > image", "a number and text cannot be compared\n    replicas > image\n"),
        ("1 / (replicas - 1) > 0", "division by zero"),
    ],
)
def test_a_wrong_expression_ends_with_2_and_creates_nothing(
    tmp_path: Path, expression: str, said: str
) -> None:
    ended = run_py(tmp_path, *MATRIX, f'exclude=["{expression}"]')
    assert ended.status == 2
    assert said in ended.err
    assert ended.err.startswith("error: exclude")
    assert list(tmp_path.iterdir()) == []


def _duration_keys(kind: Any, above: str = "") -> Iterator[str]:
    """Keys of the schema whose default reads as a duration; those of how a sweep is run apart."""
    for key in fields(kind):
        default = key.default_factory() if callable(key.default_factory) else key.default
        if is_dataclass(default) and not isinstance(default, type):
            if key.name not in sweeping.KEYS:
                yield from _duration_keys(type(default), f"{above}{key.name}.")
        elif isinstance(default, str) and re.fullmatch(r"([0-9.]+(ms|s|m|h))+", default):
            yield above + key.name


def test_every_duration_of_the_configuration_is_one_here() -> None:
    kinds = [schema.Config, *schema.ENGINES.values()]
    keys = {key.rpartition(".")[2] for kind in kinds for key in _duration_keys(kind)}
    assert {"wait_timeout", "settle", "lifetime"} < keys
    values = dict.fromkeys(keys, "10m")
    for key in keys:
        assert exclusion(f"{key} > 599s").holds(values), key
