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

"""The methods of Ceph's object classes that the package calls, over a cluster in memory."""

import errno
import struct
from typing import TYPE_CHECKING

from tests.fakes import rados

if TYPE_CHECKING:
    from tests.fakes import ceph

#: Where Ceph wants the id of a snapshot: the image as it is now.
_HEAD = (1 << 64) - 2


# Not with the package's own code, so that a mistake in it is seen.
def _number(value: int) -> bytes:
    return value.to_bytes(8, 'little')


def _text(value: str) -> bytes:
    return len(value.encode()).to_bytes(4, 'little') + value.encode()


def _versioned(content: bytes) -> bytes:
    return b'\1\1' + len(content).to_bytes(4, 'little') + content


def _texts(data: bytes) -> list[str]:
    found = []
    while data:
        length = 4 + int.from_bytes(data[:4], 'little')
        found.append(data[4:length].decode())
        data = data[length:]
    return found


def read(cluster: 'ceph.Cluster', key: str, method: str, data: bytes) -> bytes:
    """Return the answer of an object that is there, in the encoding of Ceph."""
    if method == 'object_map_load':
        return _object_map(cluster, key)
    if method == 'get_id':
        name = key.removeprefix('rbd_id.')
        return _text(cluster.images[name].id)
    return _header(_image(cluster, key), method, data)


def _object_map(cluster: 'ceph.Cluster', key: str) -> bytes:
    id_, _, point = key.removeprefix('rbd_object_map.').partition('.')
    [stored] = [one for one in cluster.images.values() if one.id == id_]
    content, size = stored.content, stored.size
    for snapshot in stored.snapshots:
        if point == f'{snapshot.id:016x}':
            content, size = snapshot.content, snapshot.size
    count = (size + content.object_size - 1) // content.object_size
    bits = bytearray((count + 3) // 4)
    for number in content.objects:
        bits[number // 4] |= 1 << (3 - number % 4) * 2
    header = _versioned(_number(count))
    return len(header).to_bytes(4, 'little') + header + bytes(bits) + bytes(4)


def _image(cluster: 'ceph.Cluster', key: str) -> 'ceph.StoredImage':
    for stored in cluster.images.values():
        if key == f'rbd_header.{stored.id}' and key not in cluster.lost:
            return stored
    raise rados.ObjectNotFound(f'Failed to operate on {key}', errno.ENOENT)


def _header(stored: 'ceph.StoredImage', method: str, data: bytes) -> bytes:
    if method == 'get_snapcontext':
        ids = sorted((snapshot.id for snapshot in stored.snapshots), reverse=True)
        parts = [_number(max(ids, default=0)), struct.pack('<I', len(ids)), *map(_number, ids)]
        return b''.join(parts)
    if method == 'get_features':
        return _number(stored.features) + _number(0)
    if method == 'get_flags':
        return _number(stored.flags)
    if method == 'get_data_pool':
        return struct.pack('<q', stored.data_pool or -1)
    if method == 'get_stripe_unit_count':
        if stored.stripe_count == 1:
            raise rados.OSError('Failed to operate', errno.ENOEXEC)
        return _number(stored.stripe_unit) + _number(stored.stripe_count)
    if method == 'metadata_get':
        value = stored.metadata.get(_texts(data)[0])
        if value is None:
            raise rados.ObjectNotFound('Failed to operate', errno.ENOENT)
        return _text(value)
    return _point(stored, method, int.from_bytes(data[:8], 'little'))


def _point(stored: 'ceph.StoredImage', method: str, id_: int) -> bytes:
    for snapshot in stored.snapshots:
        if snapshot.id == id_:
            namespace = _versioned(struct.pack('<I', 0))
            told = _number(id_) + namespace + _text(snapshot.name)
            size = _number(snapshot.size)
            if method == 'snapshot_get':
                return _versioned(told + size + bytes(12))
            assert method == 'get_size'
            return bytes([stored.order]) + size
    if method == 'get_size' and id_ == _HEAD:
        return bytes([stored.order]) + _number(stored.size)
    raise rados.ObjectNotFound('Failed to operate', errno.ENOENT)


def write(cluster: 'ceph.Cluster', key: str, method: str, data: bytes) -> None:
    """Change something, as told in the encoding of Ceph."""
    if method == 'metadata_set':
        assert data[:4] == b'\1\0\0\0'
        name, value = _texts(data[4:])
        _image(cluster, key).metadata[name] = value
    else:
        assert method == 'metadata_remove'
        _image(cluster, key).metadata.pop(_texts(data)[0], None)


def lock(data: bytes) -> tuple[str, str, int, int]:
    """Return cookie, description, seconds and flags that a lock is asked for with."""
    assert data[:6] == b'\1\1' + (len(data) - 6).to_bytes(4, 'little')
    [name] = _texts(data[6:25])
    assert (name, data[25]) == ('osc_backup_port', 1)
    cookie, tag, description = _texts(data[26:-9])
    assert tag == ''
    seconds, nanoseconds, flags = struct.unpack('<IIB', data[-9:])
    assert nanoseconds == 0
    return cookie, description, seconds, flags
