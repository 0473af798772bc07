r"""Read LaTeX as models write it into tokens, and these into an expression tree, with limits and without ``eval``.

    sum      := ["+"|"-"] product (("+"|"-") product)*
    product  := power (("*"|"\cdot"|"\times"|"/"|"\div"| nothing) power)*     left to right, equal precedence
    power    := primary ("!" | "^\circ" | "%")* ["^" argument]
    primary  := number | letter | \frac… | \sqrt… | \binom… | function | "(" sum ")" | "|" sum "|" | …

The grammar is stricter than TeX where a reader could be misled: a number cannot follow a factor without an operator
(``2 3``, ``\sqrt{2}3``), except for mixed numbers. What is not in the grammar raises ``Unreadable``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bontune.grading.answers.units import is_unit
from bontune.grading.answers.values import Tree

MAX_LENGTH = 2_000
MAX_TOKENS = 1_000

_TOKEN = re.compile(
    r"(?P<space> +)"
    r"|(?P<degree>\^ *(?:\\circ(?![A-Za-z])|\{ *\\circ *\})|\\degree(?![A-Za-z]))"
    r"|(?P<number>[0-9]+\.(?=\\(?:overline|bar))|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    r"|\\(?:text(?:bf|rm|it|sf|normal|tt|up|md|sl|sc)?|emph|mbox|mathrm|mathnormal|mathbf|mathit|mathsf|operatorname\*?)\s*\{(?P<text>[^{}\\$]*)\}"
    r"|(?P<command>\\[A-Za-z]+)"
    r"|(?P<escaped>\\.)"
    r"|(?P<word>(?<![A-Za-z])[A-Za-z]{2,}(?![A-Za-z]))"
    r"|(?P<letter>[A-Za-z])"
    r"|(?P<symbol>[-+*/^_(){}\[\]|!,;:=<>'%$&.])",
    re.ASCII | re.DOTALL,
)
_PLAIN_WORD = re.compile(r"(?!abcd|wxyz)[A-Za-z][a-z]+|[A-Z]{5,}")
_CHOICE = re.compile(r"\([A-Z]\)\.?|[A-Z]\.?")
_CHOICES = re.compile(r"[A-Za-z]+(?:, ?[A-Za-z]+)+")
_FUNCTION_NAMES = "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln exp log lg asin acos atan"
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_UNEVALUATED_NAMES = r"\sum \int \iint \oint \prod \lim \limsup \liminf \max \min \sup \inf \det \gcd \lcm"
UNEVALUATED = frozenset(_UNEVALUATED_NAMES.split())
"""Operators whose result was asked for: an answer that holds one restates its problem."""
DEGREE = r"^\circ"
"""Text of the one token that ``^\\circ``, ``^{\\circ}`` and ``\\degree`` become."""


class Unreadable(ValueError):
    """The text is not in the grammar; the message is one phrase for people."""


class UnknownNotation(Unreadable):
    """A LaTeX command that the grammar does not know, in a text that is otherwise in order so far."""


@dataclass(frozen=True, slots=True)
class Token:
    """One piece of an answer."""

    kind: str
    """number, text, command, letter or symbol."""
    text: str
    """Text as it is written; for words the content of ``\\text{…}``; for numbers the digits."""
    has_space: bool = False
    """Whether a space came before."""


def tokens_of(text: str) -> list[Token]:
    """Split a cleaned answer.

    Raises:
        Unreadable: a character is outside the grammar (as digits of other scripts are), or the text is too long.
    """
    if len(text) > MAX_LENGTH:
        raise Unreadable(f"{len(text)} characters, more than {MAX_LENGTH}")
    tokens: list[Token] = []
    position, has_space = 0, False
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise Unreadable(f"{text[position]!a} is not in the grammar")
        position = match.end()
        kind = str(match.lastgroup)
        if kind == "space":
            has_space = True
            continue
        tokens += _refined(kind, match[kind], has_space)
        has_space = False
    if len(tokens) > MAX_TOKENS:
        raise Unreadable(f"more than {MAX_TOKENS} tokens")
    return tokens


def _refined(kind: str, text: str, has_space: bool) -> list[Token]:
    if kind == "word":
        if text in ("and", "or") or is_unit(text) or (len(text) > 3 and _PLAIN_WORD.fullmatch(text)):
            return [Token("text", text, has_space)]
        return [Token("letter", letter, has_space and i == 0) for i, letter in enumerate(text)]
    if kind == "text":
        inner = text.strip()
        if inner in (", and", ", or"):
            return [Token("symbol", ",")]
        if _CHOICE.fullmatch(inner):
            return [Token("letter", inner.strip("()."), has_space)]
        if _CHOICES.fullmatch(inner):
            parts = [_refined("text", part, has_space) for part in inner.split(",")]
            return [token for i, part in enumerate(parts) for token in ([Token("symbol", ",")] * (i > 0) + part)]
        if re.fullmatch(
            r"[-+0-9., ()]*[0-9][-+0-9., ()]*|[A-Za-z]", inner
        ):  # \mathbf{42} and \mathrm{e} are mathematics
            return [Token(t.kind, t.text, t.has_space or i == 0) for i, t in enumerate(tokens_of(inner))]
        if inner in FUNCTIONS:
            return [Token("command", "\\" + inner, has_space)]
        return [Token("text", inner, True)] if inner else []
    if kind == "escaped":
        return [Token("command", text, has_space)]
    if kind == "degree":
        return [Token("symbol", DEGREE)]
    return [Token(kind, text, has_space)]


MAX_DEPTH = 50

_GREEK_NAMES = (
    r"\alpha \beta \gamma \delta \epsilon \varepsilon \zeta \eta \theta \vartheta \iota \kappa \lambda \mu \nu \xi \rho"
    r" \sigma \tau \upsilon \phi \varphi \chi \psi \omega \Gamma \Delta \Theta \Lambda \Sigma \Phi \Psi \Omega \ell"
)
_GREEK = frozenset(_GREEK_NAMES.split())
_SYNONYMS = {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}
_NO_FACTOR_NAMES = r"\} \rfloor \rceil \rvert \% \$ \\ \pm \mp \cup \cap"
_NO_FACTORS = frozenset(_NO_FACTOR_NAMES.split())
"""Commands that begin no factor of a product."""
_MINUS_ONE = ("mul", ("num", "-1"), ("num", "1"))
_CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}


def read_expression(tokens: list[Token]) -> Tree:
    """Read all of the tokens as one expression.

    Raises:
        Unreadable: the tokens are no expression, or are nested too deeply.
    """
    parser = _Parser(tokens)
    tree = parser.sum()
    if parser.position < len(parser.tokens):
        raise Unreadable(f"{parser.peek()!r} where an operator or the end is expected")
    return tree


class _Parser:
    """A recursive-descent parser; the depth counts every level that the tree gains."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = list(tokens)
        self.position = 0
        self.depth = 0

    def peek(self) -> str:
        return "" if self.kind() in ("text", "end") else self.tokens[self.position].text

    def kind(self) -> str:
        return self.tokens[self.position].kind if self.position < len(self.tokens) else "end"

    def take(self) -> Token:
        if self.position >= len(self.tokens):
            raise Unreadable("it ends too early")
        self.position += 1
        return self.tokens[self.position - 1]

    def expect(self, text: str) -> None:
        if self.peek() != text:
            raise Unreadable(f"{text!r} expected, found {self.peek()!r}")
        self.position += 1

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable(f"nested more than {MAX_DEPTH} deep")

    def sum(self) -> Tree:
        self.deeper()
        terms: list[Tree] = []
        while True:
            is_negative = self.peek() == "-"
            if self.peek() in ("+", "-"):
                self.take()
            elif terms:
                break
            term = self.product()
            terms.append(("mul", ("num", "-1"), term) if is_negative else term)
        self.depth -= 1
        return terms[0] if len(terms) == 1 else ("add", *terms)

    def product(self) -> Tree:
        factors = [self.power()]
        while True:
            operator = self.peek()
            if operator in ("*", r"\cdot", r"\times", r"\ast"):
                self.take()
                factors.append(self.signed_power())
            elif operator in ("/", r"\div"):
                self.take()
                self.deeper()  # a chain of divisions nests to the left
                factors = [("div", factors[0] if len(factors) == 1 else ("mul", *factors), self.signed_power())]
            elif self.starts_factor():
                factors.append(self.power())
            else:
                break
        return factors[0] if len(factors) == 1 else ("mul", *factors)

    def starts_factor(self) -> bool:
        kind, text = self.kind(), self.peek()
        if kind == "letter":
            return True
        if kind == "command":
            return text not in _NO_FACTORS
        return text in ("(", "[") or (text == "{" and kind == "symbol")

    def signed_power(self) -> Tree:
        if self.peek() == "-":
            self.take()
            return ("mul", ("num", "-1"), self.power())
        return self.power()

    def power(self) -> Tree:
        base = self.postfixed(self.primary())
        if self.peek() != "^":
            return base
        self.take()
        self.deeper()
        exponent = self.exponent()
        self.depth -= 1
        if self.peek() == "^":
            raise Unreadable("two exponents in a row")
        return self.postfixed(("pow", base, exponent))

    def postfixed(self, tree: Tree) -> Tree:
        while True:
            if self.peek() == "!":
                self.take()
                if tree[0] == "fact":
                    raise Unreadable("a repeated factorial")
                tree = ("fact", tree)
            elif self.peek() == DEGREE:
                self.take()
                return ("mul", tree, ("div", ("const", "pi"), ("num", "180")))
            else:
                return tree

    def exponent(self) -> Tree:
        if self.peek() == "-":
            self.take()
            return ("mul", ("num", "-1"), self.exponent_or_radicand(whole_number=True))
        return self.exponent_or_radicand(whole_number=True)

    def exponent_or_radicand(self, *, whole_number: bool = False) -> Tree:
        """Read an exponent or a radicand, which models also write in round brackets."""
        if self.peek() == "(" and self.kind() == "symbol":
            return self.group("(")
        return self.argument(whole_number=whole_number)

    def argument(self, *, whole_number: bool = False) -> Tree:
        """Read the argument of a command: a group, one digit (TeX's rule) or one command."""
        if self.peek() == "{" and self.kind() == "symbol":
            return self.group("{")
        if self.kind() == "number" and not whole_number:
            token = self.take()
            if not token.text[0].isdigit():
                raise Unreadable("a decimal without braces")
            if len(token.text) > 1:
                self.position -= 1
                self.tokens[self.position] = Token("number", token.text[1:])
                if token.text[1] == ".":
                    raise Unreadable("a decimal without braces")
            return ("num", token.text[0])
        if self.kind() == "number":
            return ("num", self.take().text)
        if self.kind() in ("letter", "command"):
            return self.primary()
        raise Unreadable(f"an argument expected, found {self.peek()!r}")

    def group(self, opening: str) -> Tree:
        self.expect(opening)
        tree = self.sum()
        self.expect(_CLOSING[opening])
        return tree

    def primary(self) -> Tree:
        kind = self.kind()
        if kind == "number":
            return self.number()
        if kind == "letter":
            return self.letter(self.take().text)
        if kind == "symbol" and self.peek() in ("(", "[", "{"):
            return self.group(self.peek())
        if kind == "symbol" and self.peek() == "|":
            return self.between("|", "|", "abs")
        if kind == "command":
            self.deeper()
            tree = self.command()
            self.depth -= 1
            return tree
        if kind == "text":
            raise Unreadable("words among the numbers")
        raise Unreadable(f"{self.peek()!r} where a value is expected" if kind != "end" else "it ends too early")

    def between(self, opening: str, closing: str, name: str) -> Tree:
        self.expect(opening)
        inner = self.sum()
        self.expect(closing)
        return ("fn", name, inner)

    def number(self) -> Tree:
        whole = self.take().text
        if self.peek() == "_":
            raise Unreadable("a subscript of a number")
        repeating = self.repeating(whole)
        if repeating is not None:
            return repeating
        if "." not in whole and self.peek() == r"\frac":
            mixed = self.mixed(whole)
            if mixed is not None:
                return mixed
        if self.kind() == "number":
            texts = [token.text for token in self.tokens[self.position : self.position + 3]]
            if len(texts) == 3 and texts[1] == "/" and self.tokens[self.position].has_space:  # 1 2/3
                top, bottom = texts[0], texts[2]
                if (whole + top + bottom).isdigit() and int(top) < int(bottom):
                    self.position += 3
                    return ("add", ("num", whole), ("div", ("num", top), ("num", bottom)))
            raise Unreadable("two numbers in a row")
        return ("num", whole)

    def mixed(self, whole: str) -> Tree | None:
        """The value of ``1\\frac{2}{3}``: a natural number before a proper fraction of natural numbers.

        None stands for a product; nothing is taken then.
        """
        start, tokens = self.position, list(self.tokens)
        self.take()
        try:
            top, bottom = self.argument(), self.argument()
        except Unreadable:
            top = bottom = ("none",)
        if top[0] == bottom[0] == "num" and top[1].isdigit() and bottom[1].isdigit() and int(top[1]) < int(bottom[1]):
            return ("add", ("num", whole), ("div", top, bottom))
        self.position, self.tokens = start, tokens
        return None

    def repeating(self, whole: str) -> Tree | None:
        r"""The value of ``0.1\overline{6}``, whose last digits repeat; None where no bar follows."""
        if self.peek() not in (r"\overline", r"\bar"):
            return None
        if "." not in whole:
            raise Unreadable("a bar over digits without a decimal point")
        self.take()
        self.expect("{")
        period = self.take().text
        self.expect("}")
        if not period.isdigit():
            raise Unreadable("a bar over what are no digits")
        decimals = len(whole.partition(".")[2])
        scale = 10**decimals * (10 ** len(period) - 1)
        return ("add", ("num", whole.rstrip(".")), ("div", ("num", period), ("num", str(scale))))

    def letter(self, name: str) -> Tree:
        if name in ("e", "i") and self.peek() not in ("_", "'"):
            return ("const", name)
        if self.peek() == "_":
            self.take()
            if self.peek() == "{" and self.kind() == "symbol":
                self.take()
                parts = []
                while self.kind() in ("letter", "number", "text"):
                    parts.append(self.take().text)
                self.expect("}")
                name += "_" + "".join(parts)
            elif self.kind() in ("letter", "number"):
                name += "_" + self.take().text
            else:
                raise Unreadable("a subscript that is no name")
        while self.peek() == "'":
            self.take()
            name += "'"
        return ("var", name)

    def command(self) -> Tree:
        name = self.take().text
        if name == r"\frac":
            return ("div", self.argument(), self.argument())
        if name == r"\sqrt":
            return self.root()
        if name in (r"\binom", r"\tbinom", r"\dbinom"):
            return ("binom", self.argument(), self.argument())
        if name == r"\pi":
            return ("const", "pi")
        if name == r"\infty":
            return ("const", "inf")
        if name in _GREEK:
            return self.letter(name)
        if name[1:] in FUNCTIONS:
            return self.function(name[1:])
        if name in (r"\lfloor", r"\lceil"):
            self.position -= 1
            return self.between(name, _CLOSING[name], "ceil" if name == r"\lceil" else "floor")
        if name in (r"\lvert", r"\vert"):
            self.position -= 1
            return self.between(name, {r"\lvert": r"\rvert", r"\vert": r"\vert"}[name], "abs")
        if name in UNEVALUATED:
            raise Unreadable(f"{name} left to be computed")
        raise UnknownNotation(f"{name} is not in the grammar")

    def root(self) -> Tree:
        degree = 2
        if self.peek() == "[":
            self.take()
            token = self.take()
            if not (token.kind == "number" and token.text.isdigit() and 2 <= int(token.text[:6]) <= 1000):
                raise Unreadable("a root that is no number from 2 to 1000")
            degree = int(token.text)
            self.expect("]")
        return ("root", self.exponent_or_radicand(), degree)

    def function(self, name: str) -> Tree:
        name = _SYNONYMS.get(name, name)
        base: Tree | None = None
        power: Tree | None = None
        if name in ("log", "lg") and self.peek() == "_":
            self.take()
            base = self.argument(whole_number=True)
        if self.peek() == "^":
            self.take()
            power = self.exponent()
            if power == _MINUS_ONE and name in ("sin", "cos", "tan"):  # the inverse function, and no reciprocal
                name, power = "arc" + name, None
            elif power[0] == "mul":
                raise Unreadable("a negative exponent of a function")
        inner = self.function_argument()
        if name == "exp":
            tree: Tree = ("pow", ("const", "e"), inner)
        elif name in ("log", "lg"):
            tree = ("log", base or ("num", "10"), inner)
        else:
            tree = ("fn", name, inner)
        return ("pow", tree, power) if power is not None else tree

    def function_argument(self) -> Tree:
        """Read parentheses, or the factors up to the next function, sign or operator: ``\\sin 2x``."""
        if self.peek() in ("(", "[", "{", "|"):
            return self.power()
        factors = [self.power()]
        while self.starts_factor() and self.peek()[1:] not in FUNCTIONS and self.peek() not in ("(", "["):
            factors.append(self.power())
        return factors[0] if len(factors) == 1 else ("mul", *factors)
