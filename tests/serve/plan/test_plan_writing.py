"""Writing a plan into a deployment: the values change and nothing else does, or nothing is written."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from seatrial.optimize import config
from seatrial.optimize.errors import ConfigError
from seatrial.serve.deployment import Deployment
from seatrial.serve.plan.setting import Layout, Setting
from seatrial.serve.plan.writing import write

TEXT = """# Ours, by hand.
schema = 1
name = "net"   # the model
max_batch_size = 8 # what we measured
threads = 2

[batching]
# prefer what the engine likes
preferred_sizes = [4, 8]

[instances]
kind = "cpu"
count = 3   # three

[warmup]
batch_sizes = [1, 8]
"""
SETTING = Setting(max_batch=16, delay_us=1500, layout=Layout(instances=1, threads=1))


def test_values_change_and_comments_stay(tmp_path: Path) -> None:
    path = tmp_path / "net.toml"
    path.write_text(TEXT)
    said = write(path, SETTING)
    assert config.load(path, Deployment) == said
    assert Setting.of(said) == SETTING
    assert said.warmup.batch_sizes == (1, 16)
    text = path.read_text()
    for kept in ("# Ours, by hand.", "# the model", "max_batch_size = 16 # what we measured", "count = 1   # three"):
        assert kept in text
    assert "preferred_sizes" not in text
    assert text.index("max_queue_delay_us") < text.index("[instances]")


def test_tables_that_lack_are_added(tmp_path: Path) -> None:
    path = tmp_path / "net.toml"
    path.write_text('schema = 1\nname = "net"\nmax_batch_size = 8\n')
    write(path, SETTING)
    assert Setting.of(config.load(path, Deployment)) == SETTING


@given(
    batch=st.integers(1, 512),
    delay=st.integers(0, 10**6),
    instances=st.integers(1, 64),
    threads=st.integers(1, 64),
    text=st.sampled_from([TEXT, TEXT.replace("\n\n", "\n"), TEXT.replace("[warmup]\nbatch_sizes = [1, 8]\n", "")]),
)
@limits(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow
def test_what_is_written_is_what_was_meant(
    tmp_path: Path, batch: int, delay: int, instances: int, threads: int, text: str
) -> None:
    path = tmp_path / "net.toml"
    path.write_text(text)
    setting = Setting(max_batch=batch, delay_us=delay, layout=Layout(instances=instances, threads=threads))
    before = config.load(path, Deployment)
    said = write(path, setting)
    assert Setting.of(said) == setting
    assert config.load(path, Deployment) == said == setting.applied(before)
    write(path, setting)
    assert config.load(path, Deployment) == said


@pytest.mark.parametrize(
    "text",
    [
        'schema = 1\nname = "net"\nmax_batch_size = 8\ninstances = { count = 3 }\n',
        'schema = 1\nname = "net"\nmax_batch_size = 8\nbatching.max_queue_delay_us = 3\n',
    ],
)
def test_a_form_that_cannot_be_edited_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "net.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="cannot be written"):
        write(path, SETTING)
    assert path.read_text() == text


def test_what_is_no_deployment_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "net.toml"
    path.write_text("schema = 1\n")
    with pytest.raises(ConfigError, match="missing key"):
        write(path, SETTING)
    assert path.read_text() == "schema = 1\n"
