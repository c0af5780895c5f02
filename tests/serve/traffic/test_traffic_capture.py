"""The capture's files while nobody reads them: forgotten in time, and read on afterwards."""

import os
from pathlib import Path

from seatrial.serve.traffic.envoy import on_capture


def test_answers_that_nobody_adds_to_are_forgotten_and_the_collector_reads_on(tmp_path: Path) -> None:
    on_capture.make_private(tmp_path)
    log, collector = tmp_path / "stable.log", on_capture.Collector(tmp_path, lambda: None)
    log.write_text('{"id": "first", "at": "1.0", "kept": "whole", "body": "aaaaaaaaaaaaaaaaaaaa"}\n')
    assert [each.id for each in collector.poll()] == ["first"]
    assert not on_capture.expire(tmp_path, 60.0)
    os.utime(log, (1.0, 1.0))
    assert on_capture.expire(tmp_path, 60.0)
    assert not on_capture.expire(tmp_path, 60.0)
    with log.open("a") as stream:
        stream.write('{"id": "b", "at": "2.0"}\n')
    assert [each.id for each in collector.poll()] == ["b"]
    assert on_capture.expire(tmp_path, 60.0, most_bytes=5)
