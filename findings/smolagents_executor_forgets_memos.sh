#!/usr/bin/env bash
# Guess:   the local Python executor of smolagents runs the Python that it accepts as Python does, only slower.
# Reality: decorators are read and dropped, and default arguments are evaluated at each call. A recursion with lru_cache or
#          memo={} is therefore right and exponential: fib(18) makes 8,361 calls for 19, and fib(60), nothing for Python, ends at
#          the limit of 30 s as if the program never stopped. Closures made in a loop of a list comprehension each keep their
#          own variable, and `else` of a loop is never run: other values, without an error.
#          As a grader's sandbox it fails right programs.
# Seen:    lru_cache 8361 calls, memo={} 8361 calls; [0, 1, 2] for [2, 2, 2]; 3 for 103
# Version: smolagents 1.26.0
# Source:  https://github.com/huggingface/smolagents/issues/2771, /2754 and /2782; nothing on calls that grow
. "$(dirname "$0")/fresh_venv"
install smolagents==1.26.0
run <<'PY'
from smolagents.local_python_executor import LocalPythonExecutor

PROGRAMS = {
    "lru_cache": (
        "from functools import lru_cache\ncalls = []\n@lru_cache(None)\ndef fib(n):\n    calls.append(n)\n"
        "    return n if n < 2 else fib(n - 1) + fib(n - 2)\nfib(18)\nresult = len(calls)",
        19, 8361,
    ),
    "memo={}": (
        "calls = []\ndef fib(n, memo={}):\n    if n in memo:\n        return memo[n]\n    calls.append(n)\n"
        "    memo[n] = n if n < 2 else fib(n - 1) + fib(n - 2)\n    return memo[n]\nfib(18)\nresult = len(calls)",
        19, 8361,
    ),
    "closures": ("result = [f() for f in [lambda: i for i in range(3)]]", [2, 2, 2], [0, 1, 2]),
    "else": ("result = 0\nfor i in range(3):\n    result += i\nelse:\n    result += 100", 103, 3),
}
for name, (program, python, here) in PROGRAMS.items():
    names = {}
    exec(program, names)
    executor = LocalPythonExecutor(additional_authorized_imports=["functools"])
    executor.send_tools({})
    found = executor(program + "\nresult").output
    print(f"{name}: Python {names['result']}, smolagents {found}")
    assert names["result"] == python and found == here
PY
