"""Mechanical findings in one Python file, from its syntax tree; the code is never run."""

import ast

FINDINGS_MAX = 200
FUNCTIONS_MAX = 10
LINES_MAX = 70
ARGUMENTS_MAX = 7

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPES = (*_FUNCTIONS, ast.Lambda, ast.ClassDef)
_LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
_LOGGERS = {"log", "logger", "_log", "_logger", "logging"}
_BLOCKING = {"time.sleep", "requests.get", "requests.post", "requests.request", "subprocess.run",
             "subprocess.check_output", "subprocess.check_call", "urllib.request.urlopen", "os.system"}
_BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.Assert, ast.comprehension)


def review_python(arguments):
    source = arguments["source"]
    lines = source.count("\n") + bool(source and not source.endswith("\n"))
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        finding = _finding("syntax-error", "error", getattr(error, "lineno", None) or 1, f"does not parse: {error}")
        return {"findings": [finding], "omitted": 0, "functions": [], "lines": lines}
    review = _Review(arguments.get("complexity_max", 10))
    review.visit(tree)
    review.check_imports(tree)
    findings = sorted(review.findings, key=lambda finding: (finding["line"], finding["rule"]))
    functions = sorted(review.functions, key=lambda function: -function["complexity"])[:FUNCTIONS_MAX]
    return {
        "findings": findings[:FINDINGS_MAX],
        "omitted": max(0, len(findings) - FINDINGS_MAX),
        "functions": functions,
        "lines": lines,
    }


def _finding(rule, severity, line, message):
    return {"rule": rule, "severity": severity, "line": line, "message": message}


