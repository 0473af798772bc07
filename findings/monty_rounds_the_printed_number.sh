#!/usr/bin/env bash
# Guess:   Monty, the Python interpreter in Rust for programs that models write, computes with floats as Python does, or refuses.
# Reality: round(x, n) rounds the product x · 10^n and not the number itself, so that round(2.675, 2) is 2.68 and not 2.67
#          (while f"{2.675:.2f}" is 2.67 there, too). Of 20,000 numbers that end in 5 at the third place every third differs
#          from Python's in the second. A dictionary keeps the newest of equal keys, Python the oldest: {1: "a", 1.0: "b"}.
#          Expected values that were computed by Python make a right program wrong.
# Seen:    round(2.675, 2) is 2.68; 6685 of 20000 differ; {1.0: 'b'}
# Version: pydantic-monty 1.4.0
# Source:  https://github.com/pydantic/monty/pull/807 (rounding to whole numbers was made Python's; to places it was not)
. "$(dirname "$0")/fresh_venv"
install pydantic-monty==1.4.0
run <<'PY'
import math
import random

import pydantic_monty

numbers = [math.floor(random.Random(seed).uniform(0, 100) * 100) / 100 + 0.005 for seed in range(20_000)]
with pydantic_monty.Monty() as monty, monty.checkout() as session:
    rounded, shown, kept, many = session.feed_run(
        "[round(2.675, 2), f'{2.675:.2f}', str({1: 'a', 1.0: 'b'}), [round(x, 2) for x in numbers]]",
        inputs={"numbers": numbers},
    )
num_different = sum(here != round(number, 2) for here, number in zip(many, numbers))
print(f"round(2.675, 2) = {rounded}, printed {shown}; {num_different} of {len(numbers)} differ; {kept}")
assert round(2.675, 2) == 2.67 and rounded == 2.68 and shown == "2.67"
assert str({1: "a", 1.0: "b"}) == "{1: 'b'}" and kept == "{1.0: 'b'}"
assert 5_000 < num_different < 10_000
PY
