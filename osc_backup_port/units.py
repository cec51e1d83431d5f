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

"""Units of size, and numbers as people read them."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


def human_size(size: float) -> str:
    """Return *size* in bytes the way people read it, ``1.5 GiB`` for one."""
    units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
    while abs(size) >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f'{size:.0f} B' if units[0] == 'B' else f'{size:.1f} {units[0]}'
