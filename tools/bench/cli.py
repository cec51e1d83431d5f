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

"""The command line of the measurements, and the order of their work."""

import argparse
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import cases, commands, growth, measure, place, report, tables, trips

REFERENCE = place.ROOT / 'doc' / 'source' / 'reference'
RESULT = REFERENCE / 'performance.json'
#: With less than this the disk of somebody else is full, too.
_LEAST_ROOM = 6 * 2**30


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was chosen; return the exit code."""
    options = _parse(arguments)
    # What was changed in the cluster is changed back, however we are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results: list[dict[str, Any]] = []
    code = 0
    try:
        clusters = place.clusters()
        if 'src' not in clusters:
            raise measure.Failed('there is no cloud src: python3 tools/sandbox up')
        with tempfile.TemporaryDirectory(prefix='bench-', dir=options.folder) as folder:
            _Bench(options, clusters, Path(folder), results).run()
    except (place.SandboxError, measure.Failed, subprocess.CalledProcessError) as error:
        print(f'bench: {error}', file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print('bench: stopped; what it made is taken away', file=sys.stderr)
        code = 130
    except BaseException:
        code = 1
        raise
    finally:
        # Hours of measuring are not lost by what goes wrong at the end.
        if options.json and results:
            _keep(options.json, results, not options.only and not code)
    return code


def _keep(path: Path, results: list[dict[str, Any]], is_whole: bool) -> None:
    kept = report.keep(path, _machine(), results, is_whole)
    table = path.with_name(f'{path.stem}-table.txt')
    table.write_text(tables.render(kept))
    print(f'kept in {path} and {table}')


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python tools/bench',
        description='Measure ours and what one would type instead, in turn, on the same data.',
        epilog='Exit code 0 says that all was measured, not that the goals are met.',
    )
    parser.add_argument('--quick', action='store_true', help='small images, one pair: a smoke run')
    parser.add_argument('--pairs', type=int, help='pairs of each row (default: 3)')
    parser.add_argument(
        '--only', metavar='REGEX', default='', help='only rows in whose key this is found'
    )
    parser.add_argument('--list', action='store_true', help='print the keys of all rows')
    parser.add_argument('--folder', type=Path, help='for the files of the measurements')
    parser.add_argument(
        '--json',
        type=Path,
        help='where to keep the result, with its table beside it; rows that are there and are not '
        'measured now stay (default: performance.json in the documentation; with --quick: '
        'nowhere)',
    )
    parser.add_argument(
        '--largest',
        metavar='GIB',
        type=int,
        default=64,
        help='data of the largest image that is measured (default: %(default)s)',
    )
    parser.add_argument('--keep', action='store_true', help='leave the images for the next run')
    options = parser.parse_args(arguments)
    options.pairs = options.pairs or (1 if options.quick else 3)
    options.json = options.json or (None if options.quick else RESULT)
    return options


class _Bench:
    """One run: the rows that were chosen, one after the other."""

    def __init__(
        self,
        options: argparse.Namespace,
        clusters: dict[str, place.Cluster],
        folder: Path,
        results: list[dict[str, Any]],
    ) -> None:
        self._options = options
        self._clusters = clusters
        self._folder = folder
        self._results = results
        self._source = clusters['src']
        self._environment = place.environment(folder)

    def run(self) -> None:
        quick = self._options.quick
        bench = cases.make(self._folder, self._source, self._clusters.get('dst'), quick)
        chosen = [case for case in cases.cases(bench) if self._wants(case.key)]
        others = [command for command in commands.cases() if self._wants(command.key)]
        growing = growth.Growth(
            self._source, self._folder, self._environment, quick, self._options.largest
        )
        series = [row for row in growing.series() if self._wants(row.key)]
        if self._options.list:
            keys = [row.key for rows in (chosen, others, series) for row in rows]
            print('\n'.join([*keys, 'rate', 'limit']))
            return
        print(report.HEADING, flush=True)
        try:
            bench.clean_half_done()
            far = [case for case in chosen if case.key.endswith('-delayed')]
            bench.prepare(len(chosen) > len(far) or self._wants('rate'), bool(far))
            for case in chosen:
                self._add(self._row(case))
            for command in others:
                self._add(command.run(self._source, self._environment, quick))
            for row in series:
                self._add(row.run())
            if self._wants('rate'):
                self._add(cases.limited_rate(bench, self._environment))
            if self._wants('limit'):
                for limit in commands.limits(self._source, self._environment, 1 if quick else 5):
                    self._add(limit)
        finally:
            if not self._options.keep:
                with place.undisturbed():
                    bench.clean()

    def _wants(self, key: str) -> bool:
        return re.search(self._options.only, key) is not None

    def _add(self, row: dict[str, Any]) -> None:
        self._results.append(row)
        print(report.line(row), flush=True)
        free = shutil.disk_usage(self._folder).free
        if free < _LEAST_ROOM:
            raise measure.Failed(
                f'{self._folder}: {free >> 30} GiB are left on the disk; the clusters of the '
                'sandbox give nothing back while they are up: tools/sandbox down --purge'
            )

    def _row(self, case: cases.Case) -> dict[str, Any]:
        measure.once(case.prepare, self._environment)
        counter = trips.Counter(case.clusters, self._folder)
        pairs = min(self._options.pairs, case.most_pairs)
        found = measure.in_turn(
            case.ours, case.peer, pairs, self._environment, case.between, counter.counted
        )
        return report.row(case, found, counter.found)


def _machine() -> dict[str, object]:
    return {
        'cpus': os.cpu_count(),
        'load': round(os.getloadavg()[1], 1),
        'python': platform.python_version(),
        'ceph': subprocess.run(
            ['rbd', '--version'], capture_output=True, text=True
        ).stdout.strip(),
    }
