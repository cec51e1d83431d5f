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


"""What the unified command line imports of us, and when.

Each ``openstack`` that anybody types on a machine where we are installed pays
for what we import at its start, and breaks if that cannot be imported.
"""

import json
import subprocess
import sys
from importlib import metadata

import pytest

GROUP = 'openstack.volume.v3'
PACKAGE = 'osc_backup_port'
# Heavy, or not there on every machine.
NOT_AT_START = {'cinderclient', 'fsspec', 'rados', 'rbd', 'rich', 'zstandard'}

# Runs the shell, then reports on stderr what of ours was imported, and which of
# the libraries above were asked for by a module of ours. Somebody else's import
# of them is not our matter: cliff imports rich, by way of cmd2.
RUN_SHELL = """
import json, sys

asked = []

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in NOT_AT_START:
            frame = sys._getframe(1)
            while frame is not None:
                if frame.f_globals.get('__name__', '').partition('.')[0] == PACKAGE:
                    asked.append(name)
                    break
                frame = frame.f_back
        return None

sys.meta_path.insert(0, Watch())
sys.argv[0] = 'openstack'
from openstackclient import shell
try:
    code = shell.main(sys.argv[1:])
except SystemExit as exc:
    code = exc.code
report = {
    'code': code,
    'ours': sorted(name for name in sys.modules if name.partition('.')[0] == PACKAGE),
    'asked': asked,
}
print(json.dumps(report), file=sys.stderr)
"""

# The libraries of the shell itself are there before the class is loaded, so a
# library that is new was imported by us.
LOAD_COMMAND = """
import importlib, json, sys
from openstackclient import shell
from osc_lib.command import command
def roots():
    return {name.partition('.')[0] for name in sys.modules}

before = roots()
getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
brought = roots() - before - {PACKAGE} - sys.stdlib_module_names
print(json.dumps(sorted(brought)), file=sys.stderr)
"""


def our_entry_points():
    return sorted(
        (
            entry
            for entry in metadata.entry_points(group=GROUP)
            if entry.value.partition('.')[0] == PACKAGE
        ),
        key=lambda entry: entry.name,
    )


def python(program, *args):
    """Run *program* in a new interpreter; return its stdout and its report."""
    settings = f'PACKAGE = {PACKAGE!r}\nNOT_AT_START = {NOT_AT_START!r}\n'
    done = subprocess.run(
        [sys.executable, '-c', settings + program, *args],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(done.stderr.splitlines()[-1])


def test_the_commands_are_registered():
    assert [entry.name.replace('_', ' ') for entry in our_entry_points()] == [
        'volume backup archive create',
        'volume backup archive extract',
        'volume backup archive import',
        'volume backup archive list',
        'volume backup archive show',
        'volume backup archive verify',
        'volume backup continue',
        'volume backup export-image',
        'volume backup image check',
        'volume backup image list',
        'volume backup import-image',
        'volume backup metadata export',
        'volume backup metadata import',
        'volume backup metadata rebuild',
        'volume backup metadata show',
        'volume backup migrate',
    ]


def test_the_bare_shell_imports_nothing_of_ours():
    stdout, report = python(RUN_SHELL, '--version')

    assert stdout.startswith('openstack ')
    assert report == {'code': 0, 'ours': [], 'asked': []}


# cliff loads the classes of all commands before it runs any: that our modules
# are imported here is not in our hands, what they bring with them is.
@pytest.mark.parametrize(
    'args',
    [
        ['server', 'list', '--help'],
        ['volume', 'backup', 'list', '--help'],
    ],
    ids=' '.join,
)
def test_other_commands_get_no_library_through_us(args):
    stdout, report = python(RUN_SHELL, *args)

    assert report['code'] in (None, 0)
    assert stdout.startswith('usage: openstack ' + ' '.join(args[:-1]))
    assert report['asked'] == []


def test_the_list_of_commands_brings_no_library_with_it():
    stdout, report = python(RUN_SHELL, '--help')

    assert report['code'] in (None, 0)
    # Were our classes not loaded, this test would prove nothing.
    assert {entry.module for entry in our_entry_points()} <= set(report['ours'])
    for entry in our_entry_points():
        assert entry.name.replace('_', ' ') in stdout
    assert 'Could not load' not in stdout
    assert report['asked'] == []


@pytest.mark.parametrize('entry', our_entry_points(), ids=lambda entry: entry.name)
def test_a_command_class_needs_only_the_shell_and_the_standard_library(entry):
    _, brought = python(LOAD_COMMAND, entry.module, entry.attr)

    assert brought == []
