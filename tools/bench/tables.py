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

"""The result as tables of a page of the documentation."""

from collections.abc import Iterable, Sequence
from typing import Any

from .report import trips_of

_HEADINGS = (
    'work',
    'instead of',
    'times faster',
    'of the pairs',
    'goal',
    'seconds',
    'CPU seconds',
    'peak MiB',
    'requests',
    'in line',
    'pairs',
)


def render(told: dict[str, Any]) -> str:
    """Return reStructuredText that a page can include."""
    rows = told['rows']
    compared = [row for row in rows if 'ratio' in row]
    delayed = [row for row in compared if row['key'].endswith('-delayed')]
    plain = [row for row in compared if row not in delayed]
    machine = told['machine']
    parts = [
        '.. Written by tools/bench; do not edit.\n',
        (
            f'{machine["cpus"]} CPUs with a load of {machine["load"]} when it ended, Python '
            f'{machine["python"]}, {machine["ceph"].split("(")[0].strip()}. Where two figures are '
            'separated by a stroke, the first is ours.\n'
        ),
        _table('Side by side with the peer', _HEADINGS, map(_compared, plain)),
        _table('Where each answer takes 5 ms more on its way', _HEADINGS, map(_compared, delayed)),
    ]
    for row in rows:
        if 'points' in row:
            headings = (row['of'], 'seconds', 'peer', 'CPU seconds', 'peak MiB')
            parts.append(_table(row['work'], headings, map(_point, row['points'])))
    limits = [(row['work'], row['rate']) for row in rows if 'rate' in row]
    parts.append(
        _table('The cluster by itself, and a rate that is kept', ('work', 'rate'), limits)
    )
    return '\n'.join(parts)


def _compared(row: dict[str, Any]) -> Sequence[object]:
    ours, peer = row['ours'], row['rbd']
    return (
        row['work'],
        f'``{row["peer"]}``' if row['peer'].startswith(('rbd', 'zstd')) else row['peer'],
        f'**{row["ratio"]}**' if row['met'] else row['ratio'],
        f'{min(row["ratios"])} to {max(row["ratios"])}' if row['pairs'] > 1 else '\\-',
        row['goal'] or '\\-',
        f'{ours["wall"]:.2f} / {peer["wall"]:.2f}',
        f'{ours["cpu"]:.2f} / {peer["cpu"]:.2f}',
        f'{ours["peak"]:.0f} / {peer["peak"]:.0f}',
        trips_of(row, 'requests'),
        trips_of(row, 'in_line'),
        row['pairs'],
    )


def _point(point: dict[str, Any]) -> Sequence[object]:
    ours, peer = point['ours'], point['rbd']
    return (
        point['amount'],
        f'{ours["wall"]:.2f}',
        f'{peer["wall"]:.2f}' if peer else '\\-',
        f'{ours["cpu"]:.2f}',
        f'{ours["peak"]:.0f}',
    )


def _table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    found = [headings, *rows]
    if len(found) == 1:
        return ''
    lines = [f'.. list-table:: {title}', '   :header-rows: 1', '']
    for row in found:
        for number, cell in enumerate(row):
            lines.append(f'   {"  " if number else "* "}- {cell}')
    return '\n'.join([*lines, ''])
