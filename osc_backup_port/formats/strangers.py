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

"""Files that people take for the image of a volume, told by their first bytes.

Pure.  A raw image may begin with any of these too: whether it is one is not decided here.
"""

import dataclasses
import re

#: So many bytes tell all of them.
HEAD = 512

_CONVERT = 'Convert it first: qemu-img convert -O raw {file} <raw file>'


@dataclasses.dataclass(frozen=True, slots=True)
class Stranger:
    """What a file seems to be, and what makes an image of it.

    :param advice: a command; ``{file}`` stands for the file
    :param format: what the format is called, which may be one that is read as it is
    """

    what: str
    advice: str
    format: str | None = None


def _packed(program: str) -> Stranger:
    return Stranger(
        f'compressed with {program}', f'Unpack it first: {program} -dc {{file}} |', program
    )


def _disk(kind: str) -> Stranger:
    return Stranger(f'a {kind} image', _CONVERT, kind)


_KNOWN = {
    rb'\x1f\x8b': _packed('gzip'),
    rb'\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18': _packed('zstd'),
    rb'\xfd7zXZ\x00': _packed('xz'),
    rb'BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)': _packed('bzip2'),
    rb'\x04\x22\x4d\x18|\x02\x21\x4c\x18': _packed('lz4'),
    rb'LZIP': _packed('lzip'),
    rb'\x89LZO\x00\r\n\x1a\n': _packed('lzop'),
    rb'\x1f\x9d': Stranger('compressed with compress', 'Unpack it first: gzip -dc {file} |'),
    rb'PK(\x03\x04|\x05\x06|\x07\x08)': Stranger(
        'a zip archive', 'Unpack it first: unzip -p {file} |'
    ),
    rb"7z\xbc\xaf'\x1c": Stranger('a 7z archive', 'Unpack it first: 7z x -so {file} |'),
    rb'Rar!\x1a\x07': Stranger('a rar archive', 'Unpack it first: unrar p -inul {file} |'),
    rb'.{257}ustar': Stranger(
        'a tar archive',
        'An OVA holds disks of VMware: tar xf {file}, and convert them: qemu-img convert -O raw '
        '<disk> <raw file>. An archive of backups: openstack volume backup archive import',
    ),
    rb'QFI\xfb': _disk('qcow2'),
    rb'QED\x00': _disk('qed'),
    rb'KDMV|COWD|# Disk DescriptorFile|\xbe\xba\xfe\xca\x00\x00\x00\x00': _disk('vmdk'),
    rb'vhdxfile': _disk('vhdx'),
    rb'conectix': _disk('vhd'),
    rb'.{64}\x7f\x10\xda\xbe': _disk('vdi'),
    rb'WithoutFreeSpace|WithouFreSpacExt': _disk('Parallels'),
}
_PATTERNS = [(re.compile(pattern, re.DOTALL), stranger) for pattern, stranger in _KNOWN.items()]

#: A fixed vhd is a raw image with this at the end.
TAIL = 512
_FIXED_VHD = b'conectix'


def recognise(head: bytes, tail: bytes = b'') -> Stranger | None:
    """Return what a file seems to be, None where nothing is known of it.

    :param head: its first ``HEAD`` bytes
    :param tail: its last ``TAIL`` bytes, where it has an end that can be looked at
    """
    for pattern, stranger in _PATTERNS:
        if pattern.match(head):
            return stranger
    return Stranger('a vhd image of fixed size', _CONVERT) if tail.startswith(_FIXED_VHD) else None
