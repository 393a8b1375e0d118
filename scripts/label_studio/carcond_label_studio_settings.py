"""Django settings of the Label Studio that `scripts/up` starts: its own, and two without an environment variable.

Label Studio's Python reads this file, in its own environment, where carcond is not installed.
"""

import os
import socketserver

# Label Studio's settings import themselves through Django while they are read, by this name.
os.environ["DJANGO_SETTINGS_MODULE"] = "label_studio.core.settings.label_studio"

from label_studio.core.settings.label_studio import *
from label_studio.core.settings.label_studio import DATABASES, DJANGO_DB, DJANGO_DB_SQLITE

# SQLite refuses a transaction that has read and then wants to write when another has written in between: "database is
# locked". Label Studio then sleeps for a second or more and tries again, while a person waits for the next photo. A
# transaction that begins as a write waits for its turn, which takes milliseconds.
if DJANGO_DB == DJANGO_DB_SQLITE:
    DATABASES["default"]["OPTIONS"] = {"transaction_mode": "IMMEDIATE", "timeout": 20}

# Its server sends a reply in several small segments, and Nagle's algorithm holds the last one back for 40 ms.
socketserver.StreamRequestHandler.disable_nagle_algorithm = True
