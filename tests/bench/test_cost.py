"""Cost: the formula, the pinned prices, and what is refused."""

from pathlib import Path

import pytest

from bench import cost
from optimize.errors import ConfigError, MissingError


def test_the_formula_by_hand() -> None:
    # 3.60 $/h is 0.001 $/s; 1000/s make a million in 1000 s
    assert cost.usd_per_million(1000, 3.60) == pytest.approx(1.0)
    assert cost.usd_per_million(1000, 3.60, machines=3) == pytest.approx(3.0)


def test_the_price_cancels_in_the_ratio() -> None:
    for price in cost.price_list().prices:
        ratio = cost.usd_per_million(300, price.usd_hour) / cost.usd_per_million(400, price.usd_hour)
        assert ratio == pytest.approx(400 / 300)


def test_every_pinned_price_says_where_it_comes_from() -> None:
    names = [price.name for price in cost.price_list().prices]
    assert len(names) == len(set(names)) >= 2
    assert all(price.source and price.checked_at for price in cost.price_list().prices)


def test_unknown_prices_and_impossible_figures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no price"):
        cost.price_list().of("moon-base")
    with pytest.raises(ValueError, match="positive"):
        cost.usd_per_million(0, 1)
    path = tmp_path / "prices.toml"
    path.write_text(
        'schema = 1\n[[prices]]\nname = "x"\nmachine = "y"\nusd_hour = 0.0\nsource = "list"\nchecked_at = "2026"\n'
    )
    with pytest.raises(ConfigError):
        cost.price_list(path)
