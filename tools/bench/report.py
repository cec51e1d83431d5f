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

"""What was measured, for people and for programs."""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .cases import Case
from .measure import Pairs, median

HEADING = (
    f'{"row":28} {"times faster":>12} {"goal":>5} {"":7} {"wall s":>15} {"CPU s":>13} '
    f'{"peak MiB":>11} {"requests":>11} {"in line":>9}   (ours / peer, medians)'
)


def row(case: Case, found: Pairs, trips: Sequence[dict[str, int]] = ()) -> dict[str, Any]:
    """Return one row of the table.

    :param trips: what was asked of the cluster by ours and by the peer, if that was counted
    """
    ratios = [peer.wall / ours.wall for ours, peer in zip(found.ours, found.peer, strict=True)]
    return {
        'key': case.key,
        'work': case.work,
        'peer': case.peer_name,
        'goal': case.goal,
        'ratio': round(found.ratio, 2),
        'ratios': [round(ratio, 2) for ratio in ratios],
        'pairs': len(ratios),
        'met': None if case.goal is None else found.ratio >= case.goal,
        'compares_cpu': case.compares_cpu,
        'trips': dict(zip(('ours', 'rbd'), trips, strict=False)) or None,
        'ours': _figures(found.ours),
        'rbd': _figures(found.peer),
    }


def _figures(runs: list[Any]) -> dict[str, float]:
    return {field: round(median(runs, field), 2) for field in ('wall', 'cpu', 'peak')}


def line(row: dict[str, Any]) -> str:
    """Return one row as a line of text, or as several."""
    if 'rate' in row:
        return f'{row["key"]:28} {row["rate"]}'
    if 'points' in row:
        return '\n'.join(_point(row, point) for point in row['points'])
    ours, peer, goal = row['ours'], row['rbd'], row['goal'] or ''
    met = {None: '', True: 'met', False: 'NOT met'}[row['met']]
    return (
        f'{row["key"]:28} {row["ratio"]:12.2f} {goal:5} {met:7} '
        f'{ours["wall"]:7.2f}/{peer["wall"]:7.2f} '
        f'{ours["cpu"]:6.2f}/{peer["cpu"]:6.2f} {ours["peak"]:5.0f}/{peer["peak"]:5.0f} '
        f'{trips_of(row, "requests"):>11} {trips_of(row, "in_line"):>9}'
    )


def trips_of(row: dict[str, Any], what: str) -> str:
    """Return a figure of ours and of the peer; \\-: it was not counted."""
    trips = row.get('trips')
    return f'{trips["ours"][what]} / {trips["rbd"][what]}' if trips else '\\-'


def _point(row: dict[str, Any], point: dict[str, Any]) -> str:
    ours, peer = point['ours'], point['rbd']
    told = f'{row["key"]:28} {point["amount"]:5} {row["of"]}: {ours["wall"]:.2f} s'
    if peer:
        told += f', the peer {peer["wall"]:.2f} s'
    return f'{told}; peak {ours["peak"]:.0f} MiB'


def keep(
    path: Path, machine: dict[str, Any], rows: list[dict[str, Any]], whole: bool
) -> dict[str, Any]:
    """Put rows into a file of results, where those with the same keys are replaced.

    :param whole: these are all that there are: nothing else stays
    """
    there = [] if whole or not path.exists() else json.loads(path.read_text())['rows']
    day = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    new = {row['key']: {**row, 'day': day} for row in rows}
    kept = [new.pop(row['key'], row) for row in there] + list(new.values())
    told = {'machine': machine, 'rows': kept}
    path.write_text(json.dumps(told, indent=1) + '\n')
    return told
