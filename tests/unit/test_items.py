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

"""What is taken away of the items of an image."""

from osc_backup_port import items, model

ITEMS: list[model.Item] = [
    model.Zero(0, 10),
    model.Data(10, b'data'),
    model.Zero(12, 2),
    model.Zero(20, 5),
]


def test_zeros_go_where_nothing_was_before() -> None:
    increment = model.Increment(None, 'to', 30, iter(ITEMS))

    assert list(items.without_needless_zeros(increment).items) == ITEMS[1:3]


def test_zeros_stay_where_data_may_have_been() -> None:
    increment = model.Increment('from', 'to', 30, iter(ITEMS))

    assert list(items.without_needless_zeros(increment).items) == ITEMS