def _dotted(node):
    """`a.b.c` of a name or attribute, else an empty string."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(parts)])


def _own_nodes(function):
    """Nodes of a function without those of functions and classes inside it."""
    waiting = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, _SCOPES):
            waiting.extend(ast.iter_child_nodes(node))


def _complexity(function):
    count = 1
    for node in _own_nodes(function):
        if isinstance(node, _BRANCHES):
            count += 1 + len(getattr(node, "ifs", ()))
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.match_case):
            count += 1
    return count


class _Review(ast.NodeVisitor):
    def __init__(self, complexity_max):
        self.findings = []
        self.functions = []
        self._complexity_max = complexity_max
        self._in_async = False

    def _add(self, rule, severity, node, message):
        self.findings.append(_finding(rule, severity, node.lineno, message))

    # functions

    def visit_FunctionDef(self, node):
        self._function(node)

    def visit_AsyncFunctionDef(self, node):
        self._function(node)

    def visit_Lambda(self, node):
        self._defaults(node)
        self.generic_visit(node)

    def _function(self, node):
        complexity = _complexity(node)
        length = node.end_lineno - node.lineno + 1
        self.functions.append({"name": node.name, "line": node.lineno, "lines": length, "complexity": complexity})
        if complexity > self._complexity_max:
            self._add("complexity", "warning", node, f"{node.name} has a cyclomatic complexity of {complexity}")
        if length > LINES_MAX:
            self._add("too-long", "info", node, f"{node.name} has {length} lines")
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if len(arguments) > ARGUMENTS_MAX:
            self._add("too-many-arguments", "info", node, f"{node.name} takes {len(arguments)} arguments")
        self._defaults(node)
        self._unused_variables(node)
        before, self._in_async = self._in_async, isinstance(node, ast.AsyncFunctionDef)
        self.generic_visit(node)
        self._in_async = before

    def _defaults(self, node):
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            made = isinstance(default, ast.Call) and _dotted(default.func) in ("list", "dict", "set", "defaultdict")
            if made or isinstance(default, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
                self._add("mutable-default", "error", default, "one object is shared by all calls; use None")

    def _unused_variables(self, function):
        """Plain `x = ...` never read anywhere in the function, nested functions included."""
        outer, stored, read = set(), {}, set()
        for node in _own_nodes(function):
            if isinstance(node, ast.Global | ast.Nonlocal):
                outer.update(node.names)
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(target, ast.Name):
                        stored.setdefault(target.id, target)
        for node in ast.walk(function):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store):
                read.add(node.id)
            elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
                read.add(node.target.id)
            elif isinstance(node, ast.Nonlocal):
                read.update(node.names)
        uses_locals = "locals" in read
        for name, node in stored.items():
            if name not in read and name not in outer and not name.startswith("_") and not uses_locals:
                self._add("unused-variable", "warning", node, f"{name} is assigned and never read")

    # exceptions

    def visit_ExceptHandler(self, node):
        caught = _dotted(node.type) if node.type is not None else ""
        if node.type is None:
            self._add("bare-except", "error", node, "catches KeyboardInterrupt and SystemExit too; name the exception")
        if caught in ("", "Exception", "BaseException") and all(_does_nothing(part) for part in node.body):
            self._add("swallowed-exception", "error", node, "every error disappears here without a trace")
        self.generic_visit(node)

    # expressions and statements

    def visit_Call(self, node):
        name = _dotted(node.func)
        if name in ("eval", "exec"):
            self._add("eval-exec", "error", node, f"{name} runs whatever reaches it")
        owner, _, method = name.rpartition(".")
        if method in _LOG_METHODS and owner.rpartition(".")[2] in _LOGGERS:
            message = node.args[1:2] if method == "log" else node.args[:1]
            if message and isinstance(message[0], ast.JoinedStr):
                self._add("fstring-logging", "info", node, "pass values as arguments: the text stays groupable")
        if any(word.arg == "shell" and _is_true(word.value) for word in node.keywords):
            self._add("shell-true", "error", node, "a shell interprets the whole command; pass a list instead")
        if self._in_async and name in _BLOCKING:
            self._add("blocking-in-async", "error", node, f"{name} stops every other task of the event loop")
        self.generic_visit(node)

    def visit_Compare(self, node):
        sides = [node.left, *node.comparators]
        for operator, left, right in zip(node.ops, sides, sides[1:], strict=False):
            if isinstance(operator, ast.Eq | ast.NotEq) and (_is_none(left) or _is_none(right)):
                self._add("none-comparison", "warning", node, "compare with None by `is`")
            if isinstance(operator, ast.Is | ast.IsNot) and (_is_literal(left) or _is_literal(right)):
                self._add("is-literal", "error", node, "`is` compares identity; use == for values")
        self.generic_visit(node)

    def visit_Assert(self, node):
        if isinstance(node.test, ast.Tuple) and node.test.elts:
            self._add("assert-tuple", "error", node, "a tuple is always true; this assertion never fails")
        self.generic_visit(node)

    def visit_Dict(self, node):
        seen = set()
        for key in node.keys:
            if isinstance(key, ast.Constant):
                mark = (type(key.value), key.value)
                if mark in seen:
                    self._add("duplicate-key", "error", key, f"the key {key.value!r} stands twice; the last one wins")
                seen.add(mark)
        self.generic_visit(node)

    def generic_visit(self, node):
        for field in ("body", "orelse", "finalbody"):
            body = getattr(node, field, None)
            if isinstance(body, list):
                for statement, following in zip(body, body[1:], strict=False):
                    if isinstance(statement, ast.Return | ast.Raise | ast.Continue | ast.Break):
                        self._add("unreachable", "warning", following, "never reached")
                        break
        super().generic_visit(node)

    # imports

    def check_imports(self, tree):
        imported, used = {}, set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.asname is None or alias.asname != alias.name:  # `import x as x` re-exports
                        imported.setdefault((alias.asname or alias.name).split(".")[0], node)
            elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
                for alias in node.names:
                    if alias.name == "*":
                        self._add("star-import", "warning", node, "hides where names come from")
                    elif alias.asname is None or alias.asname != alias.name:
                        imported.setdefault(alias.asname or alias.name, node)
            elif isinstance(node, ast.Name):
                used.add(node.id)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                used.update(_names_in_text(node.value))  # __all__ and quoted annotations
        for name, node in imported.items():
            if name not in used:
                self._add("unused-import", "warning", node, f"{name} is imported and not used")


def _names_in_text(text):
    if len(text) > 200 or "\n" in text:
        return ()
    return "".join(c if c.isalnum() or c == "_" else " " for c in text).split()


def _does_nothing(statement):
    is_constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass | ast.Continue) or is_constant


def _is_none(node):
    return isinstance(node, ast.Constant) and node.value is None


def _is_true(node):
    return isinstance(node, ast.Constant) and node.value is True


def _is_literal(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes | int | float) and not isinstance(
        node.value, bool
    )
