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

import os

import setuptools

# pbr takes the version from git, or from the PKG-INFO of an sdist. A plain
# archive of the source tree ("git archive", a web download) has neither, and
# without a version pbr would refuse to build it.
if not os.path.exists('.git') and not os.path.exists('PKG-INFO'):
    os.environ.setdefault('PBR_VERSION', '0.0.1.dev0')

setuptools.setup(setup_requires=['pbr>=6.1.1'], pbr=True)
