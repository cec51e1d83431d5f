#!/usr/bin/env python3
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

"""The commands at work, told as a story between the two clouds of the sandbox.

Every line that begins with ``$`` is a command as a user would type it, and is
run as it stands; one that begins with ``POST`` is a request to Block Storage.
Checksums are of what the stock ``rbd`` tool exports.
"""

import collections.abc
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time
import typing

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.functional import ceph, shell  # noqa: E402 - the path comes first

NAMES = ('full', 'monday', 'tuesday')
PROPERTIES = {'rack': 'b7', 'owner': 'payroll'}


def say(text: str = '') -> None:
    sys.stdout.write(f'{text}\n')
    sys.stdout.flush()


def heading(text: str) -> None:
    say(f'\n{text}\n{"=" * len(text)}\n')


class Story:
    """What is done, on which cloud, and what became of it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.scene = 0
        self.volume_id = ''
        self.ids: dict[str, str] = {}
        file = shell.sandbox_environment('src')['OS_CLIENT_CONFIG_FILE']
        self.environment = {**shell.plain_environment(), 'OS_CLIENT_CONFIG_FILE': file}
        self.clouds = {name: shell.Cloud(name, self.environment, name) for name in ('src', 'dst')}
        self.pools = {name: ceph.backup_pool(cloud) for name, cloud in self.clouds.items()}
        self.verdicts: list[tuple[str, bool]] = []
        self.made: list[tuple[str, str]] = []

    def begin(self, scene: int, text: str) -> None:
        self.scene = scene
        heading(f'{scene}. {text}')

    def openstack(self, cloud: str, *arguments: str) -> str:
        """Show a command, run it in the folder of the story, return its stdout."""
        say(f'$ openstack --os-cloud {cloud} {shlex.join(arguments)}')
        process = subprocess.run(
            self.clouds[cloud].command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if process.returncode:
            raise SystemExit(f'demo: that command ended with exit code {process.returncode}')
        return process.stdout

    def show(self, cloud: str, *arguments: str) -> None:
        say(self.openstack(cloud, *arguments))

    def wait(
        self, cloud: str, path: str, wanted: str | None = 'available'
    ) -> dict[str, typing.Any]:
        return self.clouds[cloud].wait(path, wanted)

    def check(self, what: str, is_right: bool) -> None:
        self.verdicts.append((f'{self.scene}. {what}', is_right))
        say(f'    {"RIGHT" if is_right else "WRONG"}: {what}')

    def volume_sum(self, cloud: str, volume_id: str) -> str:
        return ceph.volume_pool(self.clouds[cloud]).checksum(f'volume-{volume_id}')

    # What the scenes are made of

    def back_up(self) -> dict[str, str]:
        """Make three backups, changing the volume before each; return their checksums."""
        sums, volume_id = {}, self.volume_id
        for number, name in enumerate(NAMES):
            ceph.write_state(ceph.volume_pool(self.clouds['src']), f'volume-{volume_id}', number)
            sums[name] = self.volume_sum('src', volume_id)
            incremental = ['--incremental'] if number else []
            made = self.openstack(
                'src', 'volume', 'backup', 'create', '--name', name, *incremental, volume_id,
                '-f', 'value', '-c', 'id',
            )  # fmt: skip
            self.wait('src', f'/backups/{made.strip()}')
            self.made.append(('src', f'/backups/{made.strip()}'))
            self.ids[name] = made.strip()
            say(f'    backup {made.strip()}; the volume has sha256 {sums[name]}\n')
        return sums

    def restore(self, name: str) -> str:
        """Begin to restore a backup on dst into a new volume; return the id of that."""
        new_name = f'ledger-{name}-{self.volume_id[:8]}-{len(self.made)}'
        return self.openstack(
            'dst', 'volume', 'backup', 'restore', self.ids[name], new_name,
            '-f', 'value', '-c', 'volume_id',
        ).strip()  # fmt: skip

    def restore_without_a_name(self, name: str) -> str:
        """The same by the API: the command insists on a name, which would hide the old one."""
        path = f'/backups/{self.ids[name]}/restore'
        body: dict[str, object] = {'restore': {}}
        say(f'POST {path} {json.dumps(body)}   on dst')
        answer = self.clouds['dst'].rest('POST', path, body)
        return str(answer['restore']['volume_id'])

    def restore_and_check(
        self,
        sums: dict[str, str],
        *names: str,
        restore: collections.abc.Callable[[str], str] | None = None,
    ) -> list[dict[str, typing.Any]]:
        """Restore backups at the same time; return the volumes that came of it."""
        paths = []
        for name in names:
            paths.append(f'/volumes/{(restore or self.restore)(name)}')
            self.made.append(('dst', paths[-1]))
        volumes = []
        for name, path in zip(names, paths, strict=True):
            self.wait('dst', f'/backups/{self.ids[name]}')
            volumes.append(self.wait('dst', path))
            found = self.volume_sum('dst', volumes[-1]['id'])
            say(f'    {name} at backup time on src  {sums[name]}')
            say(f'    {name} restored on dst        {found}')
            self.check(f'{name} restores to its own bytes', found == sums[name])
        return volumes

    def delete(self, name: str) -> None:
        self.openstack('dst', 'volume', 'backup', 'delete', self.ids[name])
        self.wait('dst', f'/backups/{self.ids[name]}', None)

    def check_pool(self, before: frozenset[str]) -> None:
        try:
            self.pools['dst'].expect(before)
        except AssertionError as error:
            say(str(error))
            self.check('the pool holds nothing of them any more', False)
        else:
            self.check('the pool holds nothing of them any more', True)

    def tidy_up(self) -> None:
        """Remove what the story made, wherever it ended."""
        dst = self.clouds['dst']
        for name in reversed(self.ids):
            if dst.status(f'/backups/{self.ids[name]}') != 404:
                dst.rest('DELETE', f'/backups/{self.ids[name]}')
                self.wait('dst', f'/backups/{self.ids[name]}', None)
        if self.volume_id:
            self.pools['dst'].clear(self.volume_id, self.ids.values())
        for cloud, path in reversed(self.made):
            if self.clouds[cloud].status(path) != 404:
                self.clouds[cloud].rest('DELETE', path)
                self.wait(cloud, path, None)


def prepare(story: Story) -> dict[str, str]:
    heading('On src: a volume, a full backup, two incremental ones')
    properties = [word for item in PROPERTIES.items() for word in ('--property', '='.join(item))]
    made = story.openstack(
        'src', 'volume', 'create', '--size', '1', *properties, 'ledger',
        '-f', 'value', '-c', 'id',
    )  # fmt: skip
    volume_id = story.volume_id = made.strip()
    story.made.append(('src', f'/volumes/{volume_id}'))
    story.wait('src', f'/volumes/{volume_id}')
    story.openstack(
        'src', 'volume', 'set', '--bootable', '--image-property', 'hw_disk_bus=scsi', volume_id
    )
    return story.back_up()


def export(story: Story) -> None:
    heading('On src: everything is exported')
    story.show('src', 'volume', 'backup', 'metadata', 'export', '--volume', story.volume_id,
               '--directory', 'records')  # fmt: skip
    previous: list[str] = []
    for name in NAMES:
        since = ['--from-backup', story.ids[previous[-1]]] if previous else []
        story.show(
            'src', 'volume', 'backup', 'export-image', story.ids[name], '--format', 'rbd-diff',
            *since, '--file', f'{name}.rbd-diff', '--no-progress',
        )  # fmt: skip
        previous.append(name)


def scene_1(story: Story, sums: dict[str, str]) -> None:
    story.begin(1, 'On dst: the images, then the records; each restores to its own bytes')
    for name in NAMES:
        story.show(
            'dst', 'volume', 'backup', 'import-image', '--metadata',
            f'records/{story.ids[name]}.json', '--file', f'{name}.rbd-diff', '--no-progress',
        )  # fmt: skip
    story.show('dst', 'volume', 'backup', 'metadata', 'import', 'records')
    volumes = story.restore_and_check(sums, *NAMES, restore=story.restore_without_a_name)
    for name, volume in zip(NAMES, volumes, strict=True):
        properties = ', '.join(f'{key}={value}' for key, value in volume['metadata'].items())
        say(f'    name {volume["name"]}, bootable {volume["bootable"]}, properties {properties}')
        image_properties = volume.get('volume_image_metadata', {})
        listed = ', '.join(f'{key}={value}' for key, value in image_properties.items())
        say(f'    image properties {listed}')
        is_right = (volume['name'], volume['bootable']) == ('ledger', 'true')
        is_right = is_right and image_properties == {'hw_disk_bus': 'scsi'}
        is_right = is_right and volume['metadata'].items() >= PROPERTIES.items()
        story.check(f'{name}: volume name, properties, bootable flag are back', is_right)


def scene_3(story: Story, sums: dict[str, str], before: frozenset[str]) -> None:
    story.begin(3, 'On dst: the newest is deleted, then the others')
    story.delete('tuesday')
    story.restore_and_check(sums, 'monday')
    story.delete('monday')
    story.restore_and_check(sums, 'full')
    story.delete('full')
    story.check_pool(before)


def scene_2(story: Story, sums: dict[str, str], before: frozenset[str]) -> None:
    story.begin(2, 'Again in another order: records before images, newest first, raw images')
    for name in reversed(NAMES):
        story.show(
            'src', 'volume', 'backup', 'export-image', story.ids[name], '--file', f'{name}.raw',
            '--no-progress', '-f', 'value', '-c', 'sha256',
        )  # fmt: skip
    files = [f'records/{story.ids[name]}.json' for name in reversed(NAMES)]
    story.show('dst', 'volume', 'backup', 'metadata', 'import', *files)
    for name in reversed(NAMES):
        story.show(
            'dst', 'volume', 'backup', 'import-image', story.ids[name], '--file', f'{name}.raw',
            '--no-progress', '-f', 'value', '-c', 'result', '-c', 'image',
        )  # fmt: skip
    story.restore_and_check(sums, *NAMES)
    for name in reversed(NAMES):
        story.delete(name)
    story.check_pool(before)


def scene_4(story: Story, sums: dict[str, str], before: frozenset[str]) -> None:
    story.begin(4, 'Only the middle backup is taken')
    record = f'records/{story.ids["monday"]}.json'
    story.show('dst', 'volume', 'backup', 'import-image', '--metadata', record, '--file',
               'monday.raw', '--no-progress')  # fmt: skip
    story.show('dst', 'volume', 'backup', 'metadata', 'import', record)
    story.restore_and_check(sums, 'monday')
    story.delete('monday')
    story.check_pool(before)


def main() -> int:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        story = Story(pathlib.Path(folder))
        before = story.pools['dst'].contents()
        try:
            sums = prepare(story)
            export(story)
            scene_1(story, sums)
            scene_3(story, sums, before)
            scene_2(story, sums, before)
            scene_4(story, sums, before)
        finally:
            say('\nTidying up ...')
            story.tidy_up()
    heading('What came of it')
    for what, is_right in sorted(story.verdicts, key=lambda verdict: verdict[0][0]):
        say(f'{"RIGHT" if is_right else "WRONG"}  {what}')
    wrong = sum(not is_right for _what, is_right in story.verdicts)
    say(
        f'\n{len(story.verdicts)} checks, {wrong} wrong, {time.monotonic() - started:.0f} seconds.'
    )
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
