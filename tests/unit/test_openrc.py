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


"""An openrc file is read, and nothing in it is run."""

import pytest

from osc_backup_port import errors
from osc_backup_port.formats import openrc

# As OpenStack's dashboard writes it.
DASHBOARD = """\
#!/usr/bin/env bash
# To use an OpenStack cloud you need to authenticate against the Identity service.
export OS_AUTH_URL=https://cloud.example.org:5000/v3
export OS_PROJECT_NAME="my project"
export OS_USER_DOMAIN_NAME="Default"
if [ -z "$OS_USER_DOMAIN_NAME" ]; then unset OS_USER_DOMAIN_NAME; fi
export OS_PROJECT_DOMAIN_ID=""
if [ -z "$OS_PROJECT_DOMAIN_ID" ]; then unset OS_PROJECT_DOMAIN_ID; fi
# unset v2.0 items in case set
unset OS_TENANT_ID
unset OS_TENANT_NAME
export OS_USERNAME="joe"
echo "Please enter your OpenStack Password for project $OS_PROJECT_NAME as user $OS_USERNAME: "
read -sr OS_PASSWORD_INPUT
export OS_PASSWORD=$OS_PASSWORD_INPUT
export OS_REGION_NAME="RegionOne"
export OS_INTERFACE=public
export OS_IDENTITY_API_VERSION=3
"""


def parse(text: str) -> dict[str, str]:
    return openrc.parse(text, 'openrc', {'HOME': '/root', 'OS_USERNAME': 'of the cloud in use'})


def test_of_the_dashboard() -> None:
    assert parse(DASHBOARD) == {
        'OS_AUTH_URL': 'https://cloud.example.org:5000/v3',
        'OS_PROJECT_NAME': 'my project',
        'OS_USER_DOMAIN_NAME': 'Default',
        'OS_USERNAME': 'joe',
        'OS_REGION_NAME': 'RegionOne',
        'OS_INTERFACE': 'public',
        'OS_IDENTITY_API_VERSION': '3',
    }


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('A=x', 'x'),
        ('  export A=x # told', 'x'),
        ('export B=y A=x', 'x'),
        ('B=y; export A=x;', 'x'),
        ('A=x\r\n', 'x'),
        ("A='p$w\"`#; '", 'p$w"`#; '),
        ('A="p\\$w\\"\\\\ \\x"', 'p$w"\\ \\x'),
        ("A=it\\'s\\ one", "it's one"),
        ('A=x#y', 'x#y'),
        ('A=a"b c"\'d\'', 'ab cd'),
        ('B=1 ; A=${B}2$B', '121'),
        ('A=$HOME/ca.pem', '/root/ca.pem'),
        ('A=', ''),
        ('A=x\nexport A\nset -a', 'x'),
        ('A=x=y==', 'x=y=='),
    ],
)
def test_values(text: str, value: str) -> None:
    assert parse(text)['A'] == value


@pytest.mark.parametrize('text', ['read -s A', 'A=$UNKNOWN', 'A=x$OS_USERNAME', 'A=x; unset A'])
def test_what_nobody_knows_is_not_there(text: str) -> None:
    assert 'A' not in parse(text)


@pytest.mark.parametrize(
    'line',
    [
        'export A=$(touch /tmp/x)',
        'A="$(touch /tmp/x)"',
        'A=`id`',
        'A="`id`"',
        'A=$((1+1))',
        'A=${B:-x}',
        "A=$'x'",
        'A=s3cret && id',
        'A=s3cret | id',
        'A=s3cret > /tmp/x',
        'A=<(id)',
        'A=(s3cret x)',
        'A=s3cret id',
        'A="s3cret',
        "A='s3cret",
        'A=s3cret\\',
        'source other',
        '. ./other',
        'rm -rf /',
        'if true; then A=s3cret; fi',
        's3cret=s3cret!x other-s3cret',
        'export -f s3cret',
        'eval A=s3cret',
    ],
)
def test_what_is_refused(line: str) -> None:
    with pytest.raises(errors.InvalidInput, match='openrc: line 2: ') as caught:
        parse(f'B=1\n{line}\n')
    assert 's3cret' not in str(caught.value)
