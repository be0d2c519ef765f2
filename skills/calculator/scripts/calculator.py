"""Exact arithmetic on fractions: parsed by Python's own parser, evaluated by a whitelist.

Nothing is executed. Every intermediate value is bounded in bits, and so is the result of a
power or factorial before it is computed, so that no expression can take long.
"""

import ast
import math
import re
from decimal import Context, Decimal, DecimalException
from fractions import Fraction

import numbers_text

BITS_MAX = 20_000
FACTORIAL_MAX = 1500
DEPTH_MAX = 100
WORKING_DIGITS = 50

# 15% directly after a digit and before an operator or the end; with a space before it is a remainder
_PERCENT = re.compile(r"(\d)%(?=\s*(?:$|[)*/+,-]))")
_NUMBER = re.compile(r"(?<![A-Za-z_0-9.])(?:\d[\d_]*\.?[\d_]*|\.\d+)(?:[eE][+-]?\d+)?")
_PI = Fraction("3.14159265358979323846264338327950288419716939937510582")
_E = Fraction("2.71828182845904523536028747135266249775724709369995957")


class _Evaluation:
    def __init__(self):
        self.exact = True

    def run(self, node, depth=0):
        if depth > DEPTH_MAX:
            raise ValueError("the expression is nested too deeply")
        value = self._value(node, depth + 1)
        if value.numerator.bit_length() > BITS_MAX or value.denominator.bit_length() > BITS_MAX:
            raise ValueError("the numbers become too large")
        return value

    def _value(self, node, depth):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return numbers_text.parse(node.value)
        if isinstance(node, ast.Name) and node.id in ("pi", "e"):
            self.exact = False
            return _PI if node.id == "pi" else _E
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            value = self.run(node.operand, depth)
            return -value if isinstance(node.op, ast.USub) else value
        if isinstance(node, ast.BinOp):
            return self._binary(node, depth)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self._call(node.func.id, [self.run(argument, depth) for argument in node.args])
        raise ValueError(f"not arithmetic: {type(node).__name__}")

    def _binary(self, node, depth):
        left, right = self.run(node.left, depth), self.run(node.right, depth)
        operator = type(node.op)
        if operator in (ast.Div, ast.FloorDiv, ast.Mod) and right == 0:
            raise ZeroDivisionError("division by zero")
        if operator is ast.Pow:
            return self._power(left, right)
        operations = {
            ast.Add: lambda: left + right,
            ast.Sub: lambda: left - right,
            ast.Mult: lambda: left * right,
            ast.Div: lambda: left / right,
            ast.FloorDiv: lambda: Fraction(left // right),
            ast.Mod: lambda: left % right,
        }
        if operator not in operations:
            raise ValueError(f"no such operator: {operator.__name__}")
        return operations[operator]()

    def _power(self, base, exponent):
        if exponent.denominator == 1:
            if base == 0 and exponent < 0:
                raise ZeroDivisionError("zero to a negative power")
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if abs(base) not in (0, 1) and bits * abs(exponent) > BITS_MAX:
                raise ValueError("the power is too large")
            # 0, 1 and -1 stay small at any exponent
            small = exponent if abs(base) not in (0, 1) else exponent % 2 + 2 * (exponent != 0)
            return Fraction(base ** int(small))
        if base < 0:
            raise ValueError("a negative number has no real power with a fraction")
        if exponent == Fraction(1, 2):
            return self._sqrt(base)
        self.exact = False
        return _decimal(lambda context: context.power(_as_decimal(base), _as_decimal(exponent)))

    def _sqrt(self, value):
        if value < 0:
            raise ValueError("a negative number has no real square root")
        top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
        if top * top == value.numerator and bottom * bottom == value.denominator:
            return Fraction(top, bottom)
        self.exact = False
        return _decimal(lambda context: context.sqrt(_as_decimal(value)))

    def _call(self, name, arguments):
        many = {"min": min, "max": max, "sum": sum}
        if name in many and arguments:
            return Fraction(many[name](arguments))
        if name in ("gcd", "lcm") and arguments:
            return Fraction(getattr(math, name)(*(_whole(value, name) for value in arguments)))
        if name == "round" and len(arguments) in (1, 2):
            return _round(arguments[0], _whole(arguments[1], name) if len(arguments) == 2 else 0)
        if len(arguments) != 1:
            raise ValueError(f"{name} does not take {len(arguments)} arguments, or is not a function here")
        (value,) = arguments
        exact = {"abs": abs, "ceil": math.ceil, "floor": math.floor}
        if name in exact:
            return Fraction(exact[name](value))
        if name == "factorial":
            number = _whole(value, name)
            if not 0 <= number <= FACTORIAL_MAX:
                raise ValueError(f"factorials go from 0 to {FACTORIAL_MAX}")
            return Fraction(math.factorial(number))
        if name == "sqrt":
            return self._sqrt(value)
        return self._transcendental(name, value)

    def _transcendental(self, name, value):
        self.exact = False
        if name in ("ln", "log10"):
            if value <= 0:
                raise ValueError("logarithms are of positive numbers")
            return _decimal(lambda context: getattr(context, name)(_as_decimal(value)))
        if name == "exp":
            if abs(value) > 5000:
                raise ValueError("the power is too large")
            return _decimal(lambda context: context.exp(_as_decimal(value)))
        if name in ("sin", "cos", "tan"):
            if abs(value) > 10**9:
                raise ValueError(f"{name} takes radians up to a thousand million")
            return Fraction(f"{getattr(math, name)(float(value)):.15g}")
        raise ValueError(f"no such function: {name}")


def _whole(value, name):
    if value.denominator != 1:
        raise ValueError(f"{name} takes whole numbers")
    return value.numerator


def _round(value, places):
    if abs(places) > 100:
        raise ValueError("round takes at most 100 places")
    scaled = abs(value) * Fraction(10) ** places
    whole = math.floor(scaled + Fraction(1, 2))
    return Fraction(whole if value >= 0 else -whole) / Fraction(10) ** places


def _as_decimal(value):
    return Context(prec=WORKING_DIGITS + 5).divide(Decimal(value.numerator), Decimal(value.denominator))


def _decimal(operation):
    try:
        result = operation(Context(prec=WORKING_DIGITS))
    except DecimalException:
        raise ValueError("the numbers become too large") from None
    if not result.is_finite() or abs(result.adjusted()) > BITS_MAX // 4:
        raise ValueError("the numbers become too large")
    return Fraction(result)


def evaluate(arguments):
    if "'" in arguments["expression"] or '"' in arguments["expression"]:
        raise ValueError("this is not an arithmetic expression")
    text = _PERCENT.sub(r"\1*0.01", arguments["expression"].replace("^", "**").replace("×", "*").replace("÷", "/"))
    # Numbers become strings for the parser, so that 0.1 is one tenth and not the nearest float.
    quoted = _NUMBER.sub(lambda match: f"'{match.group().replace('_', '')}'", text.strip())
    try:
        tree = ast.parse(quoted, mode="eval")
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError("this is not an arithmetic expression") from None
    evaluation = _Evaluation()
    value = evaluation.run(tree.body)
    digits = arguments.get("digits", 28)
    if not evaluation.exact:
        return {"value": numbers_text.rounded(value, digits), "exact": False, "fraction": None}
    shown, is_exact = numbers_text.to_text(value, digits)
    fraction = None if is_exact else f"{value.numerator}/{value.denominator}"
    if fraction is not None and len(fraction) > 2000:
        fraction = None
    return {"value": shown, "exact": is_exact, "fraction": fraction}
