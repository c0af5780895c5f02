"""Cost: the formula, the pinned prices, and what is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.bench import cost
from seatrial.optimize.errors import ConfigError, MissingError


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
    with pytest.raises(MissingError, match="unknown price"):
        cost.price_list().of("moon-base")
    with pytest.raises(ValueError, match="positive"):
        cost.usd_per_million(0, 1)
    path = tmp_path / "prices.toml"
    path.write_text(
        'schema = 1\n[[prices]]\nname = "x"\nmachine = "y"\nusd_hour = 0.0\nsource = "list"\nchecked_at = "2026"\n'
    )
    with pytest.raises(ConfigError):
        cost.price_list(path)


PRICE = cost.Price(name="p", machine="m", usd_hour=3.60, source="list", checked_at="2026-11")


def test_fleets_and_months_by_hand() -> None:
    assert cost.machines_needed(700, 100, headroom=0.3) == 10  # each is filled to 70/s
    assert cost.machines_needed(701, 100, headroom=0.3) == 11
    assert cost.machines_needed(1, 100) == 1
    assert cost.utilisation(350, 100, 10) == pytest.approx(0.35)
    assert cost.usd_month(10, 1.0) == 7300


def test_an_owned_machine_by_hand() -> None:
    # 8,760 $ over one year that is always up is 1 $/h; 2 kW at PUE 1.5 and 0.10 $/kWh add 0.30, operations 0.20
    assert cost.own_usd_hour(8760, 1, availability=1.0) == pytest.approx(1.0)
    hour = cost.own_usd_hour(8760, 1, availability=1.0, kilowatts=2, pue=1.5, usd_kwh=0.10, opex_hour=0.20)
    assert hour == pytest.approx(1.5)
    assert cost.own_usd_hour(8760, 1, availability=0.5) == pytest.approx(2.0)


def test_a_machine_of_one_s_own_is_a_price_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    text = Path(cost.__file__).with_name("prices.toml").read_text()
    head, example = text.split("# [[owned]]")
    path.write_text(head + "[[owned]]" + example.replace("# ", ""))
    price = cost.price_list(path).of("our-rack")
    assert price.usd_hour == pytest.approx(18000 / (4 * 8760 * 0.95) + 0.6 * 1.3 * 0.15 + 0.10)
    assert "owned over 4 years" in price.machine
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(path.read_text().replace("years = 4.0", "years = 0.0"))
    with pytest.raises(ConfigError, match="years must be positive"):
        cost.price_list(wrong)


def test_energy_by_hand_and_a_missing_counter_is_unknown() -> None:
    assert cost.joules_per_inference(100.0, 700.0, 100) == pytest.approx(6.0)
    assert cost.joules_per_inference(100.0, 700.0, 100, idle_watts=10, seconds=30) == pytest.approx(3.0)
    assert cost.joules_per_inference(None, 700.0, 100) is None
    assert cost.usd_of_energy(3.6e6, 0.25, pue=2.0) == pytest.approx(0.5)
    assert cost.grams_co2(3.6e6, 400, pue=1.0) == pytest.approx(400)
    assert cost.usd_of_run(1800, 3.60) == pytest.approx(1.80)


def test_a_bill_by_hand() -> None:
    made = cost.bill(PRICE, 1000, interval=(800, 1250), traffic=350, headroom=0.3, seconds=600)
    assert made.per_million == pytest.approx(1.0)
    assert made.per_million_interval == pytest.approx((0.8, 1.25))
    assert made.machines == 1
    assert made.utilisation == pytest.approx(0.35)
    assert made.effective == pytest.approx(1 / 0.35)
    assert made.month == pytest.approx(3.60 * 730)
    assert made.spent == pytest.approx(0.60)
    alone = cost.bill(PRICE, 1000)
    assert (alone.machines, alone.effective, alone.month, alone.per_million_interval) == (None, None, None, None)


@given(st.floats(0.1, 1e5), st.floats(0.1, 1e4), st.floats(0, 0.9))
def test_what_is_paid_is_what_the_fleet_costs(traffic: float, capacity: float, headroom: float) -> None:
    """The effective price times the traffic is the month's bill, however the fleet was sized; nobody is overloaded."""
    made = cost.bill(PRICE, capacity, traffic=traffic, headroom=headroom)
    assert made.effective is not None
    assert made.month is not None
    assert made.utilisation is not None
    assert made.effective * traffic * cost.HOURS_PER_MONTH * 3600 / 1e6 == pytest.approx(made.month)
    assert made.utilisation <= (1 - headroom) * (1 + 1e-6)
    assert made.effective >= made.per_million * (1 - 1e-9)


def test_figures_that_cannot_be_are_refused() -> None:
    for wrong in (
        lambda: cost.machines_needed(0, 1),
        lambda: cost.machines_needed(1, 1, headroom=1.0),
        lambda: cost.utilisation(1, 0),
        lambda: cost.own_usd_hour(1, 0),
        lambda: cost.own_usd_hour(1, 1, pue=0.9),
        lambda: cost.joules_per_inference(2.0, 1.0, 1),
        lambda: cost.joules_per_inference(1.0, 2.0, 0),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            wrong()
