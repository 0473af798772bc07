"""How a question is put to a model: a text to continue or a conversation, with worked examples if you like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bontune.base.problems import Message


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A worked example that a prompt shows before the question."""

    question: str
    """Question, as a row has it."""
    working: str
    """The steps, without the final answer."""
    answer: str
    """The final answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wording:
    """The words around a question."""

    preamble: str
    """Before a text without worked examples: what is wanted."""
    question: str
    """Before each question of a text."""
    solution: str
    """Between question and solution of a text. No white space at its end: tokenizers put it into the next token."""
    closing: str
    """A worked example's last words in a text; ``ANSWER`` stands for its answer."""
    request: str
    """After each question of a conversation: what is wanted."""
    chat_closing: str
    """A worked example's last words in a conversation."""
    stop: tuple[str, ...]
    """Strings that end a continued text."""

    def text(self, question: str, examples: Sequence[Example] = ()) -> str:
        """A text whose continuation is a solution."""
        parts = [] if examples else [self.preamble]
        parts += [
            f"{self.question}{example.question}{self.solution} {_closed(example, self.closing)}" for example in examples
        ]
        return "\n\n".join([*parts, f"{self.question}{question}{self.solution}"])

    def question_in(self, text: str) -> str:
        """Return the question in a text without worked examples; a text of other words as it is."""
        return text.rpartition(self.question)[2].removesuffix(self.solution)

    def messages(self, question: str, examples: Sequence[Example] = ()) -> tuple[Message, ...]:
        """A conversation whose next turn is a solution. It has no system turn: some templates refuse one."""
        turns: list[Message] = []
        for example in examples:
            turns.append({"role": "user", "content": f"{example.question}\n\n{self.request}"})
            turns.append({"role": "assistant", "content": _closed(example, self.chat_closing)})
        return (*turns, {"role": "user", "content": f"{question}\n\n{self.request}"})


def offered(text: str, messages: tuple[Message, ...], form: str) -> tuple[str, tuple[Message, ...]]:
    """The prompt and the messages of a problem in the form that is wanted.

    Args:
        text: to continue.
        messages: the same as a conversation.
        form: ``auto``: both; ``base``: the text alone; ``chat``: the conversation, and its words as the text.

    Example:
        >>> offered("Q: 1+1\\nA:", ({"role": "user", "content": "What is 1+1?"},), "chat")[0]
        'What is 1+1?'
    """
    if form == "base":
        return text, ()
    if form == "chat":
        return "\n\n".join(message["content"] for message in messages), messages
    return text, messages


def _closed(example: Example, closing: str) -> str:
    return example.working + closing.replace("ANSWER", example.answer)


MATH_WORDING = Wording(
    preamble="Solve the problem step by step. End with the final answer in \\boxed{}.",
    question="Problem:\n",
    solution="\n\nSolution:",
    closing=" The final answer is $\\boxed{ANSWER}$.",
    request="Reason step by step, and put the final answer in \\boxed{}.",
    chat_closing=" The final answer is $\\boxed{ANSWER}$.",
    stop=("\nProblem:",),
)
GSM8K_WORDING = Wording(
    preamble="Solve the problem step by step. End with a line that holds #### and the answer as a number.",
    question="Question: ",
    solution="\nAnswer:",
    closing="\n#### ANSWER",
    request="Reason step by step, and put the final answer as a number in \\boxed{}.",
    chat_closing=" The final answer is $\\boxed{ANSWER}$.",
    stop=("\nQuestion:",),
)
EQUATIONS_WORDING = Wording(
    preamble="Solve the problem with equations, one in each line.",
    question="Problem: ",
    solution="\nEquations:",
    closing="",
    request="Answer with equations only.",
    chat_closing="",
    stop=("\nProblem:", "\n\n"),
)

