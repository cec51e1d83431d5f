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

from typing import Any

from .cases import Case
from .measure import Pairs, median

HEADING = (
    f'{"row":28} {"times faster":>12} {"goal":>5} {"":7} {"wall s":>15} {"CPU s":>13} '
    f'{"peak MiB":>11}   (ours / peer, medians)'
)


def row(case: Case, found: Pairs) -> dict[str, Any]:
    """Return one row of the table."""
    ratios = [peer.wall / ours.wall for ours, peer in zip(found.ours, found.peer, strict=True)]
    return {
        'key': case.key,
        'work': case.work,
        'peer': case.peer_name,
        'goal': case.goal,
        'ratio': round(found.ratio, 2),
        'ratios': [round(ratio, 2) for ratio in ratios],
        'met': found.ratio >= case.goal,
        'compares_cpu': case.compares_cpu,
        'ours': _figures(found.ours),
        'rbd': _figures(found.peer),
    }


def _figures(runs: list[Any]) -> dict[str, float]:
    return {field: round(median(runs, field), 2) for field in ('wall', 'cpu', 'peak')}


def line(row: dict[str, Any]) -> str:
    """Return one row as a line of text."""
    ours, peer = row['ours'], row['rbd']
    return (
        f'{row["key"]:28} {row["ratio"]:12.2f} {row["goal"]:5} '
        f'{"met" if row["met"] else "NOT met":7} {ours["wall"]:7.2f}/{peer["wall"]:7.2f} '
        f'{ours["cpu"]:6.2f}/{peer["cpu"]:6.2f} {ours["peak"]:5.0f}/{peer["peak"]:5.0f}'
    )
