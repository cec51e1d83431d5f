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

"""The ways in which people have a record in a file; each takes a record and gives a text."""

import base64
import csv
import html
import io
import json
import quopri
import shlex
import textwrap
from collections.abc import Callable

import yaml

from osc_backup_port.record import BackupRecord


def _strings(record: BackupRecord) -> dict[str, str]:
    return {'backup_service': record.backup_service, 'backup_url': record.backup_url}


def wrap(text: str, width: int) -> list[str]:
    return [text[start : start + width] for start in range(0, len(text), width)]


def table(record: BackupRecord, width: int = 5000) -> str:
    lines = ['+---------+------+', '| Field   | Value |', '+---------+------+']
    for name, value in (
        ('Backup Service', record.backup_service),
        ('Metadata', record.backup_url),
    ):
        for number, part in enumerate(wrap(value, width)):
            lines.append(f'| {"" if number else name:14} | {part.ljust(min(width, 60))} |')
    return '\n'.join([*lines, '+---------+------+']) + '\n'


def unicode_table(record: BackupRecord) -> str:
    return (
        table(record, 70).replace('|', '│').replace('+---', '┌───').replace('---+', '───┐')
    )  # fmt: skip


def as_yaml(record: BackupRecord) -> str:
    return yaml.safe_dump(_strings(record))


def yaml_wrapped(record: BackupRecord) -> str:
    lines = '\n'.join(f'    {part}' for part in wrap(record.backup_url, 64))
    return f'- backup_service: {record.backup_service}\n  backup_url: >-\n{lines}\n'


def shell(record: BackupRecord) -> str:
    return ''.join(f'os_{name}="{value}"\n' for name, value in _strings(record).items())


def declared(record: BackupRecord) -> str:
    return ''.join(
        f'declare -x {name.upper()}="{value}"\n' for name, value in _strings(record).items()
    )


def url_first(record: BackupRecord) -> str:
    return f"backup_url='{record.backup_url}'\nbackup_service='{record.backup_service}'\n"


def value(record: BackupRecord) -> str:
    return f'{record.backup_service}\n{record.backup_url}\n'


def one_line(record: BackupRecord) -> str:
    return json.dumps(_strings(record))


def pretty(record: BackupRecord) -> str:
    return json.dumps(_strings(record), indent=4)


def rest(record: BackupRecord) -> str:
    return json.dumps({'backup-record': _strings(record)})


def slashes_escaped(record: BackupRecord) -> str:
    return one_line(record).replace('/', '\\/').replace('+', '\\u002b').replace('=', '\\u003d')


def python_dict(record: BackupRecord) -> str:
    return repr(_strings(record))


def python_two(record: BackupRecord) -> str:
    return repr(_strings(record)).replace("'backup_", "u'backup_").replace(": '", ": u'")


def ansible_stdout(record: BackupRecord) -> str:
    text = value(record)
    return json.dumps({'changed': True, 'rc': 0, 'stdout': text, 'stdout_lines': text.split('\n')})


def ansible_table(record: BackupRecord) -> str:
    text = table(record, 60)
    return json.dumps({'stdout': text, 'stdout_lines': text.splitlines()}, indent=4)


def ansible_debug(record: BackupRecord) -> str:
    return f'ok: [localhost] => {json.dumps({"msg": pretty(record)}, indent=4)}\n'


def ansible_twice(record: BackupRecord) -> str:
    return json.dumps({'msg': json.dumps({'msg': value(record)})})


def as_csv(record: BackupRecord, delimiter: str = ',') -> str:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(['id', 'backup_service', 'name', 'backup_url'])
    writer.writerow([record.id, record.backup_service, 'x', record.backup_url])
    return file.getvalue()


def semicolons(record: BackupRecord) -> str:
    return as_csv(record, ';')


def tabs(record: BackupRecord) -> str:
    return as_csv(record, '\t')


def field_and_value(record: BackupRecord) -> str:
    return (
        f'"Field","Value"\n"backup_service","{record.backup_service}"\n'
        f'"backup_url","{record.backup_url}"\n'
    )


def command(record: BackupRecord) -> str:
    return f'root@ctl:~# cinder backup-import {record.backup_service} {record.backup_url}\n'


def command_with_options(record: BackupRecord) -> str:
    words = ['openstack', '--os-cloud', 'dst', 'volume', 'backup', 'record', 'import']
    quoted = shlex.join([*words, record.backup_service, '-f', 'json'])
    return f'$ {quoted} "{record.backup_url}"\n'


