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
import contextlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import cases, commands, measure, place, report

RESULT = place.ROOT / 'doc' / 'source' / 'reference' / 'performance.json'


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was chosen; return the exit code."""
    options = _parse(arguments)
    # What was changed in the cluster is changed back, however we are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        clusters = place.clusters()
        if 'src' not in clusters:
            raise measure.Failed('there is no cloud src: python3 tools/sandbox up')
        with tempfile.TemporaryDirectory(prefix='bench-', dir=options.folder) as folder:
            results = _measure(options, clusters, Path(folder))
    except (place.SandboxError, measure.Failed, subprocess.CalledProcessError) as error:
        print(f'bench: {error}', file=sys.stderr)
        return 1
    told = {'machine': _machine(), 'pairs': options.pairs, 'rows': results}
    if options.json:
        options.json.write_text(json.dumps(told, indent=1) + '\n')
        print(f'kept in {options.json}')
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python tools/bench',
        description='Measure ours and what one would type instead, in turn, on the same data.',
        epilog='Exit code 0 says that all was measured, not that the goals are met.',
    )
    parser.add_argument('--quick', action='store_true', help='small images, one pair: a smoke run')
    parser.add_argument('--pairs', type=int, help='pairs of each row (default: 5)')
    parser.add_argument('--only', metavar='REGEX', default='', help='only rows whose key matches')
    parser.add_argument('--list', action='store_true', help='print the keys of all rows')
    parser.add_argument('--folder', type=Path, help='for the files of the measurements')
    parser.add_argument('--json', type=Path, help='where to keep the result')
    parser.add_argument('--keep', action='store_true', help='leave the images for the next run')
    options = parser.parse_args(arguments)
    options.pairs = options.pairs or (1 if options.quick else 5)
    return options


def _measure(
    options: argparse.Namespace, clusters: dict[str, place.Cluster], folder: Path
) -> list[dict[str, Any]]:
    source, target = clusters['src'], clusters.get('dst')
    bench = cases.make(folder, source, target, options.quick)
    environment = place.environment(folder)
    results: list[dict[str, Any]] = []
    print(report.HEADING)
    chosen = [case for case in cases.cases(bench) if re.search(options.only, case.key)]
    chosen_commands = [case for case in commands.cases() if re.search(options.only, case.key)]
    if options.list:
        print('\n'.join(case.key for case in (*chosen, *chosen_commands)))
        return []
    try:
        if chosen:
            bench.prepare(options.quick)
        for case in chosen:
            results.append(_row(case, clusters, options.pairs, environment))
            print(report.line(results[-1]), flush=True)
        for command in chosen_commands:
            results.append(command.run(source, environment, options.quick))
            print(report.line(results[-1]), flush=True)
        if re.search(options.only, 'limit'):
            for row in commands.limits(source, environment, 1 if options.quick else 5):
                print(f'  the cluster by itself: {row["work"]}: {row["rate"]}', flush=True)
                results.append(row)
    finally:
        if not options.keep:
            bench.clean()
    return results


def _row(
    case: cases.Case,
    clusters: dict[str, place.Cluster],
    pairs: int,
    environment: dict[str, str],
) -> dict[str, Any]:
    measure.once(case.prepare, environment)
    with contextlib.ExitStack() as stack:
        for cluster in clusters.values():
            stack.enter_context(cluster.delayed(case.delay))
        found = measure.in_turn(
            case.ours, case.peer, min(pairs, case.most_pairs), environment, case.between
        )
    return report.row(case, found)


def _machine() -> dict[str, object]:
    return {
        'cpus': os.cpu_count(),
        'load': round(os.getloadavg()[1], 1),
        'python': platform.python_version(),
        'ceph': subprocess.run(
            ['rbd', '--version'], capture_output=True, text=True
        ).stdout.strip(),
    }
