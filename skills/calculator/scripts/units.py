"""Converts between units of one family, exactly where the units are defined exactly."""

from fractions import Fraction

import numbers_text

# How many base units one unit is. International definitions; all exact.
FAMILIES = {
    "length": {
        "m": "1", "nm": "1e-9", "um": "1e-6", "mm": "0.001", "cm": "0.01", "km": "1000",
        "in": "0.0254", "ft": "0.3048", "yd": "0.9144", "mi": "1609.344", "nmi": "1852",
    },
    "mass": {
        "kg": "1", "mg": "1e-6", "g": "0.001", "t": "1000",
        "oz": "0.028349523125", "lb": "0.45359237", "st": "6.35029318",
    },
    "time": {"s": "1", "ns": "1e-9", "us": "1e-6", "ms": "0.001", "min": "60", "h": "3600", "d": "86400", "wk": "604800"},
    "volume": {
        "l": "1", "ml": "0.001", "m3": "1000", "tsp": "0.00492892159375", "tbsp": "0.01478676478125",
        "floz": "0.0295735295625", "cup": "0.2365882365", "pt": "0.473176473", "qt": "0.946352946",
        "gal": "3.785411784", "impgal": "4.54609",
    },
    "speed": {"m/s": "1", "km/h": "1000/3600", "mph": "0.44704", "kn": "1852/3600"},
    "area": {"m2": "1", "cm2": "0.0001", "km2": "1000000", "ha": "10000", "ft2": "0.09290304", "acre": "4046.8564224"},
    "data": {
        "B": "1", "bit": "1/8", "kB": "1000", "MB": "1e6", "GB": "1e9", "TB": "1e12",
        "KiB": "1024", "MiB": str(1024**2), "GiB": str(1024**3), "TiB": str(1024**4),
    },
}
# value in kelvin = (value + offset) * factor
TEMPERATURES = {
    "K": (Fraction(0), Fraction(1)),
    "C": (Fraction("273.15"), Fraction(1)),
    "F": (Fraction("459.67"), Fraction(5, 9)),
}


def convert(arguments):
    value = numbers_text.parse(arguments["value"])
    source, target = arguments["from"].strip().lstrip("°"), arguments["to"].strip().lstrip("°")
    family, result = _convert(value, source, target)
    shown, exact = numbers_text.to_text(result, arguments.get("digits", 15))
    return {"value": shown, "unit": target, "family": family, "exact": exact}


def _convert(value, source, target):
    if source in TEMPERATURES and target in TEMPERATURES:
        offset, factor = TEMPERATURES[source]
        kelvin = (value + offset) * factor
        if kelvin < 0:
            raise ValueError("below absolute zero")
        offset, factor = TEMPERATURES[target]
        return "temperature", kelvin / factor - offset
    for family, units in FAMILIES.items():
        if source in units and target in units:
            return family, value * Fraction(units[source]) / Fraction(units[target])
    for unit in (source, target):
        if unit not in TEMPERATURES and not any(unit in units for units in FAMILIES.values()):
            known = "; ".join(f"{family}: {' '.join(units)}" for family, units in FAMILIES.items())
            raise ValueError(f"no unit {unit!r}; there are {known}; temperature: C F K")
    raise ValueError(f"{source} and {target} measure different things")
