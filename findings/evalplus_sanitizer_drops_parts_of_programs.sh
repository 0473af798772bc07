#!/usr/bin/env bash
# Guess:   evalplus' sanitizer takes the code out of a completion and what the function needs with it; of several versions of
#          the function it takes the last, as Python does.
# Reality: it keeps imports, and plain functions, classes and `name = value` that the entry point reaches. Everything else at
#          the top level is dropped: decorated functions, annotated and unpacked assignments, `table[i] = …`, try and if,
#          sys.setrecursionlimit. A right program with a helper under lru_cache ends in a NameError and counts as wrong. Of two
#          attempts it keeps the longer, and of two definitions in one block the first. `evalplus.codegen` writes its
#          samples through it.
# Seen:    helper under lru_cache: NameError: name 'helper' is not defined; two attempts: the first (the longer, wrong one);
#          two definitions: f(1) is 1, in Python 2
# Version: evalplus 0.3.1, tree-sitter 0.26.1
# Source:  https://github.com/evalplus/evalplus/blob/master/evalplus/sanitize.py; issue 188 is of another statement left in
. "$(dirname "$0")/fresh_venv"
install evalplus==0.3.1 tree-sitter==0.26.1 tree-sitter-python==0.25.0
run <<'PY'
from evalplus.sanitize import sanitize

HELPER = """from functools import lru_cache

@lru_cache(None)
def helper(n):
    return n if n < 2 else helper(n - 1) + helper(n - 2)

def f(n):
    return helper(n)
"""
ATTEMPTS = """My first attempt:
```python
def f(n):
    total = 0
    for i in range(n):
        total += i
    return total
```
That leaves n out. Corrected:
```python
def f(n):
    return n * (n + 1) // 2
```
"""
TWICE = "def f(n):\n    return n\n\ndef f(n):\n    return n + 1\n"


def value(program, n):
    names = {}
    exec(program, names)
    try:
        return names["f"](n)
    except NameError as error:
        return f"NameError: {error}"


helper, attempts, twice = (sanitize(text, "f") for text in (HELPER, ATTEMPTS, TWICE))
print("helper:", value(HELPER, 10), "→", value(helper, 10))
print("attempts: f(4) =", value(attempts, 4), "where the corrected one gives 10")
print("twice:", value(TWICE, 1), "→", value(twice, 1))
assert value(HELPER, 10) == 55 and value(helper, 10) == "NameError: name 'helper' is not defined"
assert value(attempts, 4) == 6
assert value(TWICE, 1) == 2 and value(twice, 1) == 1
PY
