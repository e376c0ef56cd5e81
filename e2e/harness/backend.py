"""An origin in a process of its own, so that it can be killed or stopped:

    python3 -m e2e.harness.backend NAME PORT
"""

import signal
import sys

from e2e.harness.origin import Origin

if __name__ == "__main__":
    Origin(sys.argv[1], record=False, port=int(sys.argv[2]))
    signal.pause()
