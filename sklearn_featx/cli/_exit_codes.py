"""Exit codes of the commands."""

NO_GROUP = 1
USAGE_ERROR = 2
SOME_UNREADABLE = 3
# 128 + SIGINT, the shell convention for an interrupted program.
INTERRUPTED = 130
# 128 + SIGPIPE.
BROKEN_PIPE = 141
