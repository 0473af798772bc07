"""The program in a completion, and a program's normal form; hostile texts included."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
import warnings

import pytest

from bontune.tasks.code import defines, extract_program, fenced_blocks, joined, normal_form

BODY = "def f(x):\n    return x\n"


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("    return 1", "    return 1"),
        ("\n    return 1\n", "\n    return 1\n"),
        ("    return 1\n```\nThat is it.", "    return 1\n"),
        ("return 1", "return 1"),  # nothing is put right
        ("", ""),
        (BODY, BODY),
        (f"Sure!\n```python\n{BODY}```\nDone.", BODY),
        (f"```\n{BODY}```", BODY),
        (f"{BODY}```\nThis works because f is short.", BODY),  # the prompt has opened the fence
        (f"import math\n\n{BODY}```\n\n```\nf(1)\n```", f"import math\n\n{BODY}"),
        (f"def f(x):\n    return 2\n```\nBetter:\n```python\n{BODY}```\n", BODY),
        (f"```\nOutput:\n```\n```python\n{BODY}```", BODY),
        (f"Here: ```python\n{BODY}```\nDone.", BODY),
        (f"Use `x` here:\n```py\n{BODY}```", BODY),
        (f"```Python title=a\n{BODY}```", BODY),
        (f"~~~py\n{BODY}~~~", BODY),
        (f"```python\n{BODY}", BODY),  # cut off
        (f"```python\n{BODY}```\nTry it:\n```python\nprint(f(1))\n```", BODY),
        (f"```python\ndef f(x):\n    return 2\n```\nNo:\n```python\n{BODY}```", BODY),
        ("```python\n    return 1\n```", "    return 1\n"),
        ("```text\nnotes\n```\n```python\nx = 1\n```\n```sh\nls\n```", "x = 1\n"),
        ("1. Like so:\n\n   ```python\n   def f(x):\n       return x\n   ```\n", BODY),
        ("```python\nf = lambda x: x\n```\n```python\nf(1) == 1\n```", "f = lambda x: x\n"),
        ("````\n```python\nx\n```\n````", "```python\nx\n```\n"),
        ("```python\ns = '```'\n```", "s = '```'\n"),
    ],
)
def test_the_program_in_a_completion(completion: str, program: str) -> None:
    assert extract_program(completion, "f") == program


def test_definitions_are_found_at_the_left_edge_only() -> None:
    for text in ("def f(x): pass", "async def f(): pass", "import os\nf = g", "x = 1\ndef f (a):\n  pass"):
        assert defines(text, "f")
    for text in ("    def f(x): pass", "def ff(x): pass", "f(1)", "f == 1", "class f: pass", "# def f"):
        assert not defines(text, "f")


def test_joining() -> None:
    prompt = "from typing import List\n\ndef f(x):\n    '''Doc.'''\n"
    assert joined(prompt, "    return 1") == prompt + "    return 1"
    assert joined("x = ", "") == "x = "
    whole = joined(prompt, f"from __future__ import annotations\n{BODY}")
    names: dict[str, object] = {}
    exec(compile(whole, "whole", "exec", dont_inherit=True), names)
    assert names["f"](3) == 3  # type: ignore[operator]
    assert "List" in names


@pytest.mark.parametrize(
    "same",
    [
        "def f(x):\n    return x",
        "def f( x ):  # id\n\n    return (x)",
        'def f(x):\n    """Doc."""\n    return x',
        "def f(x):\n    pass\ndef f(x):\n    'Doc.'\n    return x",
        "def f(x): return x",
    ],
)
def test_layout_comments_docstrings_and_stubs_make_no_difference(same: str) -> None:
    assert normal_form(same) == "def f(x):\n    return x"


def test_a_model_may_write_the_prompts_part_again() -> None:
    prompt = "import re\n\ndef helper():\n    return 1\n\ndef f():\n    'Doc.'\n"
    body = "    return helper()"
    assert normal_form(joined(prompt, body)) == normal_form(joined(prompt, prompt + body))


def test_what_is_different_stays_different() -> None:
    programs = ["def f(x):\n    return x", "def f(y):\n    return y", "def f(x):\n    return 'x'", "def f(x):\n    'x'"]
    assert len({normal_form(program) for program in programs}) == 4
    assert normal_form("def f(x) return x") is None
    assert normal_form("x = 1\0") is None
    assert normal_form("x = '\ud800'") is None
    long = "x = 1\n" * 10_000
    assert normal_form(long) != normal_form(long + "y = 1\n")


def test_python_is_kept_from_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert normal_form('x = "\\d"') is not None
        assert normal_form("1 is 2") is not None


HOSTILE = """
from bontune.tasks.code import normal_form
n = 20_000
for text in [
    '(' * n, '-' * (n - 1) + '1', 'a' + '.a' * (n // 2 - 1), 'not ' * (n // 4 - 1) + '1', '+'.join('a' * (n // 2)),
    'a' + '()' * (n // 2 - 1), 'lambda:' * (n // 7) + '1', '9' * n, '0x' + 'f' * (n - 2), '1 if 1 else ' * 1600 + '1',
    ''.join(' ' * i + 'if 1:\\n' for i in range(180)), 'if 1:\\n pass\\n' + 'elif 1:\\n pass\\n' * 1400,
    'a,' * (n // 2), '@a\\n' * 6000 + 'def f(): pass', 'def f():0\\n' * 2000, '**'.join('a' * (n // 3)),
    "f'" + '{f"' * 300, '[' * 199 + ']' * 199, 'match x:\\n case ' + '[' * 190 + ']' * 190 + ': pass',
]:
    normal_form(text)
print('alive')
"""


def test_hostile_programs_neither_crash_nor_fill_the_memory() -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    done = subprocess.run(
        [sys.executable, "-c", HOSTILE], capture_output=True, text=True, timeout=120, check=False, preexec_fn=limit
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr[-2000:]


def test_extraction_is_linear() -> None:
    for text in (
        "```" * 10**5,
        "```\n" * 10**5,
        " \n" * 10**5,
        "`" * 10**6,
        "~~~~ x\n" * 10**5,
        (" " * 999 + "\n") * 999,
    ):
        start = time.perf_counter()
        extract_program(text, "f")
        assert time.perf_counter() - start < 5.0, text[:10]  # 0.2 s on an idle core; quadratic: minutes


def test_blocks_say_their_language() -> None:
    assert [(b.language, b.text) for b in fenced_blocks("```C++\na\n```\n```\nb")] == [("c++", "a\n"), ("", "b\n")]