MATH_EXAMPLES = (
    Example(
        question="A line goes through $(1,5)$ and $(4,-1)$. At which value of $x$ does it meet the $x$-axis?",
        working="The slope is $\\frac{-1-5}{4-1} = -2$, so the line is $y = 5 - 2(x - 1) = 7 - 2x$. "
        "It meets the $x$-axis where $7 - 2x = 0$, which is $x = \\frac{7}{2}$.",
        answer="\\frac{7}{2}",
    ),
    Example(
        question="Solve $x^2 - 4x - 21 < 0$. Write the solution in interval notation.",
        working="The left side factors as $(x - 7)(x + 3)$, which is zero at $x = 7$ and $x = -3$. "
        "The parabola opens upward, so it is negative between its zeros.",
        answer="(-3,7)",
    ),
    Example(
        question="Three people are chosen from five teachers and four students. How many of the choices include at "
        "least one student?",
        working="There are $\\binom{9}{3} = 84$ choices in all. Those without a student take three of the five "
        "teachers: $\\binom{5}{3} = 10$. That leaves $84 - 10 = 74$.",
        answer="74",
    ),
    Example(
        question="The legs of a right triangle are $6$ and $10$ long. How long is its hypotenuse, in simplest radical "
        "form?",
        working="By the Pythagorean theorem the square of the hypotenuse is $6^2 + 10^2 = 136 = 4 \\cdot 34$. "
        "Its length is $\\sqrt{136} = 2\\sqrt{34}$.",
        answer="2\\sqrt{34}",
    ),
)

GSM8K_EXAMPLES = (
    Example(
        question="A bakery packs 6 rolls into a bag and sells the bag for $4. On Saturday it sold 54 rolls. How many "
        "dollars did it take in for them?",
        working="54 rolls fill 54 / 6 = 9 bags. Nine bags bring in 9 * 4 = 36 dollars.",
        answer="36",
    ),
    Example(
        question="Nadia read 18 pages on Monday, twice as many on Tuesday, and on Wednesday 10 fewer than on Tuesday. "
        "How many pages did she read in these three days?",
        working="On Tuesday she read 2 * 18 = 36 pages and on Wednesday 36 - 10 = 26. "
        "Together that makes 18 + 36 + 26 = 80 pages.",
        answer="80",
    ),
    Example(
        question="A tank for 240 liters is three quarters full. A pump takes out 12 liters a minute. After how many "
        "minutes is the tank empty?",
        working="The tank holds 240 * 3 / 4 = 180 liters. The pump needs 180 / 12 = 15 minutes.",
        answer="15",
    ),
    Example(
        question="Omar earns $15 for each of the first 40 hours of a week and one and a half times as much for every "
        "hour beyond them. How many dollars does he earn in a week of 46 hours?",
        working="The first 40 hours earn 40 * 15 = 600 dollars. A further hour earns 15 * 1.5 = 22.5 dollars, and "
        "6 of them earn 6 * 22.5 = 135. In all he earns 600 + 135 = 735 dollars.",
        answer="735",
    ),
    Example(
        question="A school buys 7 boxes of 24 pencils and gives 3 pencils to each of its 45 pupils. How many pencils "
        "are left?",
        working="It buys 7 * 24 = 168 pencils and gives away 45 * 3 = 135. So 168 - 135 = 33 are left.",
        answer="33",
    ),
    Example(
        question="Three friends take a taxi for $27 and add a tip of $6. They share the cost evenly. How many dollars "
        "does each of them pay?",
        working="They pay 27 + 6 = 33 dollars together, so each pays 33 / 3 = 11 dollars.",
        answer="11",
    ),
    Example(
        question="A train travels 90 kilometers in its first hour and 20% farther in its second. How many kilometers "
        "does it travel in the two hours?",
        working="In the second hour it travels 90 * 1.2 = 108 kilometers. Together that makes 90 + 108 = 198.",
        answer="198",
    ),
    Example(
        question="Lena has five times as many stickers as Ivo. Together they have 72. How many does Lena have?",
        working="Together they have 5 + 1 = 6 equal parts, so a part is 72 / 6 = 12 stickers. "
        "Lena has 5 * 12 = 60 of them.",
        answer="60",
    ),
)
