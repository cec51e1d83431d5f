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

"""Whether an image is, as it is now, the newest backup on it.

Cinder writes the next incremental backup on top of HEAD, as the difference to that one.
There is one way to ask: librbd tells which places may have changed since the snapshot,
object by object, and the bytes there are compared.  What librbd calls changed need not be:
data that was written again, or zeros where there was nothing.
"""

import itertools

from osc_backup_port import model
from osc_backup_port.ceph import compare_images
from osc_backup_port.ceph import image as ceph_image
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.transfer import limits


def drifted_from(image: ceph_image.Image) -> model.Snapshot | None:
    """Return the newest backup on an image if HEAD is not the same.

    :return: None also where there is no backup on it
    """
    newest = ceph_driver.newest(image.snapshots())
    return newest if newest is not None and differs(image, newest) else None


def differs(image: ceph_image.Image, snapshot: model.Snapshot) -> bool:
    """Tell whether HEAD of an open image is not as one of its snapshots.

    Costs a read of what was written since, at HEAD and at the snapshot.
    """
    if image.size() != snapshot.size:
        return True
    changed = image.extents(snapshot.name)
    first = next(changed, None)
    if first is None:
        return False
    # What is a hole by now may have been zeros before, so that holes are read, too.
    to_read = (extent._replace(exists=True) for extent in itertools.chain([first], changed))
    with image.open_at(snapshot.name) as before:
        offset = compare_images.first_difference(image, before, to_read, limits.DEFAULT)
    return offset is not None
