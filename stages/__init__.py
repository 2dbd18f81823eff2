"""The pipeline's stages, each a command of its own: download, tensorize, train, evaluate."""

import signal
import sys
from pathlib import PurePath

# A command takes a second or two to import what it needs. Until `base.command.run` has begun,
# Ctrl-C ends the process without a traceback. sys.argv[0] is "-m" while Python looks for the module
# to run; where this package is imported as a library, nothing is changed.
if (
    PurePath(sys.argv[0]).name in ("-m", "logreg-predict")
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