def command_over_lines(record: BackupRecord) -> str:
    parts = '\\\n'.join(wrap(record.backup_url, 100))
    return f'cinder --debug backup-import \\\n  {record.backup_service} \\\n  {parts}\n'


def markdown(record: BackupRecord) -> str:
    return (
        '| id | backup_service | backup_url |\n|----|:---|---:|\n'
        f'| {record.id} | `{record.backup_service}` | `{record.backup_url}` |\n'
    )


def html_table(record: BackupRecord) -> str:
    rows = ''.join(
        f'<tr><td>{name}</td><td>{html.escape(value)}</td></tr>\n'
        for name, value in _strings(record).items()
    )
    return f'<html><table class="x">\n{rows}</table></html>\n'


def html_broken(record: BackupRecord) -> str:
    lines = '<br />'.join(wrap(record.backup_url, 80))
    return f'<b>backup_service</b>: {record.backup_service}<br/><b>backup_url</b>: {lines}</p>'


def xml(record: BackupRecord) -> str:
    return ''.join(f'<{name}>{value}</{name}>' for name, value in _strings(record).items())


def bare(record: BackupRecord) -> str:
    return record.backup_url


def unpadded(record: BackupRecord) -> str:
    return record.backup_url.rstrip('=') + '\n'


def url_safe(record: BackupRecord) -> str:
    raw = base64.b64decode(record.backup_url)
    return f'backup_url={base64.urlsafe_b64encode(raw).decode().rstrip("=")}\n'


def words(record: BackupRecord) -> str:
    return ' '.join(wrap(record.backup_url, 76))


def mime(record: BackupRecord) -> str:
    return base64.encodebytes(base64.b64decode(record.backup_url)).decode()


def quoted_printable(record: BackupRecord) -> str:
    return quopri.encodestring(one_line(record).encode()).decode()


def python_lines(record: BackupRecord) -> str:
    lines = '\n    '.join(f"'{part}'" for part in wrap(record.backup_url, 70))
    return f"service = '{record.backup_service}'\nurl = (\n    {lines}\n)\n"


def yaml_dumped(record: BackupRecord) -> str:
    return yaml.safe_dump({'results': [{'item': 1, 'json': _strings(record)}]}, width=80)


def decoded(record: BackupRecord) -> str:
    return json.dumps(dict(record.fields), indent=2)


def decoded_unicode(record: BackupRecord) -> str:
    return f'[{json.dumps(dict(record.fields), ensure_ascii=False)}]'


def decoded_python(record: BackupRecord) -> str:
    return f'INFO: {dict(record.fields)!r}\n'


def decoded_yaml(record: BackupRecord) -> str:
    return yaml.safe_dump(dict(record.fields), sort_keys=False, allow_unicode=True)


def decoded_yaml_list(record: BackupRecord) -> str:
    return yaml.safe_dump([dict(record.fields)], sort_keys=False)


def decoded_escaped(record: BackupRecord) -> str:
    return json.dumps({'msg': decoded(record), 'failed': False})


def decoded_nested(record: BackupRecord) -> str:
    return json.dumps({'results': [{'backup': {'x': {}}, 'out': [dict(record.fields)]}]})


def decoded_in_own(record: BackupRecord) -> str:
    return json.dumps({'backup': dict(record.fields)}, indent=1)


def own_sorted(record: BackupRecord) -> str:
    return json.dumps({**_strings(record), 'backup': dict(record.fields)}, sort_keys=True)


#: Every way that keeps the record as it is.
FORMS: list[Callable[[BackupRecord], str]] = [
    table, unicode_table, as_yaml, yaml_wrapped, shell, declared, url_first, value, one_line,
    pretty, rest, slashes_escaped, python_dict, python_two, ansible_stdout, ansible_table,
    ansible_debug, ansible_twice, as_csv, semicolons, tabs, field_and_value, command,
    command_with_options, command_over_lines, markdown, html_table, html_broken, xml, bare,
    unpadded, url_safe, words, mime, quoted_printable, python_lines, yaml_dumped, decoded,
    decoded_unicode, decoded_python, decoded_yaml, decoded_yaml_list, decoded_escaped,
    decoded_nested, decoded_in_own, own_sorted,
]  # fmt: skip


def _prefixed(prefix: str) -> Callable[[str], str]:
    return lambda text: ''.join(prefix + line for line in text.splitlines(keepends=True))


