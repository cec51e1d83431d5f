#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""The limit of the rate, against a clock that nobody has to wait for."""

import argparse
import random

import pytest

from osc_backup_port import model, progress, units
from osc_backup_port.osc import transfer_options
from osc_backup_port.transfer import limits, metering, pacing


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds * 1.01 + 0.0001


@pytest.mark.parametrize('rate', [1 * units.MIB, 50 * units.MIB, 2000 * units.MIB])
def test_the_rate_is_kept_within_five_percent(rate: int) -> None:
    clock, noise = Clock(), random.Random(rate)
    meter = metering.Meter(progress.Silent(), pacing.Pace(rate, clock, clock.sleep))

    def source() -> model.Item:
        # Unsteady, but fast enough on the average.
        clock.now += noise.random() * size / rate * 1.5
        return model.Data(0, bytes(size))

    size, started = rate // 25, clock.now
    for _item in meter.watch((source() for _ in range(500)), 0):
        pass

    found = meter.moved / (clock.now - started)
    assert 0.95 * rate <= found <= 1.05 * rate


def test_after_a_pause_only_a_second_is_caught_up_with() -> None:
    clock = Clock()
    pace = pacing.Pace(1000, clock, clock.sleep)
    pace.passed(1000)
    clock.now += 3600
    started = clock.now

    for _ in range(100):
        pace.passed(100)

    assert 8.9 < clock.now - started < 9.5


def test_holes_take_no_time() -> None:
    clock = Clock()
    meter = metering.Meter(progress.Silent(), pacing.Pace(1, clock, clock.sleep))

    list(meter.watch([model.Zero(0, units.GIB)], 2 * units.GIB))

    assert (clock.now, meter.skipped) == (1000.0, 2 * units.GIB)


def test_chains_side_by_side_share_the_rate_and_the_requests() -> None:
    clock = Clock()
    pace = pacing.Pace(1000, clock, clock.sleep)
    meters = [metering.Meter(progress.Silent(), pace) for _ in range(2)]

    for _ in range(100):
        for meter in meters:
            meter.count(50, 0)

    assert 9.5 < clock.now - 1000 < 10.5
    assert limits.SHARED.shared_by(2) == limits.Limits(4, 4 * units.MIB, 6)
    assert limits.Limits(1, window=1).shared_by(2) == limits.Limits(1, window=1)


def parse(*words: str) -> limits.Limits:
    parser = argparse.ArgumentParser()
    transfer_options.add_arguments(parser)
    return transfer_options.job(parser.parse_args(words), progress.Silent(), True).bounds


def test_without_options_the_limits_are_the_defaults() -> None:
    assert parse() == limits.DEFAULT


def test_options_become_limits() -> None:
    found = parse('--requests', '32', '--request-size', '1M', '--limit-rate', '50MiB')

    assert found == limits.Limits(32, units.MIB, 48, 50 * units.MIB)


@pytest.mark.parametrize(
    'words',
    [
        ('--requests', '0'),
        ('--requests', '-1'),
        ('--requests', '257'),
        ('--request-size', '4095'),
        ('--request-size', '1G'),
        ('--request-size', '65537'),
        ('--limit-rate', '0'),
        ('--limit-rate', 'fast'),
    ],
)
def test_what_makes_no_sense_is_refused(words: tuple[str, str]) -> None:
    with pytest.raises(SystemExit):
        parse(*words)
