"""Kubernetes quantities as numbers."""

from decimal import Decimal

import pytest

from trainyard.api.quantity import parse_quantity


@pytest.mark.parametrize(
    ("quantity", "number"),
    [
        ("2", 2),
        (4, 4),
        ("500m", Decimal("0.5")),
        ("1.5Gi", 3 * 2**29),
        ("1e3", 1000),
        ("1Pi", 2**50),
        ("2P", 2 * 10**15),
        ("1E", 10**18),
        ("1e-99999999", 0),
    ],
)
def test_a_quantity_is_read_as_kubernetes_reads_it(quantity: str | int, number: Decimal | int) -> None:
    assert parse_quantity(quantity) == number


@pytest.mark.parametrize("quantity", ["8Ei", "9" * 32, "1e9999999", "1e99999999999999999999"])
def test_nothing_is_larger_than_the_largest(quantity: str) -> None:
    assert parse_quantity(quantity) == 2**63 - 1


@pytest.mark.parametrize("text", ["16GB", "", "-1", "1 Gi", "Gi"])
def test_anything_else_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity such as"):
        parse_quantity(text)
