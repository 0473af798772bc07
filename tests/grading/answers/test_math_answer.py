r"""Answers: which are equal (the policy, clause by clause), which cheats are refused, and what hostile strings cost."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bontune.grading as grading
from bontune.grading.answers.math_answer import (
    POOL,
    compare_answers,
    compare_pairs,
    extract_answer,
    math_equal,
    normal_answer,
)
from bontune.grading.answers.numbers import last_number
from bontune.grading.verdict import Verdict
from shared_data import require

EQUAL = [
    ("5", r"\boldsymbol{5}"),
    ("5", r"\bf 5"),
    ("5", r"{\bf 5}"),
    ("5", r"\underline{5}"),
    ("5", r"\large 5"),
    ("5", r"\Large{5}"),
    (r"\frac{3}{4}", r"\boldsymbol{\frac{3}{4}}"),
    (r"5\text{ miles}", r"5\textnormal{ miles}"),
    (r"\text{no solution}", "no solution"),
    (r"\text{No real solutions}", "no real solutions"),
    ("Yes", "yes"),
    (r"\text{yes}", "YES."),
    (r"1\pmod 7", r"1 \pmod{7}"),
    (r"x \equiv 1\pmod 7", r"x\equiv 1 (\bmod 7)"),
    ("10000", "10 000"),
    ("1000000", "1 000 000"),
    (r"\frac34", "¾"),
    ("2.5", "2½"),
    (r"28\%", r"28\text{ pct}"),
    (r"\sqrt3", "sqrt(3)"),
    (r"\sqrt[3]{2}", "cbrt(2)"),
    (r"\sqrt[4]{2}", "2**(1/4)"),
    (r"\frac{3\sqrt5}{7}", "(3*sqrt(5))/7"),
    (r"\frac{\pi}{2}", "pi/2"),
    (r"\log 2", "log(2)"),
    ("x^2", "x**2"),
    ("100", "1e2"),
    ("1000000", "1e6"),
    ("1500000", "1.5E+6"),
    (r"10^{-6}", "1e-6"),
    ("x < 1", "-x > -1"),
    (r"x \le 2", r"2x \le 4"),
    ("x < 1", "1 - x > 0"),
    ("1 < x < 2", "-2 < -x < -1"),
    ("1 < x < 2", "5 > 2x + 1 > 3"),
    (r"x < \sqrt2", r"-2x > -2\sqrt2"),
    ("x < y", "-y < -x"),
    (r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}", r"F_n = \sum_{k=0}^{n-1} F_{n-k-1} F_k"),
    (r"\sum_{k=0}^{n} a_k + b c", r"c b + \sum_{k=0}^{n} a_k"),
    (
        "28",
        r"Final Answer: The final answer is $28\%$. I hope it is correct. Final Answer: The final answer is $28\%$.",
    ),
    ("28", r"Final Answer: The final answer is $28\%$. I hope it is correct." + "\n\nProblem: What is 3 + 4?"),
    (r"\frac12", r"The final answer is $\frac{1}{2}$. I hope it is correct."),
    ("3.5", "So x = 2.\nThe final answer is: 3.5"),
    # characters of another width, or of none
    ("(1,2)", "\uff081\uff0c2\uff09"),
    ("A", "\uff08A\uff09"),
    ("x=5", "x\uff1d5"),
    ("1,2", "1\u30012"),
    ("-5", "\u20105"),
    ("-5", "\u20135"),
    ("-5", "\uff0d5"),
    ("12", "\uff11\uff12"),
    ("5\u20137", "5-7"),
    ("5-7", "5 \u2013 7"),
    ("3x-5", "3x\u20135"),
    ("1-2x", "1\u20132x"),
    ("5", "5\u200b"),
    ("42", "4\u200b2"),
    ("(1,2)", "\u2066(1,\ufeff2)\u2069"),
    ("10000", "10\u202f000"),
    ("x^{12}", "x\u00b9\u00b2"),
    ("2021_3", "2021\u2083"),
    (r"\langle 1,2\rangle", "\u27e81,2\u27e9"),
    # notation of TeX and of other habits
    (r"\frac12", r"{1 \over 2}"),
    (r"\frac12", r"$1 \over 2$"),
    (r"\frac{1}{2}+x", r"x+{1\over2}"),
    (r"\frac{3}{2}", r"{1 \over {2 \over 3}}"),
    (r"\sqrt{\frac12}", r"\sqrt{1\over2}"),
    ("10", r"{5 \choose 2}"),
    (r"\arctan 2", r"\tan^{-1} 2"),
    (r"\arcsin\frac13", r"\sin^{-1}\left(\frac{1}{3}\right)"),
    ("5", r"\color{red}{5}"),
    ("5", r"{\color{blue} 5}"),
    ("5", r"\color[rgb]{1,0,0} 5"),
    ("5", r"\textcolor{red}{5}"),
    (r"\frac12", r"\mathbf{\frac{1}{2}}"),
    (r"\frac12", r"\nicefrac{1}{2}"),
    ("5", r"5\textup{ cm}"),
    ("[1,2)", r"\lbrack 1,2\rparen"),
    (r"\begin{pmatrix}1\\2\\3\end{pmatrix}", r"\left(\begin{array}{c}1\\2\\3\end{array}\right)"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\left[\begin{array}{cc}1&2\\3&4\end{array}\right]"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\left(\begin{smallmatrix}1\\2\end{smallmatrix}\right)"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\[2pt]2\end{pmatrix}"),
    (r"(-\infty,\infty)", r"\mathbb{R}"),
    (r"(-\infty,\infty)", r"x \in \mathbb R"),
    (r"(-\infty,\infty)", "\u211d"),
    (r"(-\infty,\infty)", r"\text{all real numbers}"),
    # behind thoughts
    ("5", r"<think>\boxed{4}?</think>It is \boxed{5}."),
    ("5", r"\boxed{4}? </think> 5"),
    # values
    ("1/2", "0.5"),
    ("1/2", r"\frac12"),
    ("1/2", r"\dfrac{2}{4}"),
    ("1/2", r"\tfrac 12"),
    ("1/2", "2^{-1}"),
    ("1/2", ".50"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt2}{2}"),
    (r"2\sqrt{3}", r"\sqrt{12}"),
    (r"\sqrt{2}-1", r"\frac{1}{1+\sqrt{2}}"),
    ("4", r"\sqrt{16}"),
    ("10", r"\binom{5}{2}"),
    ("120", "5!"),
    ("3", "|-3|"),
    (r"\sqrt[3]{2}", "2^{1/3}"),
    ("-2", r"\sqrt[3]{-8}"),
    ("2i", r"\sqrt{-4}"),
    ("-1", "i^2"),
    ("5", "5.000"),
    ("8", "2^3"),
    (r"\frac{1}{3}", r"0.\overline{3}"),
    (r"\frac16", r"0.1\overline{6}"),
    (r"2\pi", r"\pi \cdot 2"),
    ("2", r"\lfloor 2.7\rfloor"),
    (r"\frac{5}{3}", r"1\frac{2}{3}"),
    (r"-\frac{78}{5}", r"-15\frac35"),
    ("3/2", "1 1/2"),
    (r"3\frac{x}{2}", "1.5x"),
    ("x^2-1", "(x+1)(x-1)"),
    ("x+1", r"\frac{x^2-1}{x-1}"),
    ("-x+1", "1 - x"),
    ("ab", "ba"),
    (r"\sqrt{x^2}", "x"),
    (r"e^{2x}", r"\exp(2x)"),
    ("007", "7"),
    ("+7", "7"),
    ("-(-7)", "7"),
    # values that only sympy can tell
    (r"\frac{1}{2}", r"\sin 30^\circ"),
    ("3", r"\log_2 8"),
    (r"\sqrt{2}+1", r"\sqrt{3+2\sqrt{2}}"),
    ("-1", r"e^{i\pi}"),
    (r"\cos 2x", r"1-2\sin^2 x"),
    # thousands
    ("10000", "10,000"),
    ("10000", "10{,}000"),
    ("10000", r"10\,000"),
    (r"3,\!110,\!400", "3110400"),
    ("1234.5", "1,234.5"),
    # spelling
    ("5", "$5$"),
    ("5", r"\(5\)"),
    ("5", "5."),
    ("(1,2)", r"\left( 1 ,\, 2 \right)"),
    ("5", "\u22125 + 10"),
    (r"\pi", "π"),
    ("42", r"\text{42}"),
    ("42", r"\mathbf{42}"),
    # several values
    ("1, 2", "2,1"),
    ("1,2", r"\{2, 1\}"),
    ("1,2", r"1 \text{ and } 2"),
    ("1,2", "2 or 1"),
    ("1,2,3", r"3, 2, \text{ and } 1"),
    ("1,2", r"x=1 \text{ or } x=2"),
    ("1,2", "x=1,2"),
    ("3,-3", r"\pm 3"),
    (r"1\pm\sqrt5", r"1+\sqrt5, 1-\sqrt{5}"),
    (r"\{1\pm\sqrt{5},-2\}", r"-2, 1-\sqrt5, 1+\sqrt5"),
    ("5", r"\{5\}"),
    (r"\emptyset", r"\{\}"),
    ("(1,2),(3,4)", "(3,4),(1,2)"),
    # tuples, intervals, matrices
    ("(1,2)", "(1.0, 4/2)"),
    ("(1,2)", r"\langle 1, 2\rangle"),
    ("(1,2)", "(x,y)=(1,2)"),
    ("[1,2)", r"\left[1,\frac{4}{2}\right)"),
    (r"(3,\infty)", "x>3"),
    ("[1,2)", r"1 \le x < 2"),
    ("[1,2)", r"2 > x \geq 1"),
    ("[1,2]", r"x \in [1,2]"),
    ("x<3", r"(-\infty,3)"),
    (r"(-\infty,0)\cup(0,\infty)", r"(0,\infty) \cup (-\infty,0)"),
    (r"\infty", r"+\infty"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix} 1 \\ \frac{4}{2} \end{bmatrix}"),
    (r"\begin{pmatrix}1/2&1\end{pmatrix}", r"\frac12\begin{pmatrix}1&2\end{pmatrix}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "[1, 2; 3, 4]"),
    ("[1,2;3,4]", r"\begin{bmatrix}1&\frac42\\3&4\end{bmatrix}"),
    (r"(-\infty,1)\cup(2,\infty)", r"x<1 \text{ or } x>2"),
    (r"(-\infty,1)\cup(2,\infty)", r"x \in (-\infty,1)\cup(2,\infty)"),
    # names and equations
    ("x^2-1", "(x-1)(x+1) = x^2-1"),
    (r"2\sqrt{3}", "√12"),
    (r"\frac{\sqrt{2}}{2}", "√2/2"),
    ("12000", r"1.2 \times 10^4"),
    ("1,2", r"\left\{1,2\right\}"),
    ("5", r"5~\text{cm}"),
    ("18.9", "18.90 dollars"),
    (r"\frac{3}{4}\pi", r"\frac{3\pi}{4}"),
    ("5", "x=5"),
    ("x=5", "5"),
    ("5", "5=x"),
    ("5", "2+3=5"),
    ("5", "x = 2+3 = 5"),
    ("x^2", "f(x)=x^2"),
    ("5", r"\text{Area} = 5"),
    ("y=2x+3", "2x-y+3=0"),
    ("2x - y + 3z + 8 = 0", "y = 2x+3z+8"),
    ("y=2x+3", "2x+3"),
    ("x+y>2", "2<y+x"),
    ("x+y>2", "2x+2y>4"),
    # units
    ("5", "5 cm"),
    ("5", r"5\text{ cm}"),
    (r"5\text{ cm}", "5"),
    (r"5\text{ cm}^2", r"5\text{ square centimeters}"),
    ("5", r"\$5.00"),
    (r"\$5", "5 dollars"),
    (r"27\%", "27"),
    ("27", "27%"),
    (r"60^\circ", "60"),
    (r"60^{\circ}", r"60\text{ degrees}"),
    (r"81\text{ teachers}", "81"),
    (r"16\text{ daps}", r"16 \text{ daps}"),
    (r"(6,235^\circ)", "(6,235)"),
    # words
    ("A", r"\text{(A)}"),
    ("(A)", "A"),
    (r"\text{A}", r"\textbf{(A)}"),
    (r"\text{Evelyn}", "evelyn."),
    (r"\text{VW}", "VW"),
    (r"\text{C, F, H}", "H, C, F"),
    (r"\text{B,C}", "B, C"),
    # bases
    ("2021_3", "2021_{3}"),
    ("24_{10}", "24"),
    ("(2021)_3", "2021_3"),
    ("A5_{11}", r"\text{A5}_{11}"),
    # boxes
    ("42", r"so \boxed{41}, no, $\boxed{42}$"),
    ("2", r"\boxed 2"),
    ("2", r"\fbox{2}"),
    (r"\boxed{2}", "2"),
    # the gold's own text, whatever it is
    (r"\sum_{k=1}^n a_k", r"\sum_{k=1}^n a_k"),
    ("", ""),
    ("9^9^9^9", "9^9^9^9"),
    ("1:2", "1 : 2"),
]

DIFFERENT = [
    # cheats known from other graders
    ("42", r"42 \text{ or } 17"),
    ("3", r"3\text{ or more}"),
    ("(1,2)", r"\{1,2\}"),
    (r"\sqrt2", "1.414214"),
    ("12345678901234567890", "12345678901234567891"),
    ("42", r"\boxed{42} \boxed{17}"),
    ("42", "42, 17"),
    ("42", "17, 42"),
    # notation that means something
    ("5", "\u20135"),
    ("-2", "5\u20137"),
    ("-2", "$5 \u2013 7$"),
    ("-2", "5\u20137 cm"),
    ("5\u20137", "-2"),
    ("12", "\u0661\u0662"),
    (r"\frac{1}{\tan 2}", r"\tan^{-1} 2"),
    (r"\frac12", r"{1 \over 3}"),
    ("1", r"{1 \over 2}"),
    ("12", "1\u20822"),
    ("12", "1\uff0c2"),
    ("12", "1\u200b,2"),
    ("5", r"\color{5}{6}"),
    ("42", r"42\color{white}{\text{ or }17}"),
    ("42", r"\textcolor{red}{42} \text{ or } 17"),
    ("3", r"\mathbf{3 \text{ or more}}"),
    ("R", r"\mathbb{R}"),
    (r"(-\infty,\infty)", r"\mathbb{Z}"),
    (r"(0,\infty)", r"\mathbb{R}"),
    ("(1,2)", r"\left(\begin{array}{cc}1&2\end{array}\right)"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\left(\begin{array}{cc}1&2\end{array}\right)"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\left(\begin{array}{c}1\\2\end{array}\right]"),
    ("[1,2;3,4]", "[1,3;2,4]"),
    ("[1,2;3,4]", "[1,2,3,4]"),
    ("[1,2;3,4]", "[1,2;3]"),
    ("[1,2;3,4]", "(1,2;3,4)"),
    ("Yes", r"\text{No}"),
    ("Yes", "yes or no"),
    # thoughts
    ("4", r"<think>maybe \boxed{4}</think>The answer is 5."),
    ("4", r"<think>perhaps \boxed{4} but"),
    ("4", r"\boxed{4}</think>"),
    ("42", "42 </think> 17"),
    # more than one value, hedges, additions
    ("42", "42 or 17"),
    ("42", "42 and 17"),
    ("42", r"\{42, 17\}"),
    ("42", "42; 17"),
    ("42", "42 17"),
    ("42", r"42 \quad 17"),
    ("42", "42,42"),
    ("42", r"42 \pm 1"),
    ("42", r"42\cup 17"),
    ("42", "x=42, x=17"),
    ("42", "(42)(17)"),
    ("42", "[41,43]"),
    ("42", r"\ge 42"),
    ("42", "x>42"),
    ("42", r"\approx 42"),
    ("42", r"\text{not } 42"),
    ("42", r"\text{about }42"),
    ("42", r"42\text{ million}"),
    ("42", r"42\text{ squared}"),
    ("42", "42 dozen"),
    ("42", r"42 \text{ (or 17)}"),
    ("42", "42=17"),
    ("42", "41=42"),
    ("42", "x=17=42"),
    ("42", r"42\neq 17"),
    ("42", r"42 \text{ if } x>0"),
    ("1,2", "1,2,3"),
    ("1,2", "1"),
    ("1,2", "1,1"),
    ("1,1", "1"),
    ("42", r"\begin{cases}42\\17\end{cases}"),
    ("42", "42&17"),
    ("42", r"42\\17"),
    ("42", "4 2"),
    # the gold's text inside another
    ("42", "142"),
    ("42", "420"),
    ("42", "4.2"),
    ("42", "42x"),
    ("x", "x^2"),
    ("42", r"\text{the answer is }42"),
    ("42", "-42"),
    # unevaluated: the problem restated
    ("5", r"\int_0^1 10x\,dx"),
    ("55", r"\sum_{k=1}^{10} k"),
    ("6", r"\prod_{k=1}^3 k"),
    ("1", r"\lim_{x\to0}\frac{\sin x}{x}"),
    ("2", r"\max(1,2)"),
    ("3", r"\gcd(6,9)"),
    # rounding
    ("1/3", "0.333"),
    ("1/3", "0.3333333333333333333"),
    (r"\pi", "3.14159265358979"),
    (r"\sqrt{2}", r"\frac{141421356237}{100000000000}"),
    (r"12345678901234567890\pi", r"12345678901234567891\pi"),
    (r"\sin 1", "0.8414709848078965"),
    ("0.5", "0.50000000001"),
    # structure
    ("(1,2)", "(2,1)"),
    ("(1,2)", "1,2"),
    ("(1,2)", "[1,2]"),
    ("[1,2)", "[1,2]"),
    ("[1,2)", "(1,2]"),
    ("(1,2)", "(1,2,3)"),
    ("(1,2)", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"),
    ("(1,234)", "(1234)"),
    ("1,2,3", "(1,2,3)"),
    (r"\infty", r"-\infty"),
    (r"(-\infty,3)", r"(-\infty,3]"),
    (r"(0,1)\cup(2,3)", "(0,1)"),
    ("5", r"\infty"),
    (r"\infty", "5"),
    # names and equations
    ("x=5", "y=5"),
    ("5", "x+3=8"),
    ("x=5", "x=6"),
    ("y=2x+3", "y=2x-3"),
    ("x>3", r"x\ge 3"),
    ("x+y>2", "x+y<2"),
    ("x=y", "x=2y"),
    ("x", "y"),
    ("x", "X"),
    ("|x|", "x"),
    (r"\sqrt{x}", "x"),
    ("x^2", "2^x"),
    ("x=5", "0=0"),
    ("y=2x", "0=0"),
    ("x", "x+0.0000000001"),
    ("x^2-1", "(x-1)(x+1) = x^2"),
    ("x^2-1", "x^2-1 = 5"),
    (r"(-\infty,1)\cup(2,\infty)", "(1,2)"),
    # units
    (r"5\text{ cm}", r"5\text{ m}"),
    (r"\$2", r"2\text{ cents}"),
    (r"27\%", "0.27"),
    (r"60^\circ", r"\frac{\pi}{3}"),
    ("5", r"5\text{ cm}^3\text{ m}"),
    (r"5\text{ cm}", r"5\text{ cm}^2"),
    ("16", r"16\text{ daps}"),
    # words
    ("A", "B"),
    ("A", "a"),
    (r"\text{even}", r"\text{odd}"),
    (r"\text{no}", "on"),
    (r"\text{Evelyn}", "Evelyn or Carla"),
    ("A", "A, B"),
    ("A", "(A) 5"),
    (r"\text{listen}", "silent"),
    # bases
    ("2021_3", "2021"),
    ("2021_3", "61"),
    ("2021_3", "2021_4"),
    ("2021_3", "2021_{13}"),
    # digits and numbers that are none
    ("42", "٤٢"),
    ("2", "²"),
    ("5", "nan"),
    ("5", "inf"),
    ("5", "1e400"),
    ("42", r"42\text{ or more}"),
    ("5", r"\boldsymbol{5 or more}"),
    ("5", r"\boldsymbol{5}6"),
    ("10", "10 0"),
    ("10000", "10 00"),
    ("10000", "10 0000"),
    ("56", "5 6"),
    ("1234", "1 234/567"),
    ("(1000, 2)", "(1 000, 2)"),
    ("3", "¾"),
    (r"\text{no solution}", "solution"),
    (r"\text{no solution}", r"\text{one solution}"),
    (r"1\pmod 7", r"1\pmod 5"),
    (r"1\pmod 7", "1"),
    ("10", "1e6"),
    ("6", "1e6"),
    ("1000000", "1e-6"),
    (r"\frac{1}{\sqrt3}", "sqrt(3)"),
    (r"\pi", r"pi\text{}"),
    ("x < 1", "-x < -1"),
    ("x < 1", "-x > 1"),
    ("x < 1", r"-x \ge -1"),
    ("x < 1", "x > 1"),
    ("|x| < 1", "x < 1"),
    ("x^2 < 1", "x < 1"),
    (r"\frac{1}{x} < 1", "x > 1"),
    (r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}", r"F_n = \sum_{k=0}^{n-1} F_{n-k-1} F_{k+1}"),
    (r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}", r"F_n = \sum_{k=1}^{n-1} F_k F_{n-k-1}"),
    (r"\sum_{k=0}^{n} f(k) g(n)", r"\sum_{k=0}^{n} f(n) g(k)"),
    (r"\sum_{k=0}^{n} \sin k \, x", r"\sum_{k=0}^{n} \sin x \, k"),
    (r"\sum_{k=0}^{n} a - b", r"\sum_{k=0}^{n} b - a"),
    (r"\sum_{k=0}^{n} a / b", r"\sum_{k=0}^{n} b / a"),
    ("42", "The final answer is 42 or 17"),
    ("17", "The final answer is 42. The final answer is 17 or 42."),
    ("2", "The final answer is $2$ or $3$."),
    ("2", r"The final answer is 2. No, it is \boxed{3}"),
    ("2", "The final answer is 2. The final answer is 3. I hope it is correct."),
    ("3", "The final answer is 2. Then 3"),
    ("42", "the answer is 42"),
    ("16", "0x10"),
    ("1000", "1_000"),
    # nothing there
    ("5", ""),
    ("5", "   "),
    ("5", "$$"),
    ("5", r"\boxed{}"),
    ("5", r"\boxed{5"),
    ("5", r"\boxed{5} then \boxed{"),
    ("5", r"\text{}"),
    ("", "5"),
    ("0", ""),
    ("0", r"\frac{0}{0}"),
    ("0", r"\infty-\infty"),
    ("1", "0^0"),
    ("1", r"\frac{x-x}{x-x}"),
    # code
    ("5", "__import__('os').getpid()"),
    ("5", "exec('5')"),
    ("5", "lambda: 5"),
    ("5", "5 if True else 6"),
    ("5", "int('5')"),
]


@pytest.mark.parametrize(("gold", "prediction"), EQUAL)
def test_equal(gold: str, prediction: str) -> None:
    comparison = compare_answers(gold, prediction)
    assert comparison.verdict is Verdict.PASSED, comparison.reason
    assert (
        math_equal(prediction, gold) or r"\text{ teachers}" in gold or "box" in prediction
    )  # the gold may name any unit


@pytest.mark.parametrize(("gold", "prediction"), DIFFERENT)
def test_different(gold: str, prediction: str) -> None:
    comparison = compare_answers(gold, prediction)
    assert comparison.verdict is Verdict.FAILED
    assert comparison.reason


HOSTILE = [
    "9^9^9^9",
    "9^{9^{9^9}}",
    "100000!",
    "(((3000!)!)!)!",
    "3000!!",
    r"\binom{1000000}{500000}",
    "2^{33000}",
    "10^{10^{10}}",
    r"\frac{1}{" * 100_000 + "1" + "}" * 100_000,
    r"\frac{1}{" * 250 + "1" + "}" * 250,
    "{" * 1900,
    "(" * 10**6,
    "-" * 1900,
    "!" * 1900,
    r"\sqrt{" * 49 + "2" + "}" * 49,
    "((x+1)^{64}+1)^{64}",
    "(a+b+c+d+e+f+g+h)^{60}",
    "x^{" * 45 + "2" + "}" * 45,
    r"\sqrt{1+(x+" * 10 + "1" + ")^{60}}" * 10,
    r"((1+\sqrt2+\sqrt3+\sqrt5+\sqrt7+\sqrt{11}+\sqrt{13}+\sqrt{17}))^{60}",
    r"\sqrt{" + "7" * 1500 + "}",
    r"\sqrt{" + "9" * 150 + "}",
    "(1+10^{-1000})^{64}",
    "0." + "1" * 1900,
    "1," * 900 + "1",
    "(x+1)^{1000000}",
    ",".join(rf"\sqrt{{{i}+\sqrt2}}" for i in range(60)),
    r"\sin(10^{300})",
    r"\tan\frac{\pi}{2}",
    r"\log 0",
    "e^{e^{e^{e^e}}}",
    r"\boxed{" * 10**5,
    "\x00",
    "\ud800",
    "\u2028",
    "\\",
    "answer" + " " * 10**5,
    "#" * 10**6,
    "$" * 1001,
    "|" * 999,
    "1e999999999",
]


@pytest.mark.parametrize("gold", ["5", r"x^2+1", r"\sin\frac{1}{2}"])
def test_hostile_strings_are_wrong_in_bounded_time(gold: str) -> None:
    math_equal("3", r"\log_2 8")  # the first worker's start is not what is measured
    for text in HOSTILE:
        start = time.monotonic()
        comparison = compare_answers(gold, text)
        normal_answer(text)
        last_number(text)
        assert comparison.verdict is Verdict.FAILED, text[:60]
        assert time.monotonic() - start < 10, text[:60]  # 0.7 s on an idle core at most; unbounded ones take hours


UNENDING = "2 + e^{e^{e^{e^{e}}}}"


def test_what_sympy_cannot_finish_is_a_timeout_and_the_next_answer_is_graded() -> None:
    start = time.monotonic()
    comparison = compare_answers("5", UNENDING)
    assert comparison.verdict is Verdict.TIMEOUT
    assert 3 <= time.monotonic() - start < 30
    assert math_equal(r"\frac{1}{2}", r"\cos 60^\circ")


def test_a_worker_killed_in_a_job_is_replaced() -> None:
    with ThreadPoolExecutor(1) as threads:
        before = set(POOL.worker_pids)
        job = threads.submit(compare_answers, "6", UNENDING)
        while not set(POOL.worker_pids) and not job.done():
            time.sleep(0.001)
        POOL.close()
        assert job.result().verdict is Verdict.TIMEOUT  # tried again on a new worker, and killed by the deadline there
    assert math_equal("2", r"\log_2 4")
    assert not before & set(POOL.worker_pids)


def test_without_a_worker_it_is_a_grader_error_and_never_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    POOL.close()
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    comparison = compare_answers("3", r"\log_3 27")
    assert comparison.verdict is Verdict.GRADER_ERROR
    assert "no worker could be started" in comparison.reason
    monkeypatch.undo()
    assert math_equal("3", r"\log_3 27")  # the failure was not kept


def test_from_sixteen_threads_and_asyncio() -> None:
    table = [(g, p, True) for g, p in EQUAL[:40]] + [(g, p, False) for g, p in DIFFERENT[:40]]
    hard = [("4", rf"\log_{{{k}}} {k**4}", True) for k in range(2, 12)]
    jobs = (table + hard) * 3
    random.Random(0).shuffle(jobs)
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(lambda job: math_equal(job[0], job[1]), jobs)) == [job[2] for job in jobs]

    async def all_at_once() -> list[bool]:
        return await asyncio.gather(*(asyncio.to_thread(math_equal, g, p) for g, p, _ in hard))

    assert asyncio.run(all_at_once()) == [True] * len(hard)
    assert len(POOL.worker_pids) <= 2


def test_compare_pairs_keeps_the_order_and_equals_one_by_one() -> None:
    predictions = [p for g, p in EQUAL + DIFFERENT if g == "5"] * 2 + [r"\log_2 32", r"\log_2 33", r"\log_3 243"]
    assert compare_pairs([("5", p) for p in predictions]) == [compare_answers("5", p) for p in predictions]
    assert compare_pairs([]) == []


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1} and \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed 2", "2"),
        (r"\boxed2", "2"),
        (r"\fbox{ x }", "x"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\text{a\}b}}", r"\text{a\}b}"),
        (r"\boxed{}", ""),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{5", None),
        (r"\boxed{1} \boxed{5", None),
        (r"\boxed", None),
        ("#### 42", None),
        ("The answer is 42", None),
        ("", None),
        (r"\boxedly{5}", None),
        (r"\boxed \frac{1}{2}", r"\frac"),
        (r"\boxed  {7}", "7"),
    ],
)
def test_extract_answer(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


ONE_ANSWER_SEVERAL_FORMS = {
    # found equal by sympy or by cross-multiplying
    r"\sqrt{2}-1",
    "x+1",
    r"\frac{1}{2}",
    "3",
    r"\sqrt{2}+1",
    "-1",
    r"\cos 2x",
    "y=2x+3",
    "2x - y + 3z + 8 = 0",
    "x+y>2",
    r"\text{VW}",
    # the same text up to the dash
    "5\u20137",
    "5-7",
    r"(-\infty,1)\cup(2,\infty)",
    "1:2",
    "A5_{11}",
}


def test_normal_forms_are_one_for_equal_answers() -> None:
    for gold, prediction in EQUAL:
        if gold not in ONE_ANSWER_SEVERAL_FORMS:
            assert normal_answer(gold) == normal_answer(prediction), (gold, prediction)
    assert len({normal_answer(text) for text in ("1,2", "(1,2)", "[1,2]", "[1,2)", "12", "1/2", "2021_3", "-1,2")}) == 8


NUMBERS = st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=10**6)


def written(value: Fraction, form: int) -> str:
    """One of several ways to write a fraction."""
    n, d = value.numerator, value.denominator
    return (
        f"{n}/{d}",
        rf"\frac{{{n}}}{{{d}}}",
        rf"\dfrac{{{3 * n}}}{{{3 * d}}}",
        rf"{n} \cdot {d}^{{-1}}",
        f"x = ({n})/({d})",
    )[form]


@settings(deadline=None)
@given(NUMBERS, NUMBERS, st.integers(0, 4), st.integers(0, 4))
def test_numbers_are_equal_as_fractions_are(a: Fraction, b: Fraction, form_a: int, form_b: int) -> None:
    assert math_equal(written(a, form_a), written(b, form_b)) == (a == b)
    assert math_equal(written(a, form_a), written(a, form_b))


@settings(deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9))
def test_decimals_are_exact(value: Any) -> None:
    exact = Fraction(value)
    assert math_equal(f"{value:f}", rf"\frac{{{exact.numerator}}}{{{exact.denominator}}}")
    assert not math_equal(f"{value:f}", f"{value:f}1" if "." in f"{value:f}" else f"{value:f}.1")


OPERATORS = st.sampled_from(["+", "-", r"\cdot ", "/"])


@settings(deadline=None)
@given(st.lists(st.integers(-99, 99), min_size=2, max_size=6), st.lists(OPERATORS, min_size=5, max_size=5))
def test_arithmetic_agrees_with_python(numbers: list[int], operators: list[str]) -> None:
    text, python = f"({numbers[0]})", f"Fraction({numbers[0]})"
    for number, operator in zip(numbers[1:], operators, strict=False):
        text, python = (
            f"{text}{operator}({number})",
            f"{python}{operator.strip().replace(chr(92) + 'cdot', '*')}Fraction({number})",
        )
    try:
        value = eval(python, {"Fraction": Fraction})  # our own text
    except ZeroDivisionError:
        assert not math_equal("0", text)
        return
    assert math_equal(f"{value.numerator}/{value.denominator}", text)
    assert not math_equal(f"{value.numerator + 1}/{value.denominator}", text)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=r"\{}()[]^_+-=*/!|&$%,.;:<>0123456789abeixyπ√ ", max_size=40))
def test_any_text_equals_itself_and_nothing_raises(text: str) -> None:
    assert math_equal(text, text) or "\\boxed" in text
    comparison = compare_answers("12345", text)
    assert comparison.verdict in (Verdict.PASSED, Verdict.FAILED, Verdict.TIMEOUT)
    assert isinstance(normal_answer(text), str)


def test_import_is_cheap() -> None:
    code = "import sys, bontune.grading, bontune.grading.answers.math_answer as m; assert m.math_equal('1/2', '0.5');"
    code += "assert not {'sympy', 'torch', 'math_verify'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert grading.math_equal is math_equal
    assert grading.extract_answer is extract_answer


def rows(*names: str) -> list[dict[str, Any]]:
    """The rows of data files, or a skip where they are absent."""
    found = []
    for name in names:
        raw = require(name).read_bytes()
        text = (gzip.decompress(raw) if name.endswith(".gz") else raw).decode()
        found += [json.loads(line) for line in text.splitlines()]
    return found


def test_every_answer_of_math_is_extracted_and_equals_itself() -> None:
    math_rows = rows("math_train_12000.jsonl.gz", "math_test_500.jsonl")
    assert len(math_rows) == 12_500
    start = time.process_time()
    for row in math_rows:
        assert math_equal(row["answer"], row["answer"])
        assert math_equal(row["answer"], row["solution"])
        assert extract_answer(row["solution"]) is not None
    assert time.process_time() - start < 20  # 0.2 s on an idle core: no worker is asked


def test_every_answer_of_gsm8k_is_extracted_and_equals_itself() -> None:
    for row in rows("gsm8k_train.jsonl.gz", "gsm8k_test.jsonl.gz"):
        gold = row["answer"].rpartition("####")[2].strip()
        assert math_equal(gold, str(last_number(row["answer"])))


def test_answers_of_math_differ_unless_their_normal_forms_agree() -> None:
    golds = sorted({row["answer"] for row in rows("math_train_12000.jsonl.gz", "math_test_500.jsonl")})
    rng = random.Random(0)
    pairs = [rng.sample(golds, 2) for _ in range(5_000)]
    by_form: dict[str, list[str]] = {}
    for gold in golds:
        by_form.setdefault(normal_answer(gold), []).append(gold)
    pairs += [list(pair) for group in by_form.values() for pair in itertools.combinations(group[:4], 2)]
    num_equal = 0
    for a, b in pairs:
        if r"\triangle" in a + b or r"\overline" in a + b or "!" in a + b:
            continue  # for a worker
        is_equal = math_equal(a, b)
        num_equal += is_equal
        if is_equal:
            assert normal_answer(a) == normal_answer(b)
        if not any("text" in text or "box" in text for text in (a, b)):
            assert math_equal(b, a) == is_equal  # the gold's own words may follow a gold only
    assert num_equal > 400
