"""Comparing a value with what a trigger wants."""

SIGNS = {
    "LessThan": "<",
    "LessThanOrEqual": "<=",
    "GreaterThan": ">",
    "GreaterThanOrEqual": ">=",
    "Equal": "=",
    "NotEqual": "!=",
}


def compare(value: float, comparison: str, threshold: float) -> bool:
    """The API's six comparisons."""
    match comparison:
        case "LessThan":
            return value < threshold
        case "LessThanOrEqual":
            return value <= threshold
        case "GreaterThan":
            return value > threshold
        case "GreaterThanOrEqual":
            return value >= threshold
        case "Equal":
            return value == threshold
        case "NotEqual":
            return value != threshold
    raise ValueError(f"unknown comparison {comparison}")
