"""Running a program as one whom the modes of files hold back, though the tests may run as root."""

from __future__ import annotations

import os
from typing import Final

ORDINARY: Final = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if not os.geteuid() else []
"""Before a command: root without what makes it root. Its files stay its own, as a user's are."""
