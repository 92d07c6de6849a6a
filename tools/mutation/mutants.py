"""Generate the mutants of a file: mutmut's changes, where they alter what the program does."""

import difflib
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import deep_replace
from mutmut.mutation.mutators import mutation_operators, operator_string

LOGGING = {"print", "print_log", "warn", "debug", "info", "warning", "exception"}
"""Calls whose only effect is a message."""
EXCLUDED_CALLS = LOGGING | {"len", "isinstance", "cast", "TypeVar", "NewType"}
"""Calls that are not mutated, nor are their arguments."""

OPERATORS = sorted({operator.__name__.removeprefix("operator_") for _, operator in mutation_operators})
"""Names of mutmut's operators."""


@dataclass
class Mutant:
    """One change of one file.

    ``candidate_lines`` says which tests can notice it: those that execute a line of the first set; if no test does, those
    that execute a line of the second set, and so on. A mutant within a function has one set, its statement.
    """

    file: str
    line: int
    candidate_lines: list[set[int]]
    before: cst.CSTNode
    after: cst.CSTNode
    module: cst.Module = field(repr=False)
    operator: str
    id: str

    def code(self) -> str:
        """Return the mutated file."""
        return deep_replace(self.module, self.before, self.after).code

    def diff(self) -> str:
        """Return the lines that differ, as "before -> after"."""
        lines = list(difflib.ndiff(self.module.code.splitlines(), self.code().splitlines()))
        return " -> ".join(" ".join(line[2:].strip() for line in lines if line[0] == sign) for sign in "-+")

    def is_valid(self) -> bool:
        """Tell whether the mutated file compiles and differs from the original."""
        try:
            compile(self.code(), self.file, "exec")
        except SyntaxError:
            return False
        return self.code() != self.module.code


def is_excluded(node: cst.CSTNode) -> bool:
    """Tell whether a node is a type, a docstring, a message, an import or a decorator: these are not mutated."""
    match node:
        case cst.Annotation() | cst.Decorator() | cst.Raise() | cst.Import() | cst.ImportFrom():
            return True
        case cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString()):
            return True
        case cst.Assign(targets=[cst.AssignTarget(target=cst.Name(value="__all__"))]):
            return True
        case cst.Call(func=cst.Name(value=name) | cst.Attribute(attr=cst.Name(value=name))):
            return name in EXCLUDED_CALLS or name.endswith(("Error", "Warning"))
    return False


class MutantFinder(cst.CSTVisitor):
    """Collect (node, changed node, line, candidate lines, operator) for all mutants of a module."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        self.found: list[tuple[cst.CSTNode, cst.CSTNode, int, list[set[int]], str]] = []
        self.body_lines: set[int] = set()  # of functions; all other lines run on import
        self._bodies: set[cst.CSTNode] = set()
        self._depth = 0  # of function bodies
        self._scopes: list[set[int]] = []
        self._statements: list[set[int]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Track functions, classes and statements, and mutate the node."""
        if is_excluded(node):
            return False
        if isinstance(node, cst.Assert):  # without its message
            node.test.visit(self)
            return False
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._scopes.append(self._lines(node))
        if isinstance(node, cst.FunctionDef):
            self._bodies.add(node.body)
        if isinstance(node, cst.BaseStatement):
            has_body = isinstance(node, cst.BaseCompoundStatement) and hasattr(node, "body")
            self._statements.append(self._lines(node) - self._lines(node.body) if has_body else self._lines(node))
        if node in self._bodies:
            self._depth += 1
            self.body_lines |= self._lines(node)
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                self._mutate(node, operator)
        return True

    def on_leave(self, node: cst.CSTNode) -> None:
        """Undo what :meth:`on_visit` tracked."""
        if is_excluded(node) or isinstance(node, cst.Assert):
            return
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._scopes.pop()
        if isinstance(node, cst.BaseStatement):
            self._statements.pop()
        if node in self._bodies:
            self._depth -= 1

    def _lines(self, node: cst.CSTNode) -> set[int]:
        position = self.get_metadata(PositionProvider, node)
        return set(range(position.start.line, position.end.line + 1))

    def _mutate(self, node: cst.CSTNode, operator: Callable[[cst.CSTNode], Iterable[cst.CSTNode]]) -> None:
        position = self.get_metadata(PositionProvider, node, None)
        if position is None:
            return
        line = position.start.line
        changed = list(operator(node))
        if operator is operator_string and changed:  # not a sentence, and once: mutmut changes the case of letters, too
            changed = [] if " " in node.value else changed[:1]
        candidates = [self._statements[-1] | {line}] if self._depth else self._scopes[::-1]
        name = operator.__name__.removeprefix("operator_")
        self.found += [(node, after, line, candidates, name) for after in changed]


def find_mutants(root: Path, file: str) -> Iterator[Mutant]:
    """Yield all mutants of a file."""
    wrapper = MetadataWrapper(cst.parse_module((root / file).read_text()))
    finder = MutantFinder()
    wrapper.visit(finder)
    module, text = wrapper.module, wrapper.module.code.splitlines()
    for before, after, line, candidates, operator in finder.found:
        old, new = (re.sub(r",\s*strict=\w+", "", module.code_for_node(node)) for node in (before, after))
        if old == new:  # strict=True of zip is an assertion
            continue
        candidates = [lines & finder.body_lines for lines in candidates] or [finder.body_lines]
        yield Mutant(
            file, line, candidates, before, after, module, operator, id=f"{text[line - 1].strip()}|{old}|{new}"
        )


def draw_sample(
    mutants: Iterable[Mutant], count: int | None, seed: int, operators: Sequence[str] | None = None
) -> list[Mutant]:
    """Draw mutants by a hash of their change, so that renaming or moving files does not change the sample.

    A larger sample contains the smaller ones of its seed.
    """
    seen: Counter[str] = Counter()
    drawn = []
    for mutant in mutants:
        seen[mutant.id] += 1
        mutant.id = hashlib.sha256(f"{seed}|{seen[mutant.id]}|{mutant.id}".encode()).hexdigest()[:12]
        if operators is None or mutant.operator in operators:
            drawn.append(mutant)
    drawn.sort(key=lambda mutant: mutant.id)
    return list(islice((mutant for mutant in drawn if mutant.is_valid()), count))
