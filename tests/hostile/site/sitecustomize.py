"""Python imports this at its start where the hostile tests say so: reading processes are listened to as well."""

import sys

if "--multiprocessing-fork" in sys.orig_argv:
    from tests.hostile.listening import listen_in_a_reading_process

    listen_in_a_reading_process()
