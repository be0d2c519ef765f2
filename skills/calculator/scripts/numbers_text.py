"""Exact fractions as decimal text."""

from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction

EXACT_DIGITS_MAX = 1000


def to_text(value, digits):
    """Decimal text and whether it is exact; rounded to `digits` significant digits where not."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest == 1:
        places = 0
        scale = 1
        while scale % value.denominator:
            places += 1
            scale *= 10
            if places > EXACT_DIGITS_MAX:
                break
        else:
            whole = value.numerator * (scale // value.denominator)
            if abs(whole) < 10**EXACT_DIGITS_MAX:
                return format(Decimal(whole).scaleb(-places, Context(prec=EXACT_DIGITS_MAX + 5)), "f"), True
    return rounded(value, digits), False


def rounded(value, digits):
    context = Context(prec=digits)
    quotient = context.divide(Decimal(value.numerator), Decimal(value.denominator))
    return str(quotient.normalize(context))


def parse(text):
    """A fraction from plain decimal text such as -12.5 or 1e6."""
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a number") from None
    if not number.is_finite() or abs(number.adjusted()) > EXACT_DIGITS_MAX:
        raise ValueError(f"{text!r} is not a number that can be handled")
    return Fraction(number)
