#!/usr/bin/env bash
# Guess:   accuracy_reward of TRL takes solutions as data sets hold them, `2\sqrt{3}`: its docstring shows `\frac{1}{3}`.
# Reality: a solution without dollar signs is searched for a plain number. Of `2\sqrt{3}` that is 2, so the right answer gets
#          0.0 and the wrong answer 2 gets 1.0. `\frac{1}{3}` happens to work. `p - q` has no number, and gets None.
#          With the solutions between dollar signs all are right. Of the 500 answers of MATH-500 in a box, graded against
#          themselves as they stand in the column `answer`, 392 get 1.0, 57 get 0.0 and 51 None; between dollar signs 492.
# Seen:    2\sqrt{3} → right answer 0.0, answer 2 1.0
#          6 - 5i → right answer 0.0, answer 6 0.0
#          p - q → right answer None
#          $2\sqrt{3}$ → right answer 1.0, answer 2 0.0
# Version: trl 1.16.0, math-verify 0.9.0, latex2sympy2_extended 1.11.0, transformers 5.24.0, torch 2.13.0
# Source:  https://github.com/huggingface/trl/blob/main/trl/rewards/accuracy_rewards.py (no word of dollar signs);
#          https://github.com/huggingface/Math-Verify/issues/29 (they are needed)
. "$(dirname "$0")/fresh_venv"
install torch==2.13.0
install trl==1.16.0 transformers==5.24.0 datasets==5.2.0 math-verify==0.9.0 latex2sympy2_extended==1.11.0
run <<'PY'
from trl.rewards import accuracy_reward


def rewards(solution, *answers):
    said = [[{"role": "assistant", "content": rf"The answer is $\boxed{{{answer}}}$."}] for answer in answers]
    found = accuracy_reward(said, [solution] * len(answers))
    print(f"{solution}: {dict(zip(answers, found))}")
    return found


assert rewards(r"\frac{1}{3}", r"\frac{1}{3}", r"\frac{1}{2}") == [1.0, 0.0]
assert rewards(r"2\sqrt{3}", r"2\sqrt{3}", "2") == [0.0, 1.0]
assert rewards("6 - 5i", "6 - 5i", "6") == [0.0, 0.0]
assert rewards("p - q", "p - q") == [None]
assert rewards(r"$2\sqrt{3}$", r"2\sqrt{3}", "2") == [1.0, 0.0]
assert rewards("$6 - 5i$", "6 - 5i", "6") == [1.0, 0.0]
PY