def _numbered(text: str) -> str:
    lines = text.splitlines()
    return ''.join(f'{number:6}\t{line}\n' for number, line in enumerate(lines, 1))


def _logged(text: str) -> str:
    return ''.join(
        f'2026-11-27 23:02:{number % 60:02}.{number:03} ctl backup[{number}]: {line}\n'
        for number, line in enumerate(text.splitlines())
    )


def _stamped(text: str) -> str:
    return ''.join(f'[2026-11-27T23:02:40+01:00] {line}\n' for line in text.splitlines())


def _coloured(text: str) -> str:
    lines = text.splitlines()
    return '\x1b]0;root@ctl: ~\x07' + ''.join(f'\x1b[0;33m{line}\x1b[0m\x1b[K\n' for line in lines)


def _between_prompts(text: str) -> str:
    prompt = '[root@controller ~(keystone_admin)]# '
    return f'{prompt}cinder backup-export x\n{text}\n{prompt}\n'


def _after_show(text: str) -> str:
    return (
        '+-----------+--------------------------------------+\n'
        '| Field     | Value                                |\n'
        '+-----------+--------------------------------------+\n'
        '| container | backups                              |\n'
        '| id        | 46944373-9ffe-4730-a3f6-8136fd3f9035 |\n'
        '| metadata  | {}                                   |\n'
        '| metadata  | a=b                                  |\n'
        '| name      | backup_service                       |\n'
        '+-----------+--------------------------------------+\n'
        + text
    )  # fmt: skip


def _after_warning(text: str) -> str:
    return (
        '/usr/lib/python3/dist-packages/urllib3/connectionpool.py:1015: InsecureRequestWarning: '
        'Unverified HTTPS request. https://urllib3.readthedocs.io/en/1.26.x/advanced-usage.html\n'
        'X-Auth-Token: gAAAAABnR0l6mT2nXo6k3v5uG8J4rKcQ2cV1hYdV9f0WqXy7b8Z3sL5pR-aE_tNwMjUkOiHg\n'
        'X-Subject: eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMe\n'
        'Authorization: Basic YWRtaW46YS1sb25nLXBhc3N3b3JkLXRoYXQtbm9ib2R5LWd1ZXNzZXM=\n'
        + text
        + '\nsha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n'
    )  # fmt: skip


#: What else may be done to a whole text.
WRAPPINGS: list[Callable[[str], str]] = [
    _prefixed('> '), _prefixed('> > '), _prefixed('>> '), _prefixed('    '), _numbered,
    _logged, _stamped, _coloured, _between_prompts, _after_show, _after_warning,
    lambda text: text.replace('\n', '\r\n'), lambda text: f'```\n{text}\n```\n',
    lambda text: f'{text}\n{text}', textwrap.dedent,
]  # fmt: skip

#: What may stand before every line, by the number of the line.
MARKS: list[Callable[[int], str]] = [
    lambda number: f'{number:6}\t', lambda number: f'{number + 8}:', lambda number: f'{number:3} ',
    lambda _: '+', lambda _: '-', lambda _: '# ', lambda _: '#', lambda _: '// ', lambda _: '* ',
    lambda _: 'REM ', lambda _: 'ctl1: ', lambda _: 'ctl-01.example.com: ', lambda _: 'ctl1 | ',
    lambda _: 'cinder-1  | ', lambda number: f'records.txt:{number}:', lambda _: 'ok: [ctl1] => ',
    lambda number: f'^5497057 (ops 2026-11-28 {number:3}) ',
    lambda number: f'Nov 28 08:00:{number % 60:02} ctl1 backup.sh[1200]: ',
    lambda number: f'2026-11-28T08:00:00.{number:09}Z stdout F ',
]  # fmt: skip


def marked(text: str, mark: Callable[[int], str]) -> str:
    return ''.join(f'{mark(number)}{line}\n' for number, line in enumerate(text.splitlines()))


#: From text to bytes.
ENCODINGS: list[Callable[[str], bytes]] = [
    lambda text: text.encode(),
    lambda text: text.encode('utf-8-sig'),
    lambda text: text.encode('utf-16'),
    lambda text: text.encode('utf-16-le'),
    lambda text: text.encode('utf-16-be'),
    lambda text: b'\xfe\xff' + text.encode('utf-16-be'),
    lambda text: text.encode('utf-32'),
]
